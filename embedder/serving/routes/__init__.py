"""What clients ask for, one file for each kind of client."""

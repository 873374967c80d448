"""What runs an encoder over a corpus."""

"""Models by name, their files, and what is made of them."""

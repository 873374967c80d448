"""Attacks on indexes, readers and the server: kills, damaged files, malformed input, load."""

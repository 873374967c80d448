"""Learning from a teacher's vectors instead of from judged pairs."""

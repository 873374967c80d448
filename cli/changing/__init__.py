"""Indexes that change as files do, and as clients of a server ask."""

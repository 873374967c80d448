"""Other benchmark libraries."""

"""Tiny random models in the folders that authors of embedding models publish."""

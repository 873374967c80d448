"""FAISS: any factory string, memory-mapped."""

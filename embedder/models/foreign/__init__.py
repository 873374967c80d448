"""Models of others: adapters, layouts that are not sentence-transformers', checkpoints."""

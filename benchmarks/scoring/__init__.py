"""Models are scored on tasks: metrics, results, what is remembered."""

"""Whether two models give the same vectors, and if not, why. Imports no torch."""

"""Datasets, metrics and significance tests for comparing encoders; nothing public yet."""

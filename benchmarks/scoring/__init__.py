"""Scores models on tasks: metrics, results, and what is kept between runs."""

"""Tests of paired scores, bootstrap intervals, and corrections for many tests at once."""

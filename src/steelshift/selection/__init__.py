"""Judging without target labels, and scores from arrays."""

"""Probability sampling of Earth-observation archives: pure functions on tables and arrays."""

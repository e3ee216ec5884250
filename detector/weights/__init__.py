"""Weights of other tools and published files, by any of their names."""

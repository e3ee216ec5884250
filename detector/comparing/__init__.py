"""Comparisons as a library: plan runs, train them here or on a cluster, and analyze their results."""

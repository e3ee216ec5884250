"""Benchmarks and device checks: what measures the package and is no part of it."""

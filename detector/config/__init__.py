"""Configurations: where they lie, whether they are right, and the objects they describe."""

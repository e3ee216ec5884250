"""Configurations: their files, their checks, and building the objects they describe."""

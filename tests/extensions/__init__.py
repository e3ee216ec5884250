"""A user's package: a neck, a loss, a branch and a source of data, each one class and one YAML file."""

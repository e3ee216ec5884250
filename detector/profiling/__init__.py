"""The cost of a model: operations, memory and time."""

"""One run: its parts, its record, its report, and how to go on with it."""

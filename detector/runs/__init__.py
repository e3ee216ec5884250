"""One run: its parts, its record, its report, and how to resume it."""

"""Texts in CSV files that people open with a spreadsheet."""

from __future__ import annotations

# What makes a spreadsheet run a cell: OWASP, "CSV Injection". The last four are the full-width forms.
_RUN = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001


def harmless(cell: object) -> object:
    """A text that a spreadsheet would run, with an apostrophe before it; anything else as it is.

    File and class names are other people's. Numbers stay numbers, negative ones too.
    """
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_RUN) else cell

"""Text in CSV files that people open with a spreadsheet."""

from __future__ import annotations

# Prefixes that make a spreadsheet run a cell: OWASP, "CSV Injection". The last four are the full-width forms.
_RUN = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001


def harmless(cell: object) -> object:
    """Prefix text that a spreadsheet would evaluate with an apostrophe; return anything else unchanged.

    File and class names are untrusted. Numbers stay numbers, negative ones too.
    """
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_RUN) else cell

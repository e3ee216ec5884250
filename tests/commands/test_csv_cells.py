"""Names stay names in a spreadsheet, and numbers numbers."""

import pytest

from detector.commands.csv_cells import harmless


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1"])  # noqa: RUF001
def test_a_text_that_would_run_is_quoted(text: str) -> None:
    assert harmless(text) == f"'{text}"


@pytest.mark.parametrize("cell", ["a.jpg", "a=b", "", "'=1", -3.5, 0, None])
def test_all_else_stays(cell: object) -> None:
    assert harmless(cell) is cell

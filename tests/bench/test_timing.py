"""Sections of docs/benchmarks.md and the ratios in them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from bench import timing as benchmark
from bench.memory import peak_memory_mb


def test_ratios_of_the_sums_are_not_sums_of_ratios() -> None:
    rows = {"small": {"ours": 1.0, "theirs": 2.0}, "large": {"ours": 30.0, "theirs": 10.0}}
    table = benchmark.markdown_comparison(rows, reference="theirs").splitlines()
    assert table[2:] == [
        "| small | 1 | 2 | 0.50 |",
        "| large | 30 | 10 | 3.00 |",
        "| together | 31 | 12 | 2.58 |",
    ]


def test_a_candidate_that_raises_is_a_failure_beside_the_times_of_the_others() -> None:
    def fail() -> None:
        raise RuntimeError("no kernel\nfor this")

    def no_memory() -> dict[str, Callable[[], object]]:
        raise torch.OutOfMemoryError("too large")

    def wait() -> None:
        time.sleep(1e-4)

    rows: dict[str, Callable[[], dict[str, Callable[[], object]]]] = {
        "small": lambda: {"ours": fail, "theirs": wait},
        "large": no_memory,
    }
    lines = benchmark.times_table(rows, 1, device="cpu", reference="theirs", unit="us").splitlines()
    assert re.fullmatch(r"\| small \| FAILED \| \d{3,} \|  \|", lines[2])  # microseconds, not 0 ms
    assert lines[3:] == [
        "",
        "small, ours: FAILED: RuntimeError: no kernel",
        "",
        "large: FAILED: OutOfMemoryError: too large",
    ]


def test_a_section_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    document = tmp_path / "benchmarks.md"
    document.write_text("before\n<!-- ops:begin -->\nold\n<!-- ops:end -->\nafter\n")
    for text in ("first", "second"):
        benchmark.replace_section(document, name="ops", text=text)
    assert document.read_text() == "before\n<!-- ops:begin -->\n\nsecond\n\n<!-- ops:end -->\nafter\n"


def test_a_document_without_the_section_is_refused(tmp_path: Path) -> None:
    document = tmp_path / "benchmarks.md"
    document.write_text("text\n")
    with pytest.raises(ValueError, match="must hold the lines"):
        benchmark.replace_section(document, name="ops", text="x")


def allocations() -> dict[str, Callable[[], object]]:
    return {"64 MB": lambda: torch.ones(16_000_000).sum(), "nothing": lambda: None}


@pytest.mark.nightly
def test_memory_at_the_peak_is_what_a_candidate_holds_for_a_moment() -> None:
    peak_mb = peak_memory_mb(allocations)
    assert peak_mb["64 MB"] == pytest.approx(64, abs=8)
    assert peak_mb["nothing"] < 8

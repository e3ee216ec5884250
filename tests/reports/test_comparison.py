"""What a comparison says, and does not say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from detector.evaluation.statistics import Comparison, Difference
from detector.reports.comparison import difference_rows, method, verdict
from detector.reports.study import Condition


def comparison(
    a: float, b: float, *, half: float = 0.01, seeds: int = 3, needed: int | None = 11, classes: int = 0
) -> Comparison:
    ap = Difference(a, b, b - a, b - a - half, b - a + half, 0.5, 0.01, 0.01)
    deltas = (b - a,) * seeds
    return Comparison(
        {"AP": ap}, {}, seeds, deltas, 1.0, needed, 50, identical=False, verdict_p=0.5, num_classes=classes
    )


def test_seeds_are_advised_for_a_difference_that_may_be_one() -> None:
    assert verdict(comparison(0.5, 0.505), a="a", b="b").endswith(
        "About 11 seeds would tell a difference of this size."
    )


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_models_that_detect_nothing_are_trained_longer(seeds: int) -> None:
    text = verdict(comparison(0.0, 0.0004, seeds=seeds), a="a", b="b")
    assert text.endswith("Neither model detects anything yet: train longer.")
    assert "would tell" not in text


def test_another_seed_is_told_of_trainings_alone() -> None:
    one = comparison(0.5, 0.505, seeds=1)
    assert "another seed may differ" in verdict(one, a="a", b="b")
    text = verdict(one, a="a", b="b", is_trained=False)
    assert text.endswith("One results file of each: the interval is of image noise alone.")


def test_the_run_that_is_shown_is_named() -> None:
    condition = Condition("", "a", {}, shown_runs={"a": "seed 0, one of 2", "b": "seed 0, one of 2"})
    assert condition.errors_of == "seed 0, one of 2"
    other = replace(condition, shown_runs={"a": "seed 0, one of 2", "b": "seed 1, one of 2"})
    assert other.errors_of == "a: seed 0, one of 2; b: seed 1, one of 2"
    assert replace(condition, shown_runs={}).errors_of == ""


def test_no_seeds_are_advised_for_no_difference() -> None:
    assert "would" not in verdict(comparison(0.5, 0.5004, needed=None), a="a", b="b")


def test_what_rounds_to_zero_has_no_sign() -> None:
    one = comparison(0.5, 0.49996, half=0.0001)
    assert "0.500 against 0.500, 0.000 (95 % interval 0.000 to 0.000)" in verdict(one, a="a", b="b")
    assert difference_rows(one.metrics) == [("AP", "0.500", "0.500", "0.000", "0.000 to 0.000", "0.500")]
    assert "of each seed: 0.000, 0.000, 0.000;" in method(one)


def test_two_seeds_are_said_to_be_few() -> None:
    text = verdict(comparison(0.5, 0.505, seeds=2), a="a", b="b")
    assert "With two seeds the interval is somewhat too narrow" in text
    assert text.endswith("Very roughly 11 seeds would tell a difference of this size.")
    assert "two seeds" not in verdict(comparison(0.5, 0.505), a="a", b="b")


def test_classes_without_an_interval_are_counted() -> None:
    assert method(comparison(0.5, 0.6, classes=7)).endswith(
        "7 of 7 classes without an interval: too few images hold them."
    )
    assert "without an interval" not in method(comparison(0.5, 0.6))

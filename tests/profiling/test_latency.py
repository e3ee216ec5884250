"""Turns, rounds and percentiles of a clock that is not the system's."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from detector.profiling import latency
from detector.profiling.latency import interleaved_times, measure_latencies


class Clock:
    """Stands still but for what the candidates take."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def candidate(self, name: str, *seconds: float) -> Callable[[], None]:
        """Takes these times in turn, the last one ever after."""

        def run() -> None:
            number = self.calls.count(name)
            self.calls.append(name)
            self.now += seconds[min(number, len(seconds) - 1)]

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(latency.time, "perf_counter", lambda: clock.now)
    return clock


def test_they_take_turns_and_another_begins_each_round(clock: Clock) -> None:
    candidates = {name: clock.candidate(name, 1.0) for name in "abc"}
    interleaved_times(candidates, rounds=4, device="cpu")
    assert "".join(clock.calls) == "abc" + "abc" + "bca" + "cab" + "abc"


def test_the_warm_up_is_not_counted(clock: Clock) -> None:
    times = interleaved_times({"a": clock.candidate("a", 9.0, 1.0)}, rounds=2, device="cpu")
    assert times == {"a": [1000.0, 1000.0]}


def test_rounds_fill_the_time_and_are_at_least_those_asked_for(clock: Clock) -> None:
    fast, slow = (
        interleaved_times({"a": clock.candidate(f"a{s}", s)}, rounds=3, seconds=10.0, device="cpu")
        for s in (0.5, 20.0)
    )
    assert len(fast["a"]) == 20
    assert len(slow["a"]) == 3


def test_percentiles_of_each(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "SECONDS", 0.0)
    monkeypatch.setattr(latency, "FEWEST_ROUNDS", 5)
    times = [0.0, *(n / 1000 for n in (3, 1, 2, 5, 4))]
    candidates = {"a": clock.candidate("a", *times), "b": clock.candidate("b", 0.007)}
    latencies = measure_latencies(candidates, batch_size=8, device="cpu")
    assert list(latencies) == ["a", "b"]
    assert (latencies["a"].batch_size, latencies["a"].rounds) == (8, 5)
    assert (latencies["a"].p50_ms, latencies["a"].p95_ms) == pytest.approx((3.0, 4.8))
    assert (latencies["b"].p50_ms, latencies["b"].p95_ms) == pytest.approx((7.0, 7.0))


def test_each_candidate_has_its_seconds(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "SECONDS", 2.0)
    latencies = measure_latencies(
        {name: clock.candidate(name, 0.25) for name in "ab"}, batch_size=1, device="cpu"
    )
    assert [one.rounds for one in latencies.values()] == [8, 8]

"""Inference time of models, measured in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

SECONDS = 2.0  # for each candidate
FEWEST_ROUNDS = 3


@dataclass(frozen=True)
class Latency:
    """Time to detect in one batch, in ms: median and 95th percentile over `rounds`."""

    device: str
    batch_size: int
    p50_ms: float
    p95_ms: float
    rounds: int


def measure_latencies(
    candidates: Mapping[str, Callable[[], object]], *, batch_size: int, device: torch.device | str
) -> dict[str, Latency]:
    """Measure each candidate, which detects in the same `batch_size` images on `device` at each call."""
    times = interleaved_times(
        candidates, rounds=FEWEST_ROUNDS, seconds=SECONDS * len(candidates), device=device
    )
    latencies = {}
    for name, values in times.items():
        p50, p95 = np.percentile(values, [50, 95])
        latencies[name] = Latency(str(device), batch_size, float(p50), float(p95), len(values))
    return latencies


def interleaved_times(
    candidates: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    seconds: float = 0.0,
    device: torch.device | str,
) -> dict[str, list[float]]:
    """Return times of each candidate in ms, for at least `rounds` rounds and `seconds`.

    Candidates take turns, and each round starts with the next one, so that disturbances affect all of them. A
    warm-up of one round, or a tenth of the time, comes first.
    """
    wait = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}.get(
        torch.device(device).type, lambda: None
    )
    _rounds(candidates, wait, rounds=1, seconds=seconds / 10)
    return _rounds(candidates, wait, rounds=rounds, seconds=seconds)


def _rounds(
    candidates: Mapping[str, Callable[[], object]],
    wait: Callable[[], None],
    *,
    rounds: int,
    seconds: float,
) -> dict[str, list[float]]:
    names = list(candidates)
    times: dict[str, list[float]] = {name: [] for name in names}
    end = time.perf_counter() + seconds
    number = 0
    while number < rounds or time.perf_counter() < end:
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            wait()
            start = time.perf_counter()
            candidates[name]()
            wait()
            times[name].append(1000 * (time.perf_counter() - start))
        number += 1
    return times

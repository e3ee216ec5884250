"""The statistics of sampling, against loops by hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from detector.ops.deform_conv.geometry import Geometry
from detector.ops.deform_conv.statistics import modulation_statistics, sampling_statistics

PLAIN = Geometry((3, 3), (1, 1), (1, 1), (1, 1), 1, 1)


def by_hand(
    offset: Tensor, mask: Tensor, geometry: Geometry, input_size: tuple[int, int]
) -> dict[str, float]:
    """One sample after the other."""
    (kh, kw), taps = geometry.kernel, geometry.taps
    images, _, height, width = offset.shape
    lengths, distances, carried_out, entropies = [], [], [], []
    for n, g, i, j in itertools.product(
        range(images), range(geometry.offset_groups), range(height), range(width)
    ):
        places: dict[tuple[int, int], tuple[float, float]] = {}
        for a, b in itertools.product(range(kh), range(kw)):
            home_y = i * geometry.stride[0] - geometry.padding[0] + a * geometry.dilation[0]
            home_x = j * geometry.stride[1] - geometry.padding[1] + b * geometry.dilation[1]
            channel = g * 2 * taps + 2 * (a * kw + b)
            dy, dx = offset[n, channel, i, j].item(), offset[n, channel + 1, i, j].item()
            lengths.append(math.hypot(dy, dx))
            places[a, b] = home_y + dy, home_x + dx
            if 0 <= home_y < input_size[0] and 0 <= home_x < input_size[1]:
                y, x = places[a, b]
                carried_out.append(y <= -1 or y >= input_size[0] or x <= -1 or x >= input_size[1])
        for (a, b), place in places.items():
            for neighbor in ((a + 1, b), (a, b + 1)):
                if neighbor in places:
                    distances.append(math.dist(place, places[neighbor]))
        weights = [mask[n, g * taps + k, i, j].item() for k in range(taps)]
        shares = [weight / sum(weights) for weight in weights]
        entropies.append(-sum(p * math.log(p) for p in shares) / math.log(taps))

    def mean(values: Sequence[float]) -> float:
        return sum(values) / max(1, len(values))

    return {
        "mean_px": mean(lengths),
        "effective_dilation": mean(distances),
        "outside": mean(carried_out),
        "modulation_mean": mask.mean().item(),
        "modulation_entropy": mean(entropies),
    }


@settings(max_examples=25, deadline=None)
@given(
    kernel=st.sampled_from([(3, 3), (2, 3), (1, 2)]),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    groups=st.integers(1, 2),
    seed=st.integers(0, 99),
)
def test_statistics_are_those_of_a_loop(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    groups: int,
    seed: int,
) -> None:
    geometry, input_size = Geometry(kernel, stride, padding, dilation, 1, groups), (6, 7)
    height, width = geometry.output_size(*input_size)
    random = torch.Generator().manual_seed(seed)
    offset = 2 * torch.randn(2, 2 * groups * geometry.taps, height, width, generator=random)
    mask = torch.rand(2, groups * geometry.taps, height, width, generator=random)
    statistics = sampling_statistics(offset, mask, geometry=geometry, input_size=input_size)
    expected = by_hand(offset, mask, geometry, input_size)
    assert {name: value.item() for name, value in statistics.items()} == pytest.approx(expected, rel=1e-4)


def test_of_a_plain_convolution_they_are_its_own() -> None:
    """Its padding is outside, but no offset carried it there."""
    dilated = Geometry((3, 3), (1, 1), (2, 2), (2, 2), 1, 1)
    statistics = sampling_statistics(
        torch.zeros(1, 18, 4, 4), torch.ones(1, 9, 4, 4), geometry=dilated, input_size=(4, 4)
    )
    assert {name: value.item() for name, value in statistics.items()} == pytest.approx(
        {
            "mean_px": 0,
            "effective_dilation": 2,
            "outside": 0,
            "modulation_mean": 1,
            "modulation_entropy": 1,
        }
    )


def test_without_a_mask_there_is_no_modulation() -> None:
    statistics = sampling_statistics(torch.zeros(1, 18, 4, 4), None, geometry=PLAIN, input_size=(4, 4))
    assert statistics.keys() == {"mean_px", "effective_dilation", "outside"}


def test_one_tap_that_has_all_the_modulation_has_no_entropy() -> None:
    mask = torch.zeros(1, 9, 4, 4)
    mask[:, 4] = 2
    statistics = sampling_statistics(torch.zeros(1, 18, 4, 4), mask, geometry=PLAIN, input_size=(4, 4))
    assert statistics["modulation_entropy"].item() == 0


def test_half_precision_is_measured_in_float32() -> None:
    offset = torch.full((1, 18, 200, 200), 0.5, dtype=torch.float16)
    statistics = sampling_statistics(offset, None, geometry=PLAIN, input_size=(200, 200))
    assert statistics["mean_px"].item() == pytest.approx(0.5 * 2**0.5, rel=1e-5)


def test_the_sign_of_unbounded_modulation_is_no_matter_to_its_entropy() -> None:
    weights = torch.tensor([1.0, -1, 2, 0])[:, None]
    statistics = modulation_statistics(weights, dim=0)
    entropy = -(2 * 0.25 * math.log(0.25) + 0.5 * math.log(0.5)) / math.log(4)
    assert statistics["modulation_entropy"].item() == pytest.approx(entropy)
    assert statistics["modulation_mean"].item() == 0.5

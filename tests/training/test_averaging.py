"""The moving average of weights, against numbers made by hand."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import nn

from detector.training.averaging import WeightAverage


def one_weight(value: float) -> nn.Linear:
    layer = nn.Linear(1, 1, bias=False)
    layer.weight.data.fill_(value)
    return layer


def test_average_equals_the_hand_computed_one() -> None:
    model = one_weight(0.0)
    average = WeightAverage(model, decay=0.25)
    for value in (1.0, 2.0):
        model.weight.data.fill_(value)
        average.update(model)
    # decays min(0.25, 2/11) and min(0.25, 3/12)
    after_one = 1.0 - 2 / 11
    expected = 0.25 * after_one + 0.75 * 2.0
    assert average.model.weight.item() == pytest.approx(expected)


def test_early_decay_is_below_the_final_one() -> None:
    model = one_weight(0.0)
    average = WeightAverage(model, decay=0.999)
    model.weight.data.fill_(1.0)
    average.update(model)
    assert average.model.weight.item() == pytest.approx(1 - 2 / 11)


def test_batch_statistics_are_averaged_and_counts_copied() -> None:
    model: Any = nn.BatchNorm1d(1)
    average = WeightAverage(model, decay=0.0)
    model.running_mean.fill_(3.0)
    model.num_batches_tracked.fill_(7)
    average.update(model)
    assert average.model.running_mean.item() == 3.0
    assert average.model.num_batches_tracked.item() == 7


def test_average_does_not_change_the_trained_model() -> None:
    model = one_weight(1.0)
    average = WeightAverage(one_weight(5.0), decay=0.5)
    average.update(model)
    assert model.weight.item() == 1.0


def test_average_stays_in_evaluation_mode() -> None:
    holder = nn.ModuleDict({"average": WeightAverage(nn.BatchNorm1d(1), decay=0.5)})
    holder.train()
    assert not cast(Any, holder["average"]).model.training


def test_restored_average_goes_on_where_it_stopped() -> None:
    model = one_weight(0.0)
    first, second = WeightAverage(model, decay=0.9), WeightAverage(model, decay=0.9)
    model.weight.data.fill_(1.0)
    first.update(model)
    second.load_state_dict(first.state_dict())
    first.update(model)
    second.update(model)
    torch.testing.assert_close(first.model.weight, second.model.weight)
    assert second.updates == 2

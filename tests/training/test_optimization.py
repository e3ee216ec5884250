"""Parameter groups and the learning rate of the real batch."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from detector.layers.deform import DeformConv2d
from detector.layers.deform_depthwise import DepthwiseDeformConv2d
from detector.layers.roi_pooling import DeformRoIPool
from detector.training.optimization import SGD, AdamW, parameter_groups, scaled_lr
from tests.samples import small_faster_rcnn, small_fcos


@pytest.fixture(scope="module")
def deformable_model() -> nn.Module:
    model = small_fcos(stages=(4, 5))
    model.backbone.layer1.requires_grad_(False)
    return model


def names_by_group(model: nn.Module, **options: Any) -> dict[str, set[str]]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(model, lr=1.0, weight_decay=0.1, **options)
    return {group["name"]: {names[id(p)] for p in group["params"]} for group in groups}


def test_every_trainable_parameter_is_in_exactly_one_group(deformable_model: nn.Module) -> None:
    grouped = list(itertools.chain(*names_by_group(deformable_model).values()))
    trainable = [name for name, p in deformable_model.named_parameters() if p.requires_grad]
    assert sorted(grouped) == sorted(trainable)


def test_frozen_parameters_are_in_no_group(deformable_model: nn.Module) -> None:
    grouped = itertools.chain(*names_by_group(deformable_model).values())
    assert not [name for name in grouped if "layer1." in name]


@pytest.mark.parametrize(
    "make",
    [
        partial(small_fcos, stages=(4, 5)),
        lambda: nn.Sequential(DepthwiseDeformConv2d(4, 4, 3, version=3), nn.Conv2d(4, 4, 1)),
        partial(small_faster_rcnn, stages=(5,), pooling=partial(DeformRoIPool, width=4)),
    ],
)
def test_offset_groups_hold_the_offset_branches_and_nothing_else(make: Callable[[], nn.Module]) -> None:
    model = make()
    groups = names_by_group(model)
    in_offset_groups = set().union(*(names for group, names in groups.items() if group.startswith("offset.")))
    assert in_offset_groups == {n for n, _ in model.named_parameters() if "offset." in n}


def test_offset_multiplier_sets_the_rate_of_the_offset_branches_only() -> None:
    model = nn.Sequential(DeformConv2d(3, 4, 3), nn.Conv2d(4, 4, 1))
    groups = parameter_groups(model, lr=0.2, weight_decay=0.0, offset_lr_multiplier=0.1)
    rates = {group["name"]: group["lr"] for group in groups}
    assert rates == pytest.approx({"weight": 0.2, "bias": 0.2, "offset.weight": 0.02, "offset.bias": 0.02})


def test_bias_multiplier_leaves_the_biases_of_norms_alone() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4))
    groups = parameter_groups(model, lr=0.1, weight_decay=0.0, bias_lr_multiplier=2.0)
    assert {g["name"]: (g["lr"], len(g["params"])) for g in groups} == {
        "weight": (0.1, 1),
        "bias": (0.2, 1),
        "norm": (0.1, 2),
    }


def test_norms_biases_and_scales_are_not_decayed(deformable_model: nn.Module) -> None:
    groups = parameter_groups(deformable_model, lr=1.0, weight_decay=0.1)
    for group in groups:
        expected = 0.1 if all(p.ndim > 1 for p in group["params"]) else 0.0
        assert group["weight_decay"] == expected, group["name"]


def test_decay_norm_and_bias_decays_all() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    groups = parameter_groups(model, lr=1.0, weight_decay=0.1, decay_norm_and_bias=True)
    assert {group["weight_decay"] for group in groups} == {0.1}


def test_learning_rate_is_scaled_linearly_to_the_real_batch() -> None:
    assert scaled_lr(SGD(lr=0.02, reference_batch_size=16), global_batch_size=4) == pytest.approx(0.005)


@pytest.mark.parametrize("optimization", [SGD(lr=0.02), AdamW(lr=0.02)])
def test_built_optimizer_has_the_scaled_rate(optimization: SGD | AdamW) -> None:
    optimizer = optimization.build(nn.Linear(2, 2), global_batch_size=32)
    assert [group["lr"] for group in optimizer.param_groups] == [0.04, 0.04]


def test_decay_reaches_the_optimizer() -> None:
    layer = nn.Linear(2, 2)
    optimizer = SGD(lr=1.0, reference_batch_size=1, momentum=0.0, weight_decay=0.5).build(
        layer, global_batch_size=1
    )
    weight, bias = layer.weight.clone(), layer.bias.clone()
    layer.weight.grad, layer.bias.grad = torch.zeros(2, 2), torch.zeros(2)
    optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), 0.5 * weight.detach())
    torch.testing.assert_close(layer.bias.detach(), bias.detach())


def test_model_without_trainable_parameters_is_an_error() -> None:
    with pytest.raises(ValueError, match="frozen_stages"):
        parameter_groups(nn.Linear(2, 2).requires_grad_(False), lr=1.0, weight_decay=0.0)


def test_nesterov_without_momentum_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"optimizer\.momentum"):
        SGD(lr=0.1, momentum=0.0, nesterov=True)


def test_betas_of_one_are_an_error() -> None:
    with pytest.raises(ValueError, match="betas: expected numbers from 0 to below 1"):
        AdamW(lr=1e-3, betas=(0.9, 1.0))

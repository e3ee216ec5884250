"""A finished detector with deformable stages starts as the plain one."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from detector.backbones.resnet import ResNet
from detector.heads.fcos import FCOSHead
from detector.layers.deform import DeformableStages, Modulation
from detector.models.detector import Detector, build_detector
from detector.necks.fpn import FPN
from tests.samples import make_batch

BATCH = make_batch([[[10.0, 12, 50, 60], [0, 0, 127, 95]], []], [[0, 4], []], sizes=[(96, 128), (91, 117)])


def build(deform: DeformableStages) -> Detector:
    torch.manual_seed(0)
    return build_detector(
        backbone=ResNet(18, deform=deform),
        neck=partial(FPN, out_channels=32),
        head=partial(FCOSHead, num_convs=1),
        num_classes=5,
    )


@pytest.mark.parametrize("modulation", ["none", "doubled_sigmoid"])
def test_losses_and_gradients_start_as_those_of_the_plain_detector(modulation: Modulation) -> None:
    # In float64: rounding of float32 turns an activation at zero on or off, with another gradient.
    plain = build(DeformableStages()).double()
    deformable = build(DeformableStages(stages=(3, 4, 5), modulation=modulation)).double()
    expected, actual = plain.loss(BATCH), deformable.loss(BATCH)
    torch.testing.assert_close(actual, expected)
    for losses in (expected, actual):
        torch.stack([*losses.values()]).sum().backward()
    gradients = dict(deformable.named_parameters())
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(gradients[name].grad, parameter.grad)
    branches = {name for name in gradients if ".offset." in name}
    assert gradients.keys() - branches == dict(plain.named_parameters()).keys()
    assert all(gradients[name].grad is not None for name in branches)


def test_random_offsets_leave_the_start_of_all_else_as_it_is() -> None:
    plain = build(DeformableStages()).state_dict()
    deformable = build(DeformableStages(stages=(3, 4, 5), offset_init="normal")).state_dict()
    assert all(torch.equal(deformable[name], value) for name, value in plain.items())
    branches = [value for name, value in deformable.items() if name.endswith(".offset.weight")]
    assert len(branches) == 6
    assert all(value.any() for value in branches)

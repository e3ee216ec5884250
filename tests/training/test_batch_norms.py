"""Batch norms that cannot train name what to change."""

from __future__ import annotations

import pytest

from detector.training.batch_norms import batch_norms_explained
from tests.samples import make_batch, small_faster_rcnn, small_fcos


def test_one_value_a_channel_names_batch_image_size_and_norm() -> None:
    model = small_fcos().train()
    batch = make_batch([[[2.0, 2, 20, 20]]], [[0]], sizes=[(30, 32)])
    with (
        pytest.raises(ValueError, match=r"data\.batch_size=1 .*32 x 32 .*model\.backbone\.norm=group"),
        batch_norms_explained(model, batch),
    ):
        model.loss(batch)


def test_the_norms_of_the_other_parts_are_named_too() -> None:
    model = small_faster_rcnn(num_convs=1, norm="batch").train()
    batch = make_batch([[[2.0, 2, 20, 20]]], [[0]], sizes=[(32, 32)])
    with (
        pytest.raises(ValueError, match=r"model\.head\.roi\.norm=group"),
        batch_norms_explained(model, batch),
    ):
        model.loss(batch)


def test_two_images_of_the_smallest_size_train() -> None:
    model = small_fcos().train()
    batch = make_batch([[[2.0, 2, 20, 20]], []], [[0], []], sizes=[(8, 8), (5, 32)])
    with batch_norms_explained(model, batch):
        model.loss(batch)


def test_synchronized_norms_on_cpus_are_told() -> None:
    model = small_fcos()
    batch = make_batch([[]], [[]], sizes=[(32, 32)])
    with (
        pytest.raises(ValueError, match=r"sync_batch works on GPUs only.*model\.backbone\.norm=group"),
        batch_norms_explained(model, batch),
    ):
        raise ValueError("SyncBatchNorm expected input tensor to be on cuda or hpu or xpu")


def test_other_errors_stay() -> None:
    batch = make_batch([[]], [[]], sizes=[(32, 32)])
    with pytest.raises(ValueError, match="other"), batch_norms_explained(small_fcos(), batch):
        raise ValueError("other")

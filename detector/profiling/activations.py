"""Memory that a training step keeps from its forward to its backward pass."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import NoReturn

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from detector.heads.keypoint_branch import KeypointBranch
from detector.layers.deform import replace_backends
from detector.models.detector import Detector
from detector.profiling.noise import random_batch, with_shapes


def activation_bytes(model: Detector, *, image_size: tuple[int, int]) -> int:
    """Return the bytes that training keeps for the backward pass of an image of (height, width) pixels.

    They are counted in a forward pass and losses on noise with ten boxes, in float32 and channels last, with
    CPU operators. Parameters and buffers are not counted.
    """
    model = deepcopy(model).to("cpu").to(memory_format=torch.channels_last).train()
    replace_backends(model, device=torch.device("cpu"))
    count = _fewest_images(model, image_size)
    batch = random_batch(num_classes=model.num_classes, image_size=image_size, batch_size=count)
    batch = replace(batch, images=batch.images.contiguous(memory_format=torch.channels_last))
    counts = [branch.num_keypoints for branch in model.modules() if isinstance(branch, KeypointBranch)]
    batch = with_shapes(batch, tasks=model.tasks, num_keypoints=max(counts, default=17))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # for the regions that Faster R-CNN samples
        return saved_bytes(lambda: model.loss(batch), excluding=model) // count


def _fewest_images(model: Detector, image_size: tuple[int, int]) -> int:
    """Return the smallest batch size: batch norm cannot train on a map of one cell of one image."""
    coarsest_px = max(level.stride_px for level in model.feature_levels)
    return 2 if max(image_size) <= coarsest_px else 1


def saved_bytes(compute: Callable[[], object], *, excluding: nn.Module) -> int:
    """Return the bytes that autograd would keep for `compute`, excluding the module's own tensors.

    Tensors saved twice count once, and views count as the storage that they keep alive. Nothing is actually
    kept: this needs no more memory than inference.
    """
    excluded = {
        StorageWeakRef(t.untyped_storage()).cdata for t in (*excluding.parameters(), *excluding.buffers())
    }
    # While a weak reference exists, no later storage gets the same address.
    storages: dict[int, tuple[StorageWeakRef, int]] = {}

    def save(tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        reference = StorageWeakRef(storage)
        if reference.cdata not in excluded:
            storages.setdefault(reference.cdata, (reference, storage.nbytes()))

    with torch.autograd.graph.saved_tensors_hooks(save, _forbid_backward):
        compute()
    return sum(size for _, size in storages.values())


def _forbid_backward(saved: None) -> NoReturn:
    raise AssertionError("there is no backward pass of what is only counted")

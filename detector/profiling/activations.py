"""What a training step keeps in memory from its forward to its backward pass."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import NoReturn

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from detector.layers.deform import replace_backends
from detector.models.detector import Detector
from detector.profiling.noise import random_batch


def activation_bytes(model: Detector, *, image_size: tuple[int, int]) -> int:
    """Bytes that training keeps for the backward pass of an image of (height, width) pixels.

    Counted in a forward pass and the losses of noise with ten boxes: in float32, channels last, by the
    operators of a CPU. Parameters and buffers are left out.
    """
    model = deepcopy(model).to("cpu").to(memory_format=torch.channels_last).train()
    replace_backends(model, device=torch.device("cpu"))
    count = _fewest_images(model, image_size)
    batch = random_batch(num_classes=model.num_classes, image_size=image_size, batch_size=count)
    batch = replace(batch, images=batch.images.contiguous(memory_format=torch.channels_last))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of the regions that Faster R-CNN samples
        return saved_bytes(lambda: model.loss(batch), apart_from=model) // count


def _fewest_images(model: Detector, image_size: tuple[int, int]) -> int:
    """Batch norm cannot train on one value: on a map of one cell, of one image."""
    coarsest_px = max(level.stride_px for level in model.feature_levels)
    return 2 if max(image_size) <= coarsest_px else 1


def saved_bytes(compute: Callable[[], object], *, apart_from: nn.Module) -> int:
    """Bytes of all memory that autograd would keep of `compute`, the module's own left out.

    What is saved twice counts once, a part of a tensor counts as the whole that it keeps alive. Nothing is
    kept in fact: this needs no more memory than inference does.
    """
    own = {
        StorageWeakRef(t.untyped_storage()).cdata for t in (*apart_from.parameters(), *apart_from.buffers())
    }
    # As long as there is a weak reference no later storage gets the same address.
    seen: dict[int, tuple[StorageWeakRef, int]] = {}

    def save(tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        reference = StorageWeakRef(storage)
        if reference.cdata not in own:
            seen.setdefault(reference.cdata, (reference, storage.nbytes()))

    with torch.autograd.graph.saved_tensors_hooks(save, _nothing_was_kept):
        compute()
    return sum(size for _, size in seen.values())


def _nothing_was_kept(saved: None) -> NoReturn:
    raise AssertionError("there is no backward pass of what is only counted")

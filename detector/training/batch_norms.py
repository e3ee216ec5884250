"""Explanations of batch norm errors, naming the options to change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from detector.structures import Batch

_OPTIONS = {"backbone": "model.backbone.norm", "neck": "model.neck.norm", "head": "model.head.roi.norm"}


@contextmanager
def batch_norms_explained(model: nn.Module, batch: Batch) -> Iterator[None]:
    """Explain batch norm errors raised while the losses of `batch` are computed inside.

    Raises:
        ValueError: a norm of `model` gets one value per channel, or is to be synchronized on devices other
            than GPUs.
    """
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" in str(error):
            raise ValueError(_one_value_message(model, batch)) from error
        if "SyncBatchNorm expected input tensor to be on" in str(error):
            norms = " ".join(f"{option}=group" for option in _used(model))
            raise ValueError(f"norm=sync_batch works on GPUs only. On other devices set {norms}.") from error
        raise


def _one_value_message(model: nn.Module, batch: Batch) -> str:
    count, _, height, width = batch.images.shape
    norms = " ".join(f"{option}=group" for option in _used(model))
    return (
        f"batch norm trains on at least two values a channel, and data.batch_size={count} with images of "
        f"{width} x {height} pixels (width x height, padded) leaves it one. Set {norms}, or raise "
        "data.batch_size or data.image_size.min_size and .max_size."
    )


def _used(model: nn.Module) -> list[str]:
    """Return the options that set the batch norms of `model`."""
    parts = {
        name.partition(".")[0]
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.training
    }
    return [option for part, option in _OPTIONS.items() if part in parts]

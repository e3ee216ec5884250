"""Training steps of torchvision's ResNet-50 with and without swapped convolutions."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torchvision
from torch import nn

from detector.layers import swap_convolutions

from .timing import interleaved_medians, markdown_comparison

_FORMATS = {"channels last": torch.channels_last, "contiguous": torch.contiguous_format}


def swap_table(*, repeats: int) -> str:
    """Return the times of a step on 8 images of 256 x 256, with C3 to C5 swapped, for both memory formats."""
    rows = {
        title: interleaved_medians({"plain": _step(False, layout), "swapped": _step(True, layout)}, repeats)
        for title, layout in _FORMATS.items()
    }
    return markdown_comparison(rows, reference="plain", together=False)


def _step(swapped: bool, layout: torch.memory_format) -> Callable[[], object]:
    torch.manual_seed(0)
    network = torchvision.models.resnet50().to(memory_format=layout)
    images = torch.randn(8, 3, 256, 256).to(memory_format=layout)
    labels = torch.arange(8)
    if swapped:
        report = swap_convolutions(network, [f"layer{n}.*.conv2" for n in (2, 3, 4)])
        assert len(report.swapped) == 13
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-4, momentum=0.9)
    return partial(_train, network, images, labels, optimizer)


def _train(
    network: nn.Module, images: torch.Tensor, labels: torch.Tensor, optimizer: torch.optim.Optimizer
) -> None:
    optimizer.zero_grad()
    nn.functional.cross_entropy(network(images), labels).backward()
    optimizer.step()

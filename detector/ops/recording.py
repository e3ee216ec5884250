"""Queries about the recording of a graph, and operations that differ while recording."""

# B images, N scores per image

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


def is_recorded() -> bool:
    """Return whether a tracer or exporter is recording this call, so that shapes may be symbolic."""
    return torch.jit.is_tracing() or torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export()


def is_eager_on_cpu(x: Tensor) -> bool:
    """Return whether operators on x run eagerly on a CPU, without a tracer, compiler or autocast."""
    recorded = is_recorded() or torch.compiler.is_compiling()
    return x.device.type == "cpu" and not recorded and not torch.is_autocast_enabled("cpu")


def integers(values: Sequence[int], *, device: torch.device) -> Int64[Tensor, " n"]:
    """Return `torch.tensor(values)`; sizes stay symbolic while recording."""
    if not is_recorded():
        return torch.tensor(values, device=device)
    return torch.stack([torch.scalar_tensor(value, dtype=torch.int64, device=device) for value in values])


def top(
    scores: Float[Tensor, "B N"], count: int, *, are_logits: bool
) -> tuple[Float[Tensor, "B _K"], Int64[Tensor, "B _K"], Bool[Tensor, "B _K"]]:
    """Return the values, indices and validity of the highest scores of each row, at most `count`.

    While recording there are exactly `count`. Missing ones come last, with a score of 0 or, for logits, below
    the lowest of the row; an infinity would leave quantization no scale for the others.
    """
    if not is_recorded():
        values, index = scores.topk(min(count, scores.shape[1]), dim=1)
        return values, index, torch.ones_like(index, dtype=torch.bool)
    padding = scores.amin(dim=1, keepdim=True) - 1 if are_logits else torch.zeros_like(scores[:, :1])
    values, index = torch.cat([scores, padding.expand(-1, count)], dim=1).topk(count, dim=1)
    last = torch.full_like(index, scores.shape[1] - 1)
    return values, index.minimum(last), index <= last

"""Whether a graph is being recorded, and what must be done otherwise then."""

# B images, N numbers of each

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F


def is_recorded() -> bool:
    """Whether a tracer or exporter is recording this call: shapes may be symbols, of any value."""
    return torch.jit.is_tracing() or torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export()


def integers(values: Sequence[int], *, device: torch.device) -> Int64[Tensor, " n"]:
    """As `torch.tensor`; while recording, sizes stay symbols."""
    if not is_recorded():
        return torch.tensor(values, device=device)
    return torch.stack([torch.scalar_tensor(value, dtype=torch.int64, device=device) for value in values])


def top(scores: Float[Tensor, "B N"], count: int) -> tuple[Float[Tensor, "B _K"], Int64[Tensor, "B _K"]]:
    """The highest of each row and their places; at most `count`.

    While recording they are `count`: where there are less, the lowest is there more than once, as -inf.
    """
    if not is_recorded():
        return scores.topk(min(count, scores.shape[1]), dim=1)
    values, index = F.pad(scores, (0, count), value=-torch.inf).topk(count, dim=1)
    return values, index.minimum(torch.full_like(index, scores.shape[1] - 1))

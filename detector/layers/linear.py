"""The linear layer of box heads, computed by the faster of two libraries."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from detector.ops.cpu import linear


class Linear(nn.Linear):
    """An `nn.Linear` that is faster on processors whose matrix instructions oneDNN supports and MKL does not.

    Parameters, names and initialization are the same.
    """

    def forward(self, rows: Float[Tensor, "*R f"]) -> Float[Tensor, "*R o"]:
        return linear(rows, self.weight, self.bias)

"""Convolutions, linear layers and embedding bags that use torch's operators but are faster on a CPU.

Each function names the function of torch that it equals. Code outside this package imports only from here.
"""

from detector.ops.cpu.bags import EmbeddingBags, embedding_bag
from detector.ops.cpu.products import (
    add_grouped_linear_weight_grad,
    grouped_linear,
    grouped_linear_input_grad,
    linear,
    regions_linear,
)
from detector.ops.cpu.winograd import conv3x3

__all__ = [
    "EmbeddingBags",
    "add_grouped_linear_weight_grad",
    "conv3x3",
    "embedding_bag",
    "grouped_linear",
    "grouped_linear_input_grad",
    "linear",
    "regions_linear",
]

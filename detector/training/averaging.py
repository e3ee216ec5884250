"""An exponential moving average of a model."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from detector.option_types import Fraction

Model = TypeVar("Model", bound=nn.Module)


class WeightAverage(nn.Module, Generic[Model]):
    """A moving average of a model's weights, kept in a copy of it.

    After each step `model` becomes d * average + (1 - d) * trained, where d is min(decay, (1 + n) / (10 + n))
    at update n = 1, 2, ..., so that the average leaves the initial weights quickly, as in TensorFlow's
    ExponentialMovingAverage. Floating-point buffers (batch statistics) are averaged too, others (counts) are
    copied. The copy is never trained and stays in evaluation mode.
    """

    def __init__(self, model: Model, *, decay: Fraction) -> None:
        super().__init__()
        self.model: Model = deepcopy(model).requires_grad_(False).eval()
        self.decay = decay
        self.updates = 0

    def train(self, mode: bool = True) -> WeightAverage[Model]:
        return self  # always in evaluation mode, whatever the module around it does

    @torch.no_grad()
    def update(self, trained: nn.Module) -> None:
        """Update the average after one optimizer step."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        averages, values = _tensors(self.model), _tensors(trained)
        floats = [name for name, value in averages.items() if value.is_floating_point()]
        torch._foreach_lerp_([averages[n] for n in floats], [values[n] for n in floats], 1 - decay)
        for name in averages.keys() - set(floats):
            averages[name].copy_(values[name])

    def get_extra_state(self) -> dict[str, int]:
        return {"updates": self.updates}

    def set_extra_state(self, state: Any) -> None:
        self.updates = state["updates"]


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and persistent buffers by name, sharing memory with the model."""
    return {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}

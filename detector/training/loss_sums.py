"""Mean validation losses over all images and ranks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor


class LossSums:
    """The losses of a validation, each summed over its images."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._images = 0

    def clear(self) -> None:
        self._sums, self._images = {}, 0

    def add(self, losses: Mapping[str, Tensor], *, images: int) -> None:
        """Add the mean losses of a batch of `images` images."""
        values = torch.stack([*losses.values()]).tolist()  # one wait for the device, not one per loss
        for name, value in zip(losses, values, strict=True):
            self._sums[name] = self._sums.get(name, 0.0) + value * images
        self._images += images

    def means(self) -> dict[str, float]:
        return {name: value / self._images for name, value in self._sums.items()}

    @classmethod
    def of_all(cls, parts: Iterable[LossSums]) -> LossSums:
        """Merge the losses of all `parts`, some of which may have no images."""
        whole = cls()
        for part in parts:
            for name, value in part._sums.items():
                whole._sums[name] = whole._sums.get(name, 0.0) + value
            whole._images += part._images
        return whole

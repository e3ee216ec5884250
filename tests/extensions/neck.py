"""A neck that projects every stage on its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from detector.structures import FeatureSpec


class Projections(nn.Module):
    def __init__(self, features: Sequence[FeatureSpec], *, out_channels: int = 16) -> None:
        super().__init__()
        self.out_features = [replace(f, channels=out_channels) for f in features]
        self.convs = nn.ModuleList(nn.Conv2d(f.channels, out_channels, 1) for f in features)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        return [conv(x) for conv, x in zip(self.convs, features, strict=True)]

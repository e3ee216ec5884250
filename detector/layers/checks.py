"""Checks of the inputs and options of deformable layers."""

# N images, C channels

from __future__ import annotations

from torch import Tensor

from detector.ops.deform_conv.geometry import Geometry
from detector.ops.recording import is_recorded


def check_map(x: Tensor, *, layer: str, in_channels: int, geometry: Geometry) -> None:
    """Raise ValueError if x is not of shape (N, in_channels, H, W), or smaller than the kernel.

    Without the check, the error would come from the offset branch and describe that instead of the layer.
    While recording there is no check, as sizes may be symbolic.
    """
    if is_recorded():
        return
    if x.dim() != 4 or x.shape[1] != in_channels:
        raise ValueError(
            f"{layer}: expected x of shape (N, {in_channels}, H, W), got {tuple(x.shape)}. Give it maps of "
            f"{in_channels} channels, or make the layer with in_channels as x has."
        )
    geometry.require_output(x.shape[2], x.shape[3], source=layer)


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ValueError if the option `name` has a value outside `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}.")

"""Deformable convolution as a layer, and the choice of backbone convolutions that use it."""

# G offset groups, K = kernel height * width taps

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from detector.layers.checks import check_map, require_choice
from detector.layers.deform_depthwise import DepthwiseDeformConv2d
from detector.layers.deformable import Deformable
from detector.ops.deform_conv.dispatch import Backend, chosen_backend, deform_conv2d, runs_on
from detector.ops.deform_conv.geometry import Geometry, IntOrPair, pair
from detector.ops.deform_conv.statistics import sampling_statistics
from detector.option_types import PositiveFloat, PositiveInt

Modulation = Literal["none", "doubled_sigmoid", "sigmoid"]
OffsetInit = Literal["zero", "normal"]


def modulation_mask(logits: Tensor, modulation: Modulation) -> Tensor:
    """Return the factor of each sample, for logits of a modulation other than "none"."""
    mask = logits.sigmoid()
    return 2 * mask if modulation == "doubled_sigmoid" else mask


class DeformConv2d(Deformable):
    """A convolution with learned sampling positions, a drop-in for `nn.Conv2d` on (N, C, H, W).

    Arguments and defaults are the same (without `padding_mode` and padding by name), and so are the initial
    weight and bias, even for the same seed. A second convolution, `offset`, of the same geometry predicts
    G * 2K offsets in pixels and, with modulation, G * K mask logits from the input (MMDetection's split).

    `modulation`: "none" is v1 (Dai et al. 2017); "doubled_sigmoid", 2 * sigmoid(logit), is 1 at the start;
    "sigmoid" is v2 as published (Zhu et al. 2019), which starts at half the plain response.

    `offset_init`: with "zero", as in the papers, MMDetection and Detectron2, the layer starts as the plain
    convolution. "normal" draws the weights of the offsets from N(0, 0.01²), like the last layers of detection
    heads (Ren et al. 2015), so that samples leave the pixel centers, where the slope of the interpolation
    jumps. Biases and mask logits start at zero in both.

    `max_offset_px` bounds both components of each offset, by m * 2/pi * atan(pi/2 * offset / m). This changes
    nothing near zero, and its gradient leads back from however far beyond the bound. There the gradient of a
    clamp is 0, and that of m * tanh (BasicVSR++, Chan et al. 2022) rounds to 0 in float32 from nine times the
    bound.

        >>> DeformConv2d(3, 16, (3, 3))(torch.randn(1, 3, 32, 32)).shape
        torch.Size([1, 16, 30, 30])
    """

    offset: nn.Conv2d
    modulation: Modulation

    def __init__(
        self,
        in_channels: PositiveInt,
        out_channels: PositiveInt,
        kernel_size: IntOrPair,
        stride: IntOrPair = 1,
        padding: IntOrPair = 0,
        dilation: IntOrPair = 1,
        groups: PositiveInt = 1,
        bias: bool = True,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        offset_groups: PositiveInt = 1,
        modulation: Modulation = "doubled_sigmoid",
        offset_init: OffsetInit = "zero",
        max_offset_px: PositiveFloat | None = None,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        _check_groups(in_channels, out_channels, groups, offset_groups)
        require_choice("modulation", modulation, get_args(Modulation))
        require_choice("offset_init", offset_init, get_args(OffsetInit))
        _check_bound("max_offset_px", max_offset_px)
        require_choice("backend", backend, get_args(Backend))
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.stride = pair(kernel_size), pair(stride)
        self.padding, self.dilation = pair(padding), pair(dilation)
        self.groups, self.offset_groups = groups, offset_groups
        self.modulation, self.backend = modulation, backend
        self.offset_init, self.max_offset_px = offset_init, max_offset_px
        self.weight = nn.Parameter(
            torch.empty(out_channels, in_channels // groups, *self.kernel_size, device=device, dtype=dtype)
        )
        self.bias = nn.Parameter(self.weight.new_empty(out_channels)) if bias else None
        # skip_init draws no random numbers: the rest of the network starts as with plain convolutions
        self.offset = nn.utils.skip_init(
            nn.Conv2d,
            in_channels,
            self.offset_channels + self.mask_channels,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            device=self.weight.device,
            dtype=self.weight.dtype,
        )
        self.reset_parameters()

    @property
    def offset_channels(self) -> int:
        return 2 * self.mask_taps

    @property
    def mask_channels(self) -> int:
        return 0 if self.modulation == "none" else self.mask_taps

    @property
    def mask_taps(self) -> int:
        return self.offset_groups * self.kernel_size[0] * self.kernel_size[1]

    def reset_parameters(self) -> None:
        """Initialize weight and bias as `nn.Conv2d` does, and the offset branch according to `offset_init`.

        What the global generator draws next does not depend on `offset_init`.
        """
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight[0].numel())
            nn.init.uniform_(self.bias, -bound, bound)
        for parameter in self.offset.parameters():
            nn.init.zeros_(parameter)
        if self.offset_init == "normal":
            with torch.no_grad():
                offset_weight = self.offset.weight[: self.offset_channels]
                offset_weight.copy_(0.01 * torch.randn(offset_weight.shape, generator=_branched_generator()))

    def forward(self, x: Tensor) -> Tensor:
        offset, mask = self.sampling(x)
        return deform_conv2d(
            x,
            offset,
            self.weight,
            self.bias,
            mask,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
            backend=self.backend,
        )

    def sampling(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the offsets in pixels and the mask that the layer uses on x, as in `deform_conv2d`."""
        check_map(x, layer="DeformConv2d", in_channels=self.in_channels, geometry=self.geometry)
        return self.decode(self.offset(x))

    def decode(self, predicted: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the offsets and mask from the output of the branch `offset`."""
        offset, logits = predicted.split([self.offset_channels, self.mask_channels], dim=1)
        if self.max_offset_px is not None:
            offset = _bounded(offset, self.max_offset_px)
        if self.modulation == "none":
            return offset, None
        return offset, modulation_mask(logits, self.modulation)

    def statistics(self, inputs: tuple[Tensor], predicted: Tensor) -> dict[str, Tensor]:
        offset, mask = self.decode(predicted)
        height, width = inputs[0].shape[2:]
        return sampling_statistics(offset, mask, geometry=self.geometry, input_size=(height, width))

    @property
    def geometry(self) -> Geometry:
        return Geometry(
            self.kernel_size, self.stride, self.padding, self.dilation, self.groups, self.offset_groups
        )

    @property
    def reach_px(self) -> float:
        return self.geometry.reach

    @property
    def summary(self) -> dict[str, str]:
        chosen = chosen_backend(self.backend, self.weight.device)
        return {
            "channels": f"{self.in_channels} to {self.out_channels}",
            "backend": f"auto: {chosen}" if self.backend == "auto" else chosen,
            "offset groups": str(self.offset_groups),
            "modulation": self.modulation,
            "kernel": "x".join(map(str, self.kernel_size)),
            "stride": "x".join(map(str, self.stride)),
        }

    def extra_repr(self) -> str:
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"]
        parts += [f"{name}={getattr(self, name)}" for name in ("stride", "padding", "dilation", "groups")]
        ours = ("offset_groups", "modulation", "offset_init", "max_offset_px", "backend")
        parts += [f"{name}={getattr(self, name)!r}" for name in ours]
        return ", ".join(parts)


@dataclass(frozen=True)
class DeformableStages:
    """The choice of the 3x3 convolutions of a residual backbone that are deformable, and their options.

    `stages` are numbers as in C2..C5; () is the plain backbone. `blocks` selects all blocks of each stage,
    the last one, or the blocks of these indices, from 0, negative from the end. `every=n` takes every n-th of
    all blocks, starting with the first (YOLACT++, Bolya et al. 2020). `fallback_on_stride` keeps strided
    convolutions regular (MMDetection's option). The other options are those of `DeformConv2d` or, with
    `version` 3 or 4, of `DepthwiseDeformConv2d`, which only has `offset_groups`. None means the default of
    the layer.
    """

    stages: tuple[Literal[2, 3, 4, 5], ...] = ()
    blocks: Literal["all", "last"] | tuple[int, ...] = "all"
    every: PositiveInt = 1
    fallback_on_stride: bool = False
    version: Literal[3, 4] | None = None
    modulation: Modulation | None = None
    offset_groups: PositiveInt | None = None
    offset_init: OffsetInit = "zero"
    max_offset_px: PositiveFloat | None = None
    backend: Backend = "auto"

    def __post_init__(self) -> None:
        wrong = [stage for stage in self.stages if stage not in (2, 3, 4, 5)]
        if wrong or len(set(self.stages)) < len(self.stages):
            raise ValueError(
                f"deform.stages must be different numbers of 2, 3, 4, 5, got {list(self.stages)}."
            )
        if not self.blocks:
            raise ValueError(
                "deform.blocks: expected all, last, or numbers of blocks, got []. For the regular backbone "
                "leave out the stages: deform.stages=[]."
            )
        if isinstance(self.blocks, str):
            require_choice("deform.blocks", self.blocks, ("all", "last"))
        if self.every < 1:
            raise ValueError(
                f"deform.every must be at least 1, got {self.every}: 2 takes every second block."
            )
        if self.every != 1 and self.blocks != "all":
            raise ValueError(
                f"deform.every={self.every} goes with deform.blocks=all, got deform.blocks={self.blocks}: "
                "number the blocks instead."
            )
        if self.modulation is not None:
            require_choice("deform.modulation", self.modulation, get_args(Modulation))
        if self.version is not None:
            self._check_alone(self.version)
        require_choice("deform.offset_init", self.offset_init, get_args(OffsetInit))
        _check_bound("deform.max_offset_px", self.max_offset_px)
        require_choice("deform.backend", self.backend, get_args(Backend))

    def conv3x3(self, stage: int, block: int, num_blocks: int) -> Callable[..., nn.Module]:
        """Return the constructor of a block's 3x3 convolution, called like `nn.Conv2d(in, out, 3, ...)`.

        `block` counts from 0; `num_blocks` is the number of blocks of the stage.

        Raises:
            ValueError: if `blocks` names a block that the stage does not have.
        """
        if stage not in self.stages or block not in self.chosen_blocks(stage, num_blocks):
            return nn.Conv2d
        deformable: Callable[..., nn.Module]
        if self.version is not None:
            deformable = partial(DepthwiseDeformConv2d, version=self.version)
        else:
            deformable = partial(
                DeformConv2d,
                offset_init=self.offset_init,
                max_offset_px=self.max_offset_px,
                backend=self.backend,
            )
        chosen = {"modulation": self.modulation, "offset_groups": self.offset_groups}
        deformable = partial(deformable, **{k: v for k, v in chosen.items() if v is not None})
        return partial(_regular_where_strided, deformable) if self.fallback_on_stride else deformable

    @property
    def chosen_options(self) -> dict[str, object]:
        """Options other than `stages` whose value differs from the default."""
        same: dict[str, tuple[object, ...]] = {field.name: (field.default,) for field in fields(self)}
        same |= {
            "modulation": (None, "doubled_sigmoid"),
            "offset_groups": (None, 1),
            "stages": (self.stages,),
        }
        return {
            name: getattr(self, name) for name, values in same.items() if getattr(self, name) not in values
        }

    def _check_alone(self, version: int) -> None:
        defaults = {"modulation": None, "offset_init": "zero", "max_offset_px": None, "backend": "auto"}
        changed = {k: getattr(self, k) for k, default in defaults.items() if getattr(self, k) != default}
        if changed:
            raise ValueError(
                f"deform.version={version} sets these itself, got {changed}. Leave them out, or choose "
                "model/backbone/deform=v1 or v2, which have no version."
            )

    def chosen_blocks(self, stage: int, num_blocks: int) -> set[int]:
        """Return the indices of the deformable blocks of a stage of `num_blocks`, counted from 0.

        Raises:
            ValueError: if `blocks` names a block that the stage does not have.
        """
        if self.blocks == "all":
            return set(range(0, num_blocks, self.every))
        blocks = (-1,) if isinstance(self.blocks, str) else self.blocks
        for block in blocks:
            if not -num_blocks <= block < num_blocks:
                raise ValueError(
                    f"deform.blocks names block {block}, but stage {stage} has {num_blocks} blocks: "
                    f"{-num_blocks} to {num_blocks - 1}."
                )
        return {block % num_blocks for block in blocks}


def replace_backends(model: nn.Module, *, device: torch.device) -> int:
    """Set layers whose backend cannot run on `device` to the backend "auto", and return their number."""
    layers = [
        layer
        for layer in model.modules()
        if isinstance(layer, DeformConv2d) and not runs_on(layer.backend, device)
    ]
    for layer in layers:
        layer.backend = "auto"
    return len(layers)


def _regular_where_strided(
    deformable: Callable[..., nn.Module], *args: Any, stride: IntOrPair = 1, **options: Any
) -> nn.Module:
    build: Callable[..., nn.Module] = deformable if pair(stride) == (1, 1) else nn.Conv2d
    return build(*args, stride=stride, **options)


def _branched_generator() -> torch.Generator:
    """Return a generator seeded with the next draw of the global one, whose state does not change."""
    with torch.random.fork_rng(devices=[]):
        seed = int(torch.randint(2**62, (), device="cpu"))
    return torch.Generator().manual_seed(seed)


def _bounded(offset: Tensor, bound_px: float) -> Tensor:
    """Bound offsets (see `DeformConv2d`), at least in float32: half precision would round the slope to 0."""
    precise = offset.to(torch.promote_types(offset.dtype, torch.float32))
    return bound_px * 2 / math.pi * torch.atan(math.pi / 2 / bound_px * precise)


def _check_groups(in_channels: int, out_channels: int, groups: int, offset_groups: int) -> None:
    if groups < 1 or in_channels % groups or out_channels % groups:
        raise ValueError(
            f"DeformConv2d: groups={groups} must divide {in_channels} and {out_channels} channels."
        )
    if offset_groups < 1 or in_channels % offset_groups:
        raise ValueError(
            f"DeformConv2d: offset_groups={offset_groups} must divide {in_channels} input channels."
        )


def _check_bound(name: str, value: float | None) -> None:
    if value is not None and not 0 < value < math.inf:
        raise ValueError(f"{name} must be a number of pixels above 0, or none, got {value}.")

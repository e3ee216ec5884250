"""`detector info`: what a model is made of, and which of its layers are deformable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from omegaconf import DictConfig
from rich.console import Console
from torch import nn

from detector.commands.parts import build_model
from detector.layers import DeformConv2d
from detector.models import Detector
from detector.models.cost import count_flops
from detector.reports import print_table
from detector.structures import FeatureSpec, PositiveInt


@dataclass(frozen=True)
class Options:
    """The keys of configs/info.yaml."""

    model: Callable[..., Detector]
    num_classes: PositiveInt
    image_size: tuple[PositiveInt, PositiveInt] = (800, 1344)


def run(cfg: DictConfig) -> None:
    """Print parameters by part, operations, the feature levels, and the deformable layers."""
    model = build_model(cfg, cfg.num_classes)
    console = Console()
    parts = [_part(name, part) for name, part in (*model.named_children(), ("total", model))]
    print_table(
        "Parameters", ("part", "type", "parameters", "trained", "of them offsets"), parts, console=console
    )

    flops = count_flops(model, image_size=tuple(cfg.image_size))
    height, width = cfg.image_size
    costs = [("convolutions and linear layers", _giga(flops.matrix)), ("sampling", _giga(flops.sampling))]
    title = f"Operations for an image of {height} x {width}"
    print_table(title, ("part", "GFLOP"), [*costs, ("total", _giga(flops.total))], console=console)

    levels = [_level(f) for f in model.feature_levels]
    print_table("Feature levels", ("level", "channels", "stride in pixels"), levels, console=console)

    layers = [_layer(name, m) for name, m in model.named_modules() if isinstance(m, DeformConv2d)]
    if layers:
        header = ("layer", "channels", "backend", "offset groups", "modulation", "kernel", "stride")
        print_table(f"Deformable layers: {len(layers)}", header, layers, console=console)
    else:
        print("Deformable layers: none. Turn them on with 'model.backbone.deform.stages=[3,4,5]'.")


def _giga(operations: int) -> str:
    return f"{operations / 1e9:.2f}"


def _part(name: str, part: nn.Module) -> tuple[str, ...]:
    """Its parameters: all, those that training changes, and those of offset branches among these."""
    trained = [p for p in part.parameters() if p.requires_grad]
    layers = [m for m in part.modules() if isinstance(m, DeformConv2d)]
    offsets = [p for layer in layers for p in layer.offset.parameters() if p.requires_grad]
    counts = (sum(p.numel() for p in group) for group in (part.parameters(), trained, offsets))
    return (name, type(part).__name__, *(f"{n:,}" for n in counts))


def _level(feature: FeatureSpec) -> tuple[str, ...]:
    return feature.name, str(feature.channels), str(feature.stride_px)


def _layer(name: str, layer: DeformConv2d) -> tuple[str, ...]:
    kernel, stride = ("x".join(map(str, size)) for size in (layer.kernel_size, layer.stride))
    channels = f"{layer.in_channels} to {layer.out_channels}"
    return name, channels, layer.backend, str(layer.offset_groups), layer.modulation, kernel, stride

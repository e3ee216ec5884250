"""`detector info`: show the parts of a model, its cost, and its deformable layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from rich.console import Console
from torch import nn

from detector.environment import processor_name
from detector.factory import without_weights
from detector.layers.deformable import Deformable, deformable_layers
from detector.models.detector import Detector
from detector.option_types import PositiveInt
from detector.profiling.activations import activation_bytes
from detector.profiling.flops import count_flops
from detector.profiling.latency import measure_latencies
from detector.profiling.noise import random_batch
from detector.reports.tables import print_table
from detector.runs.accelerator import find_accelerator
from detector.runs.context import Context
from detector.runs.parts import build_model
from detector.structures import FeatureSpec


@dataclass(frozen=True)
class Options:
    """The keys of configs/info.yaml."""

    model: Callable[..., Detector]
    num_classes: PositiveInt
    image_size: tuple[PositiveInt, PositiveInt] = (800, 1344)
    latency: bool = True


def run(options: Options, context: Context) -> None:
    """Print parameters by part, operations, the feature levels, the deformable layers, memory and time."""
    model = build_model(without_weights(options.model), options.num_classes)
    console = Console()
    parts = [_part(name, part) for name, part in (*model.named_children(), ("total", model))]
    print_table(
        "Parameters", ("part", "type", "parameters", "trained", "of which offsets"), parts, console=console
    )

    height, width = options.image_size
    flops = count_flops(model, image_size=(height, width))
    costs = [("convolutions and linear layers", _giga(flops.matrix)), ("sampling", _giga(flops.sampling))]
    title = f"Operations for an image of {height} x {width}"
    print_table(title, ("part", "GFLOP"), [*costs, ("total", _giga(flops.total))], console=console)

    levels = [_level(f) for f in model.feature_levels]
    print_table("Feature levels", ("level", "channels", "stride in pixels"), levels, console=console)

    model = model.to(find_accelerator("auto"))  # backends differ by device
    layers = {name: layer.summary for name, layer in deformable_layers(model).items()}
    if layers:
        header = ("layer", *next(iter(layers.values())))
        rows = [(name, *summary.values()) for name, summary in layers.items()]
        print_table(f"Deformable layers: {len(layers)}", header, rows, console=console)
    else:
        print("Deformable layers: none. Turn them on with 'model.backbone.deform.stages=[3,4,5]'.")

    activations = activation_bytes(model.cpu(), image_size=(height, width))
    print(f"\nMemory that training keeps of an image of {height} x {width}: {activations / 1e6:.1f} MB")
    if options.latency:
        print(_time(model, image_size=(height, width)))


def _time(model: Detector, *, image_size: tuple[int, int]) -> str:
    """Measure and describe the time to detect in one image of noise, in float32."""
    kind = find_accelerator("auto")
    model = model.eval().to(kind).to(memory_format=torch.channels_last)
    batch = random_batch(num_classes=model.num_classes, image_size=image_size, batch_size=1).to(kind)
    batch = replace(batch, images=batch.images.contiguous(memory_format=torch.channels_last))
    with torch.inference_mode():
        latency = measure_latencies({"": partial(model.predict, batch)}, batch_size=1, device=kind)[""]
    device = torch.cuda.get_device_name() if kind == "cuda" else processor_name()
    return (
        f"Time to detect in it: {latency.p50_ms:.1f} ms, in 95 % of {latency.rounds} rounds at most "
        f"{latency.p95_ms:.1f} ms ({device}, {torch.get_num_threads()} threads)"
    )


def _giga(operations: int) -> str:
    return f"{operations / 1e9:.2f}"


def _part(name: str, part: nn.Module) -> tuple[str, ...]:
    """Return the table row of a part: all its parameters, the trained ones, and those of offset branches."""
    trained = [p for p in part.parameters() if p.requires_grad]
    layers = [m for m in part.modules() if isinstance(m, Deformable)]
    offsets = [p for layer in layers for p in layer.offset.parameters() if p.requires_grad]
    counts = (sum(p.numel() for p in group) for group in (part.parameters(), trained, offsets))
    return (name, type(part).__name__, *(f"{n:,}" for n in counts))


def _level(feature: FeatureSpec) -> tuple[str, ...]:
    return feature.name, str(feature.channels), str(feature.stride_px)

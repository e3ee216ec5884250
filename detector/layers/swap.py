"""Deformable convolutions in a network that has none, in place, with the same function at the start."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.utils import parametrize

from detector.layers.deform import DeformConv2d, Modulation, modulation_mask
from detector.layers.deform_depthwise import DepthwiseDeformConv2d
from detector.layers.deformable import Deformable
from detector.ops.deform_conv.dispatch import Backend
from detector.option_types import PositiveFloat, PositiveInt

Where = str | Sequence[str] | Callable[[str, nn.Conv2d], bool]

_Place = tuple[str, nn.Module]

_FACTORS: dict[Modulation, int] = {"none": 1, "doubled_sigmoid": 1, "sigmoid": 2}  # of the weight


@dataclass(frozen=True)
class Swapped:
    """A convolution that became deformable: its name, what it was and is, and the parameters it gained."""

    name: str
    before: str
    after: str
    parameters_added: int


@dataclass(frozen=True)
class SwapReport:
    """The convolutions of a network that were replaced, and by names the reasons why others were not.

    With `keeps_function` the network computes what it did before.
    """

    swapped: tuple[Swapped, ...]
    kept: dict[str, str]
    keeps_function: bool

    @property
    def parameters_added(self) -> int:
        return sum(one.parameters_added for one in self.swapped)

    def __str__(self) -> str:
        effect = "same function as before" if self.keeps_function else "new weights: train them"
        count, more = len(self.swapped), f"{self.parameters_added:,} parameters more"
        lines = [f"{count} convolution{'s' * (count > 1)} made deformable, {more}, {effect}"]
        lines += [f"  {one.name}: {one.before} -> {one.after}" for one in self.swapped]
        lines += [f"  {name}: kept, {why}" for name, why in self.kept.items()]
        return "\n".join(lines)


def swap_convolutions(
    module: nn.Module,
    where: Where,
    *,
    version: Literal[3, 4] | None = None,
    modulation: Modulation | None = None,
    offset_groups: PositiveInt | None = None,
    max_offset_px: PositiveFloat | None = None,
    backend: Backend | None = None,
) -> SwapReport:
    """Replace convolutions of any network by deformable ones, in place, and report which.

    Each `nn.Conv2d` that `where` chooses becomes a `DeformConv2d` of the same geometry, with the same weight
    and bias, as the same parameters, and with offsets of zero: the network computes what it did before, to
    rounding. `modulation="sigmoid"` starts at a half, so that the weight is doubled. With `version` 3 or 4 it
    becomes a `DepthwiseDeformConv2d` instead, which cannot use the weight and starts anew.

    Where a convolution has another padding than zeros, or hooks or parametrizations, which would be lost, it
    is kept; a depth-wise one is kept, too, unless `version` is set, because its offsets would cost many times
    what it does. After an error the network is as before.

    Args:
        module: the network. Make its optimizer afterwards, as the offsets are new parameters.
        where: names as in `named_modules()`, in which `*` stands for any text between two dots, `?` for one
            character of it, and `**` for any number of parts, such as "layer3.*.conv2"; several of these; or
            a function of the name and the convolution.
        version, modulation, offset_groups, max_offset_px, backend: options of the layers; None is their
            default.

    Raises:
        ValueError: `where` chooses no convolution, or none that can be replaced.

    Examples:
        >>> network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2))
        >>> print(swap_convolutions(network, "2"))
        1 convolution made deformable, 1,971 parameters more, same function as before
          2: Conv2d 3x3 -> DeformConv2d 3x3, doubled_sigmoid
    """
    if version is not None and (modulation, max_offset_px, backend) != (None, None, None):
        raise ValueError(
            f"swap_convolutions: version={version} sets modulation, max_offset_px and backend itself. Leave "
            "them out, or leave out version."
        )
    given = {
        "modulation": modulation,
        "offset_groups": offset_groups,
        "max_offset_px": max_offset_px,
        "backend": backend,
    }
    options = {name: value for name, value in given.items() if value is not None}
    return _swapped(module, where, version=version, options=options)


def _swapped(
    module: nn.Module, where: Where, *, version: Literal[3, 4] | None, options: dict[str, Any]
) -> SwapReport:
    convolutions = _convolutions(module)
    chosen = _chosen(convolutions, where)
    shared = _shared_weights(module) if options.get("modulation") == "sigmoid" else set()
    groups = options.get("offset_groups", 4 if version else 1)
    reasons = {
        name: _obstacle(conv, version=version, offset_groups=groups, shared=shared)
        for name, conv in chosen.items()
    }
    if all(reasons.values()):
        raise ValueError(
            f"swap_convolutions: none of the {len(chosen)} chosen convolutions can be replaced:\n"
            + "\n".join(f"  {name}: {why}" for name, why in reasons.items())
        )
    swapped: dict[str, Swapped] = {}
    layers: dict[int, Deformable] = {}
    for name, conv in chosen.items():
        if not reasons[name] and id(conv) not in layers:
            layers[id(conv)] = _deformable(conv, version=version, options=options)
            swapped[name] = _described(name, conv, layers[id(conv)])
    for layer in layers.values():  # nothing is changed before all are made
        if isinstance(layer, DeformConv2d):
            with torch.no_grad():
                layer.weight.mul_(_FACTORS[layer.modulation])
    for name, conv in convolutions.items():  # also where it has another name
        if id(conv) in layers:
            _set(module, name, layers[id(conv)])
    kept = {name: why for name, why in reasons.items() if why}
    return SwapReport((*swapped.values(),), kept, keeps_function=version is None)


def restore_convolutions(module: nn.Module) -> list[str]:
    """Replace each `DeformConv2d` without offsets by a convolution that computes the same; return the names.

    Its modulation, which does not depend on the input, goes into the weight.

    Raises:
        ValueError: the offsets or the modulation of a layer depend on its input, so that no convolution
            computes the same, or something would be lost. Nothing is replaced.
    """
    layers = {name: layer for name, layer in _places(module) if isinstance(layer, DeformConv2d)}
    if module in layers.values():
        raise ValueError(
            "restore_convolutions: the module is a layer itself, which cannot be replaced in place. Put it "
            "into a module, such as nn.Sequential(module)."
        )
    shared = _shared_weights(module)
    reasons = {name: _obstacle_to_restore(layer, shared) for name, layer in layers.items()}
    if any(reasons.values()):
        raise ValueError(
            "restore_convolutions: not all layers can be convolutions again. Restore networks whose offsets "
            "were frozen at zero.\n" + "\n".join(f"  {name}: {why}" for name, why in reasons.items() if why)
        )
    convolutions = {id(layer): _convolution(layer) for layer in {*layers.values()}}
    for name, layer in layers.items():
        _set(module, name, convolutions[id(layer)])
    return [*layers]


def _convolutions(module: nn.Module) -> dict[str, nn.Conv2d]:
    if isinstance(module, nn.Conv2d):
        raise ValueError(
            "swap_convolutions: the module is a convolution itself, which cannot be replaced in place. Put "
            "it into a module, such as nn.Sequential(module)."
        )
    return {name: one for name, one in _places(module) if isinstance(one, nn.Conv2d)}


def _chosen(convolutions: dict[str, nn.Conv2d], where: Where) -> dict[str, nn.Conv2d]:
    if callable(where):
        chosen = {name: conv for name, conv in convolutions.items() if where(name, conv)}
        asked = "its function"
    else:
        patterns = [where] if isinstance(where, str) else [*where]
        matched = {pattern: [*filter(_expression(pattern).fullmatch, convolutions)] for pattern in patterns}
        if empty := [pattern for pattern, names in matched.items() if not names]:
            raise ValueError(_no_match(empty[0], [*convolutions]))
        names = {name for found in matched.values() for name in found}
        chosen = {name: conv for name, conv in convolutions.items() if name in names}
        asked = f"{patterns}"
    if not chosen:
        raise ValueError(
            f"swap_convolutions: where={asked} chooses none of {len(convolutions)} convolutions"
            f"{_examples([*convolutions])}."
        )
    return chosen


def _places(module: nn.Module, prefix: str = "", above: tuple[nn.Module, ...] = ()) -> Iterator[_Place]:
    """Yield modules with their names, under each name that they have, but none inside a deformable layer."""
    yield prefix, module
    if isinstance(module, Deformable):
        return
    for name, child in module._modules.items():  # `named_children` leaves out second names
        if child is not None and child is not module and child not in above:
            yield from _places(child, f"{prefix}.{name}" if prefix else name, (*above, module))


def _shared_weights(module: nn.Module) -> set[int]:
    """Return the ids of parameters that several modules have."""
    count = Counter(id(p) for one in module.modules() for p in {*one.parameters(recurse=False)})
    return {parameter for parameter, owners in count.items() if owners > 1}


def _expression(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*\.|\.\*\*|\*\*|\*|\?)", pattern)
    meaning = {"**.": r"(?:.*\.)?", ".**": r"(?:\..*)?", "**": ".*", "*": "[^.]*", "?": "[^.]"}
    return re.compile("".join(meaning.get(part, re.escape(part)) for part in parts))


def _no_match(pattern: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.3)
    return (
        f'swap_convolutions: where="{pattern}" matches the name of no nn.Conv2d{_examples(near or names)}. '
        "In a pattern, * stands for any text between two dots and ** for any number of parts."
    )


def _examples(names: Sequence[str]) -> str:
    return f" (there are {', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else ""


def _obstacle(conv: nn.Conv2d, *, version: int | None, offset_groups: int, shared: set[int]) -> str:
    """Return why a convolution cannot be replaced; empty if it can."""
    if type(conv) is not nn.Conv2d:
        return f"a {type(conv).__name__} is more than nn.Conv2d, and what it adds would be lost"
    if conv.padding_mode != "zeros":
        return f"its padding is {conv.padding_mode}, and samples outside of the map are zeros"
    if parametrize.is_parametrized(conv):
        return "it has parametrizations, which would be lost: remove them first"
    if _has_hooks(conv):
        return "it has hooks, which would be lost: add them afterwards"
    if conv.padding == "same" and _padding(conv) is None:
        return 'its padding "same" is not the same on both sides, which deformable convolution needs'
    if offset_groups < 1 or conv.in_channels % offset_groups:
        return f"offset_groups={offset_groups} does not divide its {conv.in_channels} input channels"
    if id(conv.weight) in shared:
        return "its weight is shared, and modulation=sigmoid would double it in other modules, too"
    if conv.kernel_size == (1, 1) and version is not None:
        return "a 1x1 kernel has no taps to weigh"
    if version is None and conv.groups == conv.in_channels > 1:
        return (
            "it is depth-wise: its offsets would cost many times what it does. version=3 or 4 are made for "
            "such layers, and start with new weights"
        )
    return ""


def _padding(conv: nn.Conv2d) -> tuple[int, int] | None:
    """Return the padding in pixels, None if it is not the same on both sides."""
    if not isinstance(conv.padding, str):
        vertical, horizontal = conv.padding
        return vertical, horizontal
    if conv.padding == "valid":
        return 0, 0
    total = [d * (k - 1) for k, d in zip(conv.kernel_size, conv.dilation, strict=True)]
    return None if any(one % 2 for one in total) else (total[0] // 2, total[1] // 2)


def _deformable(conv: nn.Conv2d, *, version: Literal[3, 4] | None, options: dict[str, Any]) -> Deformable:
    padding = _padding(conv)
    assert padding is not None, "it is no obstacle"
    geometry: dict[str, Any] = {
        "kernel_size": conv.kernel_size,
        "stride": conv.stride,
        "padding": padding,
        "dilation": conv.dilation,
        "groups": conv.groups,
        "bias": conv.bias is not None,
    }
    layer: Deformable
    if version is not None:
        layer = DepthwiseDeformConv2d(
            conv.in_channels, conv.out_channels, **geometry, version=version, **options
        ).to(conv.weight)
    else:
        device = conv.weight.device
        # What is drawn next does not depend on the swap.
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            layer = DeformConv2d(
                conv.in_channels,
                conv.out_channels,
                **geometry,
                device=device,
                dtype=conv.weight.dtype,
                **options,
            )
        for name in ("weight", "bias"):
            setattr(layer, name, getattr(conv, name))
    return layer.train(conv.training)


def _described(name: str, conv: nn.Conv2d, layer: Deformable) -> Swapped:
    kernel = "x".join(map(str, conv.kernel_size))
    after, before = (sum(p.numel() for p in one.parameters()) for one in (layer, conv))
    return Swapped(
        name,
        f"Conv2d {kernel}",
        f"{type(layer).__name__} {kernel}, {layer.modulation}",
        after - before,
    )


def _set(module: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(module.get_submodule(parent), last, layer)


def _has_hooks(module: nn.Module) -> bool:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, kind) for kind in kinds)


def _obstacle_to_restore(layer: DeformConv2d, shared: set[int]) -> str:
    """Return why no convolution can take the place of a layer; empty if one can."""
    offset = layer.offset
    assert offset.bias is not None
    if offset.weight[: layer.offset_channels].any() or offset.bias[: layer.offset_channels].any():
        return "its offsets have learned"
    if offset.weight.any():
        return "its modulation has learned to depend on the input"
    if id(layer.weight) in shared and layer.modulation != "none":
        return "its weight is shared, and would take its modulation to other modules"
    if _has_hooks(layer) or _has_hooks(offset):
        return "it has hooks, which would be lost: remove them first"
    return ""


def _convolution(layer: DeformConv2d) -> nn.Conv2d:
    conv = nn.utils.skip_init(
        nn.Conv2d,
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,
        layer.bias is not None,
        device=layer.weight.device,
        dtype=layer.weight.dtype,
    )
    for name in ("weight", "bias"):
        setattr(conv, name, getattr(layer, name))
    if layer.modulation != "none":
        assert layer.offset.bias is not None
        mask = modulation_mask(layer.offset.bias[layer.offset_channels :], layer.modulation)
        by_channel = mask.view(layer.offset_groups, -1).repeat_interleave(
            layer.in_channels // layer.offset_groups, dim=0
        )  # input channels, taps
        by_group = by_channel.view(layer.groups, 1, -1, *layer.kernel_size)
        with torch.no_grad():
            conv.weight.unflatten(0, (layer.groups, -1)).mul_(by_group)
    return conv.train(layer.training)

"""Maps from other projects' ResNet parameter names to torchvision's, which are ours.

Each map is total and one-to-one on a ResNet of its project: unknown names are kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

Rules = Sequence[tuple[str, str]]

_HUGGING_FACE: Rules = (
    (r"(^|\.)embedder\.embedder\.convolution\.", r"\1conv1."),
    (r"(^|\.)embedder\.embedder\.normalization\.", r"\1bn1."),
    (r"\.shortcut\.convolution\.", ".downsample.0."),
    (r"\.shortcut\.normalization\.", ".downsample.1."),
    (r"^classifier\.1\.", "fc."),
)
_HUGGING_FACE_STAGE = re.compile(r"(^|\.)encoder\.stages\.(\d+)\.layers\.(\d+)\.")
_HUGGING_FACE_LAYER = re.compile(r"\.layer\.(\d+)\.(convolution|normalization)\.")
_PADDLE: Rules = ((r"\._mean$", ".running_mean"), (r"\._variance$", ".running_var"))
_PADDLE_DETECTION: Rules = (
    (r"(^|\.)conv1\.(?:res_)?conv1\.conv\.", r"\1conv1."),  # res_conv1 in a ResNeXt
    (r"(^|\.)conv1\.(?:res_)?conv1\.norm\.", r"\1bn1."),
    (r"\.branch2b\.conv_offset\.", ".conv2.offset."),  # in backbones it is beside the convolution
    (r"\.short\.conv\.", ".downsample.0."),
    (r"\.short\.norm\.", ".downsample.1."),
)
_PADDLE_DETECTION_BLOCK = re.compile(r"(^|\.)res(\d)\.res\d([a-z])(\d*)\.")
_PADDLE_DETECTION_LAYER = re.compile(r"\.branch2([abc])\.(conv|norm)\.")
# MMDetection and PaddleDetection have offsets and masks beside the convolution, as ours are.
_OFFSETS: Rules = (
    (r"\.conv_offset\.", ".offset."),
    (r"\.conv2_offset\.", ".conv2.offset."),
    (r"\.conv_dcn\.", "."),
)


def to_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the entries of another project's ResNet to torchvision's names, whatever their prefix.

    The projects are torchvision, timm, Hugging Face, Paddle, PaddleDetection and MMDetection.
    """
    return {_renamed(name): value for name, value in state.items()}


def has_offsets_of_others(state: Mapping[str, Tensor]) -> bool:
    """Return whether it has offset branches of MMDetection or PaddleDetection, whose masks are a sigmoid."""
    return any(re.search(pattern, name) for name in state for pattern, _ in _OFFSETS)


def _renamed(name: str) -> str:
    name = _HUGGING_FACE_STAGE.sub(lambda m: f"{m[1]}layer{int(m[2]) + 1}.{m[3]}.", name)
    name = _HUGGING_FACE_LAYER.sub(
        lambda m: f".{'conv' if m[2] == 'convolution' else 'bn'}{int(m[1]) + 1}.", name
    )
    name = _PADDLE_DETECTION_BLOCK.sub(lambda m: f"{m[1]}layer{int(m[2]) - 1}.{_block(m[3], m[4])}.", name)
    name = _PADDLE_DETECTION_LAYER.sub(
        lambda m: f".{'conv' if m[2] == 'conv' else 'bn'}{'abc'.index(m[1]) + 1}.", name
    )
    for pattern, replacement in (*_HUGGING_FACE, *_PADDLE, *_PADDLE_DETECTION, *_OFFSETS):
        name = re.sub(pattern, replacement, name)
    return name


def _block(letter: str, number: str) -> int:
    """Return the block's index: the third is res4c, or res4b2 in stages with too many blocks for letters."""
    return int(number) if number else ord(letter) - ord("a")

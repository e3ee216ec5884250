"""Names of other projects' ResNets under torchvision's, which are ours.

Each map is total and one to one on a ResNet of its project: what it does not know keeps its name.
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
    (r"\.branch2b\.conv_offset\.", ".conv2.offset."),  # beside the convolution in its backbones
    (r"\.short\.conv\.", ".downsample.0."),
    (r"\.short\.norm\.", ".downsample.1."),
)
_PADDLE_DETECTION_BLOCK = re.compile(r"(^|\.)res(\d)\.res\d([a-z])(\d*)\.")
_PADDLE_DETECTION_LAYER = re.compile(r"\.branch2([abc])\.(conv|norm)\.")
# MMDetection and PaddleDetection: offsets and masks beside the convolution, as ours are.
_OFFSETS: Rules = (
    (r"\.conv_offset\.", ".offset."),
    (r"\.conv2_offset\.", ".conv2.offset."),
    (r"\.conv_dcn\.", "."),
)


def to_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries of a ResNet of torchvision, timm, Hugging Face, Paddle, PaddleDetection or MMDetection
    under torchvision's names, whatever stands before them."""
    return {_renamed(name): value for name, value in state.items()}


def has_offsets_of_others(state: Mapping[str, Tensor]) -> bool:
    """Whether there are offset branches of MMDetection or PaddleDetection, whose masks are a sigmoid."""
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
    """res4c is the third block, and in stages of more than ten, where letters would not do, res4b2."""
    return int(number) if number else ord(letter) - ord("a")

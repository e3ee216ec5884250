"""Drawings of detections that are readable at any image size."""

from __future__ import annotations

import colorsys
import os
import sys
from collections.abc import Sequence
from functools import cache
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

# A label needs some pixels: images with a smaller side are enlarged, unless the other gets too large.
_SMALLEST_SIDE_PX, _ENLARGED_SIDE_PX = 480, 4096
_LARGEST_SIDE_PX = 32_768  # limit of a drawing; JPEG allows at most 65,500
_LABEL_ALPHA = 180  # of 255: what is under a label stays visible among many boxes
_GOLDEN_RATIO = 0.618034

Color = tuple[int, int, int]
ImageLike = np.ndarray | Image.Image | str | os.PathLike[str]


@runtime_checkable
class Drawable(Protocol):
    """What is drawn: `detector.structures.Detections`."""

    @property
    def boxes(self) -> Tensor: ...
    @property
    def scores(self) -> Tensor: ...
    @property
    def labels(self) -> Tensor: ...


def draw_detections(
    image: ImageLike, detections: Drawable, *, class_names: Sequence[str], scores: bool = True
) -> Image.Image:
    """Draw each box on the image with its class and score, best on top.

    Lines and labels depend on the size of the image alone, colors on the class alone, so that the images of a
    folder look alike.

    `image`: an array (uint8 RGB, height x width x 3), a PIL image, or the path of a file.
    """
    drawing = _opened(image)
    factor = _scale(*drawing.size)
    size = [max(1, round(side * factor)) for side in drawing.size]
    drawing = drawing.resize((size[0], size[1]), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(drawing, "RGBA")  # blends colors
    line = max(2, round(min(drawing.size) / 300))
    font = _font(max(12, round(min(drawing.size) / 42)))
    boxes = (detections.boxes * factor).tolist()
    for box, score, label in reversed(
        [*zip(boxes, detections.scores.tolist(), detections.labels.tolist(), strict=True)]
    ):
        color = class_color(label)
        draw.rectangle(_drawable(box), outline=color, width=line)
        text = f"{class_names[label]} {score:.2f}" if scores else class_names[label]
        _label(draw, box, text, color=color, font=font)
    return drawing


def show_image(image: Image.Image) -> None:
    """Show an image in the notebook that this runs in, or else in the system's viewer."""
    ipython = sys.modules.get("IPython")  # a notebook has imported it
    if ipython is not None and hasattr(ipython.get_ipython(), "kernel"):
        ipython.display.display(image)
    else:
        image.show()


def _opened(image: ImageLike) -> Image.Image:
    if isinstance(image, np.ndarray):
        return Image.fromarray(image)
    upright = ImageOps.exif_transpose(image if isinstance(image, Image.Image) else Image.open(image))
    return upright.convert("RGB")


def _scale(width: int, height: int) -> float:
    shorter, longer = sorted((width, height))
    if longer > _LARGEST_SIDE_PX:
        return _LARGEST_SIDE_PX / longer
    return float(max(1, min(-(-_SMALLEST_SIDE_PX // shorter), _ENLARGED_SIDE_PX // longer)))


def class_color(label: int) -> Color:
    """Return a bright RGB color, far from those of the classes before and after."""
    red, green, blue = colorsys.hsv_to_rgb(label * _GOLDEN_RATIO % 1, 0.75, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def _drawable(box: Sequence[float]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = box
    return x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)


def _label(
    draw: ImageDraw.ImageDraw,
    box: Sequence[float],
    text: str,
    *,
    color: Color,
    font: ImageFont.FreeTypeFont,
) -> None:
    """Write a label above the box, or inside it at the edge of the image.

    A label never reaches beyond the image.
    """
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    width, height = right - left + 6, bottom - top + 6
    image_width, image_height = draw.im.size
    x = max(0, min(box[0], image_width - width - 1))
    y = box[1] - height if box[1] >= height else max(0, min(box[1], image_height - height - 1))
    draw.rectangle((x, y, x + width, y + height), fill=(*color, _LABEL_ALPHA))
    dark = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 140
    draw.text((x + 3 - left, y + 3 - top), text, fill="black" if dark else "white", font=font)


@cache
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size_px)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font

"""Drawings of detections that are readable at any image size."""

# N detections, K keypoints, S cells of a mask's side

from __future__ import annotations

import colorsys
import os
import sys
from collections.abc import Sequence
from functools import cache
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int64, Shaped
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from detector.pasting import MaskCrop, mask_crops

# A label needs some pixels: images with a smaller side are enlarged, unless the other gets too large.
_SMALLEST_SIDE_PX, _ENLARGED_SIDE_PX = 480, 4096
_LARGEST_SIDE_PX = 32_768  # limit of a drawing; JPEG allows at most 65,500
_LABEL_ALPHA = 180  # of 255: what is under a label stays visible among many boxes
_THIN_LINE_ALPHA = 200  # of boxes around masks and keypoints
_TINT = 0.4  # share of a mask's color inside it
_SUBPIXEL_BITS = 4  # of points that OpenCV draws
_LOWEST_LOGIT = 0.0  # a keypoint with a lower score is left out
_GOLDEN_RATIO = 0.618034
# (hue shift, saturation, value) of objects of one class that are near each other, the first of its own color.
_SHADES = ((0.0, 0.75, 0.95), (0.0, 0.35, 1.0), (0.0, 0.9, 0.6), (0.05, 0.6, 0.85), (-0.05, 0.5, 1.0))

Color = tuple[int, int, int]
ImageLike = np.ndarray | Image.Image | str | os.PathLike[str]


@runtime_checkable
class _Masks(Protocol):
    @property
    def coverage(self) -> Shaped[Tensor, "N S S"]: ...


@runtime_checkable
class _Keypoints(Protocol):
    @property
    def xy(self) -> Float[Tensor, "N K 2"]: ...
    @property
    def visibility(self) -> Int64[Tensor, "N K"]: ...


@runtime_checkable
class _Schema(Protocol):
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def skeleton(self) -> tuple[tuple[str, str], ...]: ...


@runtime_checkable
class Drawable(Protocol):
    """What is drawn: `detector.structures.Detections`."""

    @property
    def boxes(self) -> Tensor: ...
    @property
    def scores(self) -> Tensor: ...
    @property
    def labels(self) -> Tensor: ...
    @property
    def masks(self) -> _Masks | None: ...
    @property
    def keypoints(self) -> _Keypoints | None: ...
    @property
    def keypoint_scores(self) -> Tensor | None: ...
    @property
    def keypoint_schemas(self) -> Sequence[_Schema | None]: ...


def draw_detections(
    image: ImageLike, detections: Drawable, *, class_names: Sequence[str], scores: bool = True
) -> Image.Image:
    """Draw each box on the image with its class and score, its mask and its skeleton, best on top.

    Lines and labels depend on the size of the image alone, colors on the class alone, so that the images of a
    folder look alike. With masks or keypoints, objects of one class that are near each other differ in shade.
    Keypoints that are unlabeled, or whose score is below 0, are left out.

    `image`: an array (uint8 RGB, height x width x 3), a PIL image, or the path of a file.
    """
    drawing = _opened(image)
    factor = _scale(*drawing.size)
    size = [max(1, round(side * factor)) for side in drawing.size]
    drawing = drawing.resize((size[0], size[1]), Image.Resampling.BICUBIC)
    line = max(2, round(min(drawing.size) / 300))
    font = _font(max(12, round(min(drawing.size) / 42)))
    boxes, labels = (detections.boxes * factor).tolist(), detections.labels.tolist()
    colors = [class_color(label) for label in labels]
    if has_shapes := detections.masks is not None or detections.keypoints is not None:
        colors = instance_colors(labels, np.array(boxes).reshape(-1, 4))
        drawing = Image.fromarray(_with_shapes(np.array(drawing), detections, colors, factor, line))
    draw = ImageDraw.Draw(drawing, "RGBA")  # blends colors
    texts = [class_names[label] for label in labels]
    if scores:
        columns = zip(texts, detections.scores.tolist(), strict=True)
        texts = [f"{name} {score:.2f}" for name, score in columns]
    places = _label_places(draw, boxes, texts, font)
    for box, text, place, color in reversed([*zip(boxes, texts, places, colors, strict=True)]):
        if has_shapes:
            draw.rectangle(_drawable(box), outline=(*color, _THIN_LINE_ALPHA), width=max(1, line // 2))
        else:
            draw.rectangle(_drawable(box), outline=color, width=line)
        _label(draw, place, text, color=color, font=font)
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
    return _shaded(label, 0)


def instance_colors(labels: Sequence[int], boxes_xyxy: np.ndarray) -> list[Color]:
    """Return an RGB color for each object: a shade of its class's, another one where boxes (N, 4) touch.

    An object takes the first shade that no object before it has whose box touches its own; in a crowd with
    more objects than shades, the one that fewest of them have.
    """
    shades: list[int] = []
    classes = np.asarray(labels)
    for number, box in enumerate(boxes_xyxy):
        before = boxes_xyxy[:number]
        touches = (before[:, :2] <= box[2:]).all(axis=1) & (before[:, 2:] >= box[:2]).all(axis=1)
        near = np.flatnonzero(touches & (classes[:number] == classes[number]))
        counts = np.bincount([shades[i] for i in near], minlength=len(_SHADES))
        shades.append(int(counts.argmin()))
    return [_shaded(label, shade) for label, shade in zip(labels, shades, strict=True)]


def _shaded(label: int, shade: int) -> Color:
    shift, saturation, value = _SHADES[shade]
    red, green, blue = colorsys.hsv_to_rgb((label * _GOLDEN_RATIO + shift) % 1, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def _with_shapes(
    pixels: np.ndarray, detections: Drawable, colors: Sequence[Color], factor: float, line: int
) -> np.ndarray:
    """Draw masks and then skeletons on an image (uint8 RGB) that is enlarged by a factor."""
    if detections.masks is not None:
        height, width = pixels.shape[:2]
        crops = [*mask_crops(detections.masks.coverage, detections.boxes * factor, (height, width))]
        _draw_masks(pixels, crops, colors, line)
    if detections.keypoints is not None:
        shown = detections.keypoints.visibility > 0
        if detections.keypoint_scores is not None:
            shown &= detections.keypoint_scores >= _LOWEST_LOGIT
        columns = (detections.keypoints.xy * factor, shown, detections.labels)
        rows = [*zip(*(column.tolist() for column in columns), colors, strict=True)]
        schemas = detections.keypoint_schemas
        for points, visible, label, color in reversed(rows):
            if not schemas:
                _draw_skeleton(pixels, points, visible, (), color=color, line=line)
            elif schema := schemas[label]:
                count = len(schema.names)
                place = {name: number for number, name in enumerate(schema.names)}
                bones = [(place[a], place[b]) for a, b in schema.skeleton]
                _draw_skeleton(pixels, points[:count], visible[:count], bones, color=color, line=line)
    return pixels


def _draw_masks(pixels: np.ndarray, crops: Sequence[MaskCrop], colors: Sequence[Color], line: int) -> None:
    """Tint the pixels of each mask, large ones first, and draw the contours over all tints, best on top."""
    import cv2  # drawings of boxes do without

    masks = [*zip(crops, colors, strict=True)]
    for (left, top, mask), color in sorted(masks, key=lambda one: -int(one[0].pixels.sum())):
        inside = pixels[top : top + mask.shape[0], left : left + mask.shape[1]]
        inside[mask] = np.rint((1 - _TINT) * inside[mask] + _TINT * np.array(color))
    for (left, top, mask), color in reversed(masks):
        padded = np.pad(mask, 1).astype(np.uint8)
        contours, _ = cv2.findContours(padded, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(pixels, contours, -1, color, line, cv2.LINE_AA, offset=(left - 1, top - 1))


def _draw_skeleton(
    pixels: np.ndarray,
    points: Sequence[Sequence[float]],
    visible: Sequence[bool],
    bones: Sequence[tuple[int, int]],
    *,
    color: Color,
    line: int,
) -> None:
    """Draw the visible keypoints as outlined dots, and the lines between them."""
    import cv2  # drawings of boxes do without

    # OpenCV's pixel centers are whole numbers, those of keypoints have .5.
    at = [tuple(round((value - 0.5) * 2**_SUBPIXEL_BITS) for value in point) for point in points]
    for paint, wider in (((0, 0, 0), 2), (color, 0)):
        for a, b in bones:
            if visible[a] and visible[b]:
                cv2.line(pixels, at[a], at[b], paint, line + wider, cv2.LINE_AA, _SUBPIXEL_BITS)
    for paint, radius in (((0, 0, 0), 2.2 * line + 1), (color, 2.2 * line)):
        for point, is_visible in zip(at, visible, strict=True):
            if is_visible:
                size = round(radius * 2**_SUBPIXEL_BITS)
                cv2.circle(pixels, point, size, paint, cv2.FILLED, cv2.LINE_AA, _SUBPIXEL_BITS)


def _drawable(box: Sequence[float]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = box
    return x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)


def _label_places(
    draw: ImageDraw.ImageDraw,
    boxes: Sequence[Sequence[float]],
    texts: Sequence[str],
    font: ImageFont.FreeTypeFont,
) -> list[tuple[float, float, float, float]]:
    """Return the xyxy of each label: at its box, where no better one is, and always inside the image.

    A label that finds no free place is above its box, under the others.
    """
    image_width, image_height = draw.im.size
    places = np.zeros((len(boxes), 4))
    for number, ((x1, y1, x2, y2), text) in enumerate(zip(boxes, texts, strict=True)):
        left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
        width, height = right - left + 6, bottom - top + 6
        x, end = (max(0, min(at, image_width - width - 1)) for at in (x1, x2 - width))
        inside = max(0, min(y1, image_height - height - 1))
        above = y1 - height if y1 >= height else inside
        below = y2 if y2 + height < image_height else above
        spots = np.array([(x, above), (end, above), (x, inside), (x, below), (end, below)])
        areas = np.concatenate([spots, spots + np.array([width, height])], axis=1)
        before = places[:number, None]
        begins, ends = before[..., :2] < areas[:, 2:], before[..., 2:] > areas[:, :2]
        overlaps = begins.all(axis=-1) & ends.all(axis=-1)
        places[number] = areas[overlaps.any(axis=0).argmin()]
    return [(a, b, c, d) for a, b, c, d in places.tolist()]


def _label(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float, float, float],
    text: str,
    *,
    color: Color,
    font: ImageFont.FreeTypeFont,
) -> None:
    left, top, _, _ = draw.textbbox((0, 0), text, font=font)
    draw.rectangle(place, fill=(*color, _LABEL_ALPHA))
    dark = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 140
    draw.text((place[0] + 3 - left, place[1] + 3 - top), text, fill="black" if dark else "white", font=font)


@cache
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size_px)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font

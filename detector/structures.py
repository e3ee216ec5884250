"""The data that flows between the parts, as frozen dataclasses of tensors."""

# B images, G ground-truth boxes (padded), N detections of one image, K keypoints, S cells of a mask's side

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, overload

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

R = TypeVar("R", bound="Record")


@dataclass(frozen=True)
class FeatureSpec:
    """One feature map of a backbone or neck.

    `name` is the field's term ("c3", "p5"); `stride_px` is the distance between neighboring cells in pixels
    of the input image.
    """

    name: str
    channels: int
    stride_px: int


@dataclass(frozen=True)
class Record:
    """A frozen dataclass whose fields are tensors, records of tensors, or None if absent.

    Fields of other types, such as names, are the same in every record that is derived from this one.

    Examples:
        >>> points = Keypoints(xy=torch.zeros(3, 17, 2), visibility=torch.zeros(3, 17, dtype=torch.int64))
        >>> points.select(points.visibility.amax(dim=-1) > 0).xy.shape
        torch.Size([0, 17, 2])
    """

    def to(self: R, device: torch.device | str, non_blocking: bool = False) -> R:
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self: R) -> R:
        return self._mapped(lambda tensor: tensor.pin_memory())

    def select(self: R, index: Tensor | slice) -> R:
        """Index the leading dimension of every tensor: by positions, by a mask, or by a slice."""
        return self._mapped(lambda tensor: tensor[index])

    @classmethod
    def cat(cls: type[R], records: Sequence[R]) -> R:
        """Concatenate along the leading dimension; a field is None in all of `records` or in none."""
        assert records, "nothing tells the shapes of no record"
        columns = {field.name: [getattr(record, field.name) for record in records] for field in fields(cls)}
        return cls(**{name: _concatenated(column, name) for name, column in columns.items()})

    def tensors(self) -> Iterator[Tensor]:
        """Yield every tensor in field order, including the tensors of nested records."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Record):
                yield from value.tensors()
            elif isinstance(value, Tensor):
                yield value

    def _mapped(self: R, change: Callable[[Tensor], Tensor]) -> R:
        return type(self)(
            **{field.name: _changed(getattr(self, field.name), change) for field in fields(self)}
        )


def _changed(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Record):
        return value._mapped(change)
    return change(value) if isinstance(value, Tensor) else value


def _concatenated(values: Sequence[Any], name: str) -> Any:
    if any(value is None for value in values):
        assert all(value is None for value in values), f"{name} is None in some of the records only"
        return None
    first = values[0]
    if isinstance(first, Record):
        return type(first).cat(values)
    if isinstance(first, Tensor):
        return torch.cat([*values])
    assert all(value == first for value in values), f"{name} differs between the records"
    return first


@dataclass(frozen=True)
class BoxMasks(Record):
    """Masks, each in the frame of its own box.

    A mask divides its box into S x S cells, rows from top to bottom. `coverage` is the fraction of a cell
    that the object covers: from 0 (none) to 255 (all) in the integers of targets, from 0 to 1 in the floats
    of detections, where it is a probability. A target without any coverage has no mask. Moving, scaling or
    padding boxes does not change it.
    """

    coverage: UInt8[Tensor, "*B N S S"] | Float[Tensor, "*B N S S"]

    def mirrored(self) -> BoxMasks:
        """Return the masks of the left-right mirrored image; the boxes must be mirrored as well."""
        return BoxMasks(self.coverage.flip(-1))


@dataclass(frozen=True)
class Keypoints(Record):
    """The K keypoints of each object, in the order of its `KeypointSchema`.

    `xy` is in pixels of the image, like the boxes. `visibility` is 0 for an unlabeled point, whose `xy` must
    have no effect, 1 for a hidden point and 2 for a visible one.
    """

    xy: Float[Tensor, "*B N K 2"]
    visibility: Int64[Tensor, "*B N K"]

    def scaled(self, x: float, y: float) -> Keypoints:
        """Return the keypoints after resizing the image by these factors."""
        return replace(self, xy=self.xy * self.xy.new_tensor([x, y]))

    def mirrored(self, *, width_px: float, schema: KeypointSchema) -> Keypoints:
        """Return the keypoints of the left-right mirrored image, with left and right points swapped."""
        x, y = self.xy.unbind(-1)
        order = list(schema.flip_permutation())
        return Keypoints(torch.stack([width_px - x, y], dim=-1)[..., order, :], self.visibility[..., order])


@dataclass(frozen=True, kw_only=True)
class KeypointSchema:
    """The keypoints of a category.

    `sigmas` are the constants of COCO's object keypoint similarity, one per keypoint: the larger the sigma,
    the farther a prediction may lie from the truth. `flip_pairs` names the points that swap in a mirrored
    image, `skeleton` the pairs that a drawing connects.

    Examples:
        >>> eyes = KeypointSchema(
        ...     names=("nose", "left_eye", "right_eye"),
        ...     sigmas=(0.026, 0.025, 0.025),
        ...     flip_pairs=(("left_eye", "right_eye"),),
        ... )
        >>> eyes.flip_permutation()
        (0, 2, 1)
    """

    names: tuple[str, ...]
    sigmas: tuple[float, ...]
    flip_pairs: tuple[tuple[str, str], ...] = ()
    skeleton: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        problems = [*self._name_problems(), *self._sigma_problems()]
        if problems:
            raise ValueError(f"keypoints: {'; '.join(problems)}.")

    def flip_permutation(self) -> tuple[int, ...]:
        """Return for each keypoint the index of the one that replaces it in a mirrored image."""
        partner = {name: other for a, b in self.flip_pairs for name, other in ((a, b), (b, a))}
        return tuple(self.names.index(partner.get(name, name)) for name in self.names)

    def _name_problems(self) -> Iterator[str]:
        if not self.names:
            yield "names is empty: give each keypoint a name"
        if twice := _repeated(self.names):
            yield f"names has {', '.join(twice)} more than once: give each keypoint its own name"
        for field, pairs in (("flip_pairs", self.flip_pairs), ("skeleton", self.skeleton)):
            if unknown := sorted({name for pair in pairs for name in pair} - {*self.names}):
                yield f"{field} has {', '.join(unknown)}, expected names of {', '.join(self.names)}"
            if same := [a for a, b in pairs if a == b]:
                yield f"{field} pairs {', '.join(same)} with itself: leave the pair out"
        if twice := _repeated([name for pair in self.flip_pairs if len({*pair}) == 2 for name in pair]):
            yield f"flip_pairs has {', '.join(twice)} in more than one pair: a point has one counterpart"

    def _sigma_problems(self) -> Iterator[str]:
        if len(self.sigmas) != len(self.names):
            yield f"{len(self.names)} names and {len(self.sigmas)} sigmas: give each name one sigma"
        if wrong := [sigma for sigma in self.sigmas if not (math.isfinite(sigma) and sigma > 0)]:
            yield f"sigmas has {', '.join(map(str, wrong))}, expected numbers > 0 (COCO has 0.025 to 0.107)"


def _repeated(names: Sequence[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


@dataclass(frozen=True)
class Targets(Record):
    """The ground truth of a batch, padded to the image with the most boxes.

    Boxes are xyxy in pixels of the resized image, x1 < x2 and y1 < y2. Labels are contiguous classes in [0,
    num_classes). Where `valid` is false the entry is padding (a zero box, label 0) and must have no effect.
    Crowd regions are excluded. G may be 0.
    """

    boxes: Float[Tensor, "B G 4"]
    labels: Int64[Tensor, "B G"]
    valid: Bool[Tensor, "B G"]
    masks: BoxMasks | None = None
    keypoints: Keypoints | None = None


@dataclass(frozen=True)
class Batch(Record):
    """The images of one step, padded at the right and bottom to a common size.

    `image_sizes` is the (height, width) in pixels of the resized image inside the padding, `original_sizes`
    that of the image file in the frame of its annotations. `indices` are positions in the dataset, which
    knows the original ids.
    """

    images: UInt8[Tensor, "B 3 H W"]
    image_sizes: Int64[Tensor, "B 2"]
    original_sizes: Int64[Tensor, "B 2"]
    indices: Int64[Tensor, "B"]
    targets: Targets


class Detection(NamedTuple):
    """One detected object: its box is xyxy in pixels, its name that of its class (or the label's number)."""

    box: tuple[float, float, float, float]
    score: float
    label: int
    name: str


_SHOWN = 5  # objects in the text of detections


@dataclass(frozen=True, repr=False)
class Detections(Record):
    """The detections of one image, best first.

    Boxes are xyxy in pixels, scores in [0, 1], labels in [0, num_classes); `keypoint_scores` are logits. A
    `Predictor` also gives the names of the classes, the `keypoint_schemas` (None for a class without
    keypoints), `image_size` (height, width), the `path` if the image is a file, and `read_image`, which
    returns the image for drawings.

    Examples:
        >>> detections = Detections(torch.tensor([[2.0, 4, 10, 20]]), torch.tensor([0.9]), torch.tensor([1]))
        >>> [(one.name, round(one.score, 2)) for one in detections]
        [('1', 0.9)]
        >>> len(detections[detections.scores > 0.95])
        0
    """

    boxes: Float[Tensor, "N 4"]
    scores: Float[Tensor, "N"]
    labels: Int64[Tensor, "N"]
    masks: BoxMasks | None = None
    keypoints: Keypoints | None = None
    keypoint_scores: Float[Tensor, "N K"] | None = None
    class_names: tuple[str, ...] = ()
    keypoint_schemas: tuple[KeypointSchema | None, ...] = ()
    image_size: tuple[int, int] | None = None
    path: Path | None = None
    read_image: Callable[[], Any] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        columns = (self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), self.names)
        for box, score, label, name in zip(*columns, strict=True):
            yield Detection(tuple(box), score, label, name)

    @overload
    def __getitem__(self, index: int) -> Detection: ...
    @overload
    def __getitem__(self, index: slice | Tensor) -> Detections: ...
    def __getitem__(self, index: int | slice | Tensor) -> Detection | Detections:
        """Return one detection by its position, or those of a slice, a mask or positions."""
        if not isinstance(index, int):
            return self.select(index)
        position = range(len(self))[index]
        return next(iter(self.select(slice(position, position + 1))))

    def __repr__(self) -> str:
        shapes = [name for name in ("masks", "keypoints") if getattr(self, name) is not None]
        what = f" with {' and '.join(shapes)}" if shapes else ""
        shown = [f"{one.name} {one.score:.2f}" for one in self.select(slice(_SHOWN))]
        more = [f"and {len(self) - _SHOWN} more"] if len(self) > _SHOWN else []
        where = f" in {self.path}" if self.path else ""
        return f"Detections({len(self)}{what}{where}{': ' if shown else ''}{', '.join([*shown, *more])})"

    @property
    def names(self) -> list[str]:
        """The class name of each detection, or the number of its label if names are unknown."""
        return [self.class_names[label] if self.class_names else str(label) for label in self.labels.tolist()]

    def to_dict(self, *, image_size: tuple[int, int] | None = None) -> dict[str, list[Any]]:
        """Return boxes, scores, labels and names as lists of plain Python values, as JSON takes them.

        Masks are COCO's compressed run lengths; `keypoints` are x, y and score of those that the class has,
        named by `keypoint_names`. Masks need the (height, width) of the image, which a `Predictor` gives.
        """
        from detector.conversions import as_dict  # needed only here

        return as_dict(self, names=self.names, image_size=image_size or self.image_size)

    def to_supervision(self, *, image_size: tuple[int, int] | None = None) -> Any:
        """Return `supervision.Detections` with boxes and masks, for that package's annotators and trackers.

        Raises:
            ImportError: supervision is not installed.
        """
        from detector.conversions import as_supervision  # needed only here

        return as_supervision(self, names=self.names, image_size=image_size or self.image_size)

    def to_supervision_keypoints(self) -> Any:
        """Return `supervision.KeyPoints`; their confidences are logits."""
        from detector.conversions import as_supervision_keypoints  # needed only here

        return as_supervision_keypoints(self, names=self.names)

    def draw(self, image: Any = None) -> Image:
        """Return a PIL image with each box, its class and its score, its mask and its skeleton.

        `image`: a path, a PIL image, an array (height, width, 3) or a tensor (3, height, width), in uint8
        RGB; None is the image that a `Predictor` detected in.

        Raises:
            ValueError: no image is given, and these detections are not a Predictor's.
        """
        from detector.drawings import draw_detections  # needed only here

        if image is None and self.read_image is None:
            raise ValueError("These detections do not know their image: pass it, as in draw(image).")
        image = self.read_image() if image is None and self.read_image else image
        image = image.permute(1, 2, 0).cpu().numpy() if isinstance(image, Tensor) else image
        most = max(self.labels.tolist(), default=-1)
        return draw_detections(image, self, class_names=self.class_names or [*map(str, range(most + 1))])

    def show(self, image: Any = None) -> None:
        """Show what `draw` returns: in the notebook, or else in the system's viewer of images."""
        from detector.drawings import show_image  # needed only here

        show_image(self.draw(image))

    def _repr_png_(self) -> bytes | None:
        """Let a notebook show the drawing of detections that know their image."""
        return None if self.read_image is None else self.draw()._repr_png_()

    def resized(self, *, from_size: tuple[int, int], to_size: tuple[int, int]) -> Detections:
        """Return the detections scaled to another (height, width) of the image, with boxes clipped to it.

        Masks do not change, as they are in the frames of their boxes; keypoints may lie outside the image.
        """
        (h0, w0), (h1, w1) = from_size, to_size
        scale = self.boxes.new_tensor([w1 / w0, h1 / h0, w1 / w0, h1 / h0])
        limit = self.boxes.new_tensor([w1, h1, w1, h1])
        return replace(
            self,
            boxes=(self.boxes * scale).clamp(min=0).minimum(limit),
            keypoints=None if self.keypoints is None else self.keypoints.scaled(w1 / w0, h1 / h0),
        )


@dataclass(frozen=True)
class Candidates:
    """The boxes of a batch that enter non-maximum suppression, if they are `allowed`.

    Suppression drops a box that overlaps a better one of its label by more than `iou_threshold`, and keeps at
    most `limit` boxes per image. Labels are in [0, num_labels). If `labels_alternate`, candidate n has label
    n % num_labels, which saves a recorded graph from comparing each candidate with each label. Scores of
    allowed boxes are above 0, unless they `are_logits`.
    """

    boxes: Float[Tensor, "B N 4"]
    scores: Float[Tensor, "B N"]
    labels: Int64[Tensor, "B N"]
    allowed: Bool[Tensor, "B N"]
    num_labels: int
    iou_threshold: float
    limit: int
    labels_alternate: bool = False
    are_logits: bool = False

"""The embedded dataset: pictures of bent shapes in COCO format, drawn from a seed."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
from annotated_types import Ge
from rich.console import Console
from rich.progress import track

from detector.data.warped_shapes import shapes
from detector.data.warped_shapes.scenes import SceneObject, draw_scene
from detector.data.warped_shapes.shapes import CLASS_NAMES
from detector.option_types import Fraction, NonNegativeFloat, NonNegativeInt, PositiveInt

_RECORD = "warped_shapes.json"  # beside train.json: the parameters that the folder was made with
_VERSION = 1  # of the drawing: raise it when the same parameters would give other pictures
_SPLITS = ("train", "val")


@dataclass(frozen=True, kw_only=True)
class WarpedShapes:
    """Objects of eight classes that differ by shape alone, for `DetectionDataModule(source=...)`.

    Colours and textures of objects and backgrounds are random, objects occlude each other and leave the
    picture in part, and open lines and soft spots are no object at all. `strength` bends each object
    smoothly: 0 is rigid, 1 strongly bent but still recognisable. At every strength one `seed` has the same
    backgrounds and tries the same objects. More pictures of a split only add to it: the first ones stay as
    they are.

    strength: how far objects are bent, apart from the affine map that each gets.
    rotation: how far objects turn either way, in half turns; 1 is any direction.
    affine: 0 keeps the proportions; 1 stretches by up to 1.6 and shears by up to 0.3.
    image_size: side of the square pictures in pixels.
    objects: fewest and most objects tried in a picture; those that find no free place are left out.
    scale: range of the square root of an object's whole area, as fractions of `image_size`.
    clutter: most lines, and most soft spots, in a picture.
    min_visible: the part of an object that neither other layers nor the border hide. All drawn have a box.
    colour_distance: between an object and what it lies on, where RGB runs from 0 to 255.
    """

    strength: Fraction = 0.5
    seed: NonNegativeInt = 0
    num_train: PositiveInt = 4000
    num_val: PositiveInt = 300
    image_size: Annotated[int, Ge(32)] = 64
    rotation: Fraction = 0.05
    affine: Fraction = 0.5
    objects: tuple[PositiveInt, PositiveInt] = (1, 4)
    scale: tuple[Fraction, Fraction] = (0.2, 0.7)
    clutter: NonNegativeInt = 2
    min_visible: Fraction = 0.7
    colour_distance: NonNegativeFloat = 100.0

    def __post_init__(self) -> None:
        # 0 and 0.0 are one folder
        for name in ("strength", "rotation", "affine", "min_visible", "colour_distance"):
            object.__setattr__(self, name, float(getattr(self, name)))
        for name in ("seed", "clutter", "colour_distance"):
            _require(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))
        for name, least in (("num_train", 1), ("num_val", 1), ("image_size", 32)):
            _require(getattr(self, name) >= least, name, f"at least {least}", getattr(self, name))
        for name, low in (("strength", 0.0), ("rotation", 0.0), ("affine", 0.0), ("min_visible", 0.1)):
            _require(low <= getattr(self, name) <= 1, name, f"in [{low:g}, 1]", getattr(self, name))
        _require(1 <= self.objects[0] <= self.objects[1], "objects", "[fewest, most] from 1 up", self.objects)
        _require(0.02 <= self.scale[0] <= self.scale[1] <= 1, "scale", "[low, high] in [0.02, 1]", self.scale)

    def generate(self, root: str | Path) -> Path:
        """The folder of these pictures: `root`, made if needed, or one beside it where `root` has others.

        It holds train.json, val.json and images/{train,val}/*.jpg. A folder appears whole or not at all, is
        reused when its recorded parameters are these, and is never changed or removed once there. Beside a
        `root` of other parameters the folder is `<root>-strength<strength>-seed<seed>-<hash>`, so runs that
        sweep a parameter under one root have a folder each. Several processes may call this at once: one
        provides it.

        Raises ValueError where `root` is there, not empty, and was not made by this class.
        """
        root = Path(root)
        for folder in (root, self._folder_beside(root)):
            if not _is_vacant(folder):
                if _recorded(folder) == self._record():
                    return folder
                continue
            with _staging(folder) as staged:
                self._write(staged, folder)
                if _publish(staged, folder) or _recorded(folder) == self._record():
                    return folder
        raise ValueError(
            f"{folder} holds WarpedShapes of other parameters than its name says. "
            "Remove it, or pass another data.root."
        )

    def existing(self, root: str | Path) -> Path | None:
        """The folder of these pictures where they are there already, else None. Nothing is written."""
        folders = (Path(root), self._folder_beside(Path(root)))
        made = (folder for folder in folders if (folder / _RECORD).is_file())
        return next((folder for folder in made if _recorded(folder) == self._record()), None)

    def _folder_beside(self, root: Path) -> Path:
        digest = hashlib.sha256(json.dumps(self._record(), sort_keys=True).encode()).hexdigest()[:8]
        return root.with_name(f"{root.name}-strength{self.strength:g}-seed{self.seed}-{digest}")

    def _record(self) -> dict[str, Any]:
        parameters = json.loads(json.dumps(asdict(self)))  # as read back: tuples become lists
        return {"generator": type(self).__name__, "version": _VERSION, "parameters": parameters}

    def _write(self, staged: Path, folder: Path) -> None:
        counts = {"train": self.num_train, "val": self.num_val}
        drawn: dict[str, list[tuple[dict, list[dict]]]] = {split: [] for split in _SPLITS}
        for split in _SPLITS:
            (staged / "images" / split).mkdir(parents=True)
        jobs = [(split, index) for split in _SPLITS for index in range(counts[split])]
        with _one_opencv_thread():
            for split, index in _with_progress(jobs, folder=folder):
                drawn[split].append(self._write_image(staged, split=split, index=index))
        for split in _SPLITS:
            _write_json(staged / f"{split}.json", _coco(drawn[split], strength=self.strength))
        _write_json(staged / _RECORD, self._record())

    def _write_image(self, staged: Path, *, split: str, index: int) -> tuple[dict, list[dict]]:
        picture, objects = draw_scene(self, key=(self.seed, _SPLITS.index(split), index))
        name = f"{split}/{index:06d}.jpg"
        ok, encoded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 92])
        assert ok
        (staged / "images" / name).write_bytes(encoded.tobytes())
        image = {"id": index + 1, "file_name": name, "width": self.image_size, "height": self.image_size}
        return image, [_annotation(thing, image_id=index + 1) for thing in objects]


def _require(holds: bool, name: str, expected: str, value: object) -> None:
    if not holds:
        raise ValueError(f"WarpedShapes: {name} must be {expected}, got {value}.")


# COCO format


def _annotation(thing: SceneObject, *, image_id: int) -> dict[str, Any]:
    """The visible part of an object; box and area are those of its polygons. The id is given later."""
    polygons = thing.polygons()
    points = np.concatenate(polygons)
    (x1, y1), (x2, y2) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return {
        "image_id": image_id,
        "category_id": thing.label + 1,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": sum(shapes.area(polygon) for polygon in polygons),
        "segmentation": [polygon.ravel().tolist() for polygon in polygons],
        "iscrowd": 0,
    }


def _coco(entries: list[tuple[dict, list[dict]]], *, strength: float) -> dict[str, Any]:
    annotations = [annotation for _, of_image in entries for annotation in of_image]
    return {
        "info": {"description": f"WarpedShapes, strength {strength:g}", "version": str(_VERSION)},
        "images": [image for image, _ in entries],
        "annotations": [{"id": i, **annotation} for i, annotation in enumerate(annotations, start=1)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASS_NAMES, start=1)],
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


# Folders


def _is_vacant(folder: Path) -> bool:
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


def _recorded(folder: Path) -> dict[str, Any]:
    """The record of a generated folder; ValueError for any other folder."""
    try:
        return json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{folder} is not empty and was not made by WarpedShapes (it has no readable {_RECORD}), so "
            "nothing is written there. Pass another data.root, or read it as it is with data=coco."
        ) from error


@contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, on the same disk; gone afterwards, whatever happens."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staged = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    staged.chmod(0o755)  # mkdtemp makes folders that only their owner can read
    try:
        yield staged
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _publish(staged: Path, folder: Path) -> bool:
    """Rename into place in one step; False where another process put a folder there first."""
    try:
        if folder.exists():
            folder.rmdir()  # an empty one: some systems do not rename over it
        staged.rename(folder)
    except OSError:
        if _is_vacant(folder):
            raise
        return False
    return True


@contextmanager
def _one_opencv_thread() -> Iterator[None]:
    """OpenCV's threads cost more than they give on small pictures."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _with_progress(jobs: list[tuple[str, int]], *, folder: Path) -> Iterator[tuple[str, int]]:
    """A bar on a terminal, one line elsewhere; on the error stream, as standard output is for results."""
    console = Console(stderr=True)
    text = f"Drawing {len(jobs)} pictures into {folder}"
    if console.is_terminal:
        yield from track(jobs, description=text, console=console, transient=True)
    else:
        print(text, file=console.file, flush=True)
        yield from jobs

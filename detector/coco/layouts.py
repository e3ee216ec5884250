"""The layouts of datasets: annotations and images are located from the root folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from detector.quoting import advised

SplitName = Literal["train", "val"]

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class SplitPaths:
    """The paths of a split. Omitted ones are located from the root, to which paths are relative."""

    annotations: str | None = None
    images: str | None = None


@dataclass(frozen=True)
class SplitFiles:
    """An annotation file and the folder its file names are relative to. Both exist."""

    annotations: Path
    images: Path


@dataclass(frozen=True)
class _Layout:
    """The paths of the annotation files, and of the folders that may hold the images.

    The first existing folder counts. {split} stands for one of the names in `_SPLITS`.
    """

    name: str
    annotations: str
    images: tuple[str, ...]


_SPLITS: dict[SplitName, tuple[str, ...]] = {"train": ("train",), "val": ("val", "valid", "validation")}
_LAYOUTS = (
    _Layout("plain", "{split}.json", ("images", "{split}")),
    _Layout("official COCO", "annotations/instances_{split}2017.json", ("{split}2017", "images/{split}2017")),
    _Layout(
        "datumaro and CVAT",
        "annotations/instances_{split}.json",
        ("images/{split}", "{split}", "images"),
    ),
    _Layout("Roboflow", "{split}/_annotations.coco.json", ("{split}",)),
    _Layout("FiftyOne", "{split}/labels.json", ("{split}/data",)),
    _Layout("Label Studio", "{split}/result.json", ("{split}/images",)),
)
# Image folders beside an explicit annotation file; {split} is the split in its name, if any.
_BESIDE = ("images/{split}", "../images/{split}", "../{split}", "images", "data", "../images")
_SPLIT_IN_NAME = re.compile(r"instances_(\w+)")
_SINGLE_FILES = ("result.json", "labels.json", "annotations/instances_default.json")


def find_split(split: SplitName, *, root: str | None, paths: SplitPaths) -> SplitFiles:
    """Locate the files of `split`. Raises ValueError that lists what was looked for and what is there."""
    if paths.annotations is not None:
        return _explicit(split, root=root, annotations=paths.annotations, images=paths.images)
    if root is None:
        raise ValueError(
            "data.root is not set. Pass data.root=FOLDER with a COCO-format dataset in it, or "
            f"data.{split}.annotations=FILE with data.{split}.images=FOLDER."
        )
    folder = Path(root).expanduser()
    if reason := no_folder(root):
        raise ValueError(reason)
    matches = [(layout, name) for layout in _LAYOUTS for name in _SPLITS[split] if _has(folder, layout, name)]
    if len(matches) != 1:
        raise ValueError(
            _explain(split, folder, [layout.annotations.format(split=n) for layout, n in matches])
        )
    ((layout, name),) = matches
    places = [folder / place.format(split=name) for place in layout.images]
    images = _first_folder(places) if paths.images is None else folder / Path(paths.images).expanduser()
    return _existing(split, folder / layout.annotations.format(split=name), images)


def no_folder(root: str) -> str | None:
    """Explain why data.root is no folder; None if it is one."""
    path = Path(root).expanduser()
    if path.is_dir():
        return None
    if not path.exists():
        return f"data.root={root}: no such folder (looked for {path.absolute()})."
    advice = "Give a folder: data.root=FOLDER"
    if path.suffix.lower() in (".zip", ".tar", ".gz", ".tgz"):
        advice = "Unpack it, and give the folder: data.root=FOLDER"
    elif path.suffix.lower() in (".yaml", ".yml"):
        advice = "YOLO datasets are not read: convert the labels to COCO's JSON, and give the folder"
    elif path.suffix.lower() == ".json":
        advice = f"Annotation files are data.train.annotations={root} and data.val.annotations=FILE"
    return f"data.root={root}: is a file. {advice}."


def _has(folder: Path, layout: _Layout, name: str) -> bool:
    return (folder / layout.annotations.format(split=name)).is_file()


def _first_folder(places: Sequence[Path]) -> Path:
    """Return the first folder that exists, or the first place if none does."""
    return next((place for place in places if place.is_dir()), places[0])


def _explicit(split: SplitName, *, root: str | None, annotations: str, images: str | None) -> SplitFiles:
    base = Path(root).expanduser() if root is not None else Path()
    file = base / Path(annotations).expanduser()
    if images is not None:
        return _existing(split, file, base / Path(images).expanduser())
    return _existing(split, file, images_beside(file))


def images_beside(file: Path) -> Path:
    """Return the likely image folder of an annotation file about which nothing else is known."""
    match = _SPLIT_IN_NAME.match(file.stem)
    in_annotations = file.parent.name == "annotations"
    for place in _BESIDE:
        if ("{split}" in place and match is None) or (place.startswith("..") and not in_annotations):
            continue
        above = file.parent.parent if place.startswith("..") else file.parent
        folder = above / place.removeprefix("../").format(split=match[1] if match else "")
        if folder.is_dir():
            return folder
    return file.parent


def _existing(split: SplitName, annotations: Path, images: Path) -> SplitFiles:
    if not annotations.is_file():
        what = "is no regular file" if annotations.exists() else "no such file"
        raise ValueError(f"data.{split}.annotations: {what}: {annotations.absolute()}.")
    if not images.is_dir():
        other = images_beside(annotations)
        folder = (
            f"data.{split}.images=FOLDER"
            if other == annotations.parent
            else advised(f"data.{split}.images", other.absolute())
        )
        raise ValueError(
            f"{annotations}: its images should be in the folder {images}, which does not exist. Pass "
            f"{advised(f'data.{split}.annotations', annotations.absolute())} with {folder}."
        )
    return SplitFiles(annotations, images)


def _explain(split: SplitName, folder: Path, matches: list[str]) -> str:
    remedy = f"Or pass data.{split}.annotations=FILE with data.{split}.images=FOLDER."
    if matches:
        listed = " and ".join(matches)
        return f"data.root={folder}: more than one {split} split: {listed}. Remove one. {remedy}"
    looked = "\n".join(
        f"  {layout.name}: {_alternatives(layout.annotations, split)} with images in "
        f"{_alternatives(layout.images[0], split)}/"
        for layout in _LAYOUTS
    )
    entries = sorted(p.name + "/" * p.is_dir() for p in folder.iterdir())
    entries += sorted(f"annotations/{p.name}" for p in (folder / "annotations").glob("*.json"))
    there = ", ".join(entries[:12]) + (f" and {len(entries) - 12} more" if len(entries) > 12 else "")
    lone = [
        p.relative_to(folder).as_posix() for g in ("*.json", "annotations/*.json") for p in folder.glob(g)
    ]
    for name in (*_SINGLE_FILES, *(lone if len(lone) == 1 else ())):
        if (file := folder / name).is_file():
            remedy = (
                f"{name} is one file, whose images are not told apart into splits: it can be one of them, by "
                f"{advised(f'data.{split}.annotations', file.absolute())} "
                f"{advised(f'data.{split}.images', images_beside(file).absolute())}. "
                "The other needs a file of its own: split its images into two files, each with the "
                "annotations of its images and all categories."
            )
    return (
        f"data.root={folder}: no {split} split found. Looked for:\n{looked}\nFound in the folder: "
        f"{there or 'nothing'}. {remedy}"
    )


def _alternatives(pattern: str, split: SplitName) -> str:
    """Format the pattern with the usual name of the split, and list the other names it may have."""
    first, *others = _SPLITS[split]
    also = f" (or {', '.join(others)})" if others else ""
    return pattern.format(split=first) + also


def for_both_splits(call: Callable[[SplitName], _Result]) -> list[_Result]:
    """Return the results for both splits, or raise one ValueError with the problems of both."""
    results, problems = [], []
    names: tuple[SplitName, ...] = ("train", "val")
    for name in names:
        try:
            results.append(call(name))
        except ValueError as error:
            problems.append(error)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise ValueError("\n".join(dict.fromkeys(map(str, problems))))
    return results

"""Where the annotations and images of a dataset lie, found from its root folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SplitName = Literal["train", "val"]


@dataclass(frozen=True)
class SplitPaths:
    """Where one split lies. What is left out is found from the root; relative paths start there."""

    annotations: str | None = None
    images: str | None = None

    def __post_init__(self) -> None:
        if self.images is not None and self.annotations is None:
            raise ValueError(
                f"images={self.images!r} is given without annotations. Give both, or leave both out "
                "and let them be found from data.root."
            )


@dataclass(frozen=True)
class SplitFiles:
    """An annotation file and the folder its file names are relative to. Both exist."""

    annotations: Path
    images: Path


@dataclass(frozen=True)
class _Layout:
    name: str
    annotations: dict[str, str]
    images: dict[str, str]


_LAYOUTS = (
    _Layout("plain", {"train": "train.json", "val": "val.json"}, {"train": "images", "val": "images"}),
    _Layout(
        "official COCO",
        {"train": "annotations/instances_train2017.json", "val": "annotations/instances_val2017.json"},
        {"train": "train2017", "val": "val2017"},
    ),
    _Layout(
        "Roboflow",
        {"train": "train/_annotations.coco.json", "val": "valid/_annotations.coco.json"},
        {"train": "train", "val": "valid"},
    ),
)


def find_split(split: SplitName, *, root: str | None, paths: SplitPaths) -> SplitFiles:
    """The files of `split`. Raises ValueError that lists what was looked for and what is there."""
    if paths.annotations is not None:
        return _explicit(split, root=root, annotations=paths.annotations, images=paths.images)
    if root is None:
        raise ValueError(
            "data.root is not set. Pass data.root=FOLDER with a COCO-format dataset in it, or "
            f"data.{split}.annotations=FILE with data.{split}.images=FOLDER."
        )
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise ValueError(f"data.root={root}: no such folder (looked for {folder.absolute()}).")
    matches = [layout for layout in _LAYOUTS if (folder / layout.annotations[split]).is_file()]
    if len(matches) == 1:
        return _existing(split, folder / matches[0].annotations[split], folder / matches[0].images[split])
    raise ValueError(_explain(split, folder, matches))


def _explicit(split: SplitName, *, root: str | None, annotations: str, images: str | None) -> SplitFiles:
    base = Path(root).expanduser() if root is not None else Path()
    file = base / Path(annotations).expanduser()
    if images is not None:
        return _existing(split, file, base / Path(images).expanduser())
    beside = file.parent / "images"
    return _existing(split, file, beside if beside.is_dir() else file.parent)


def _existing(split: SplitName, annotations: Path, images: Path) -> SplitFiles:
    if not annotations.is_file():
        raise ValueError(f"data.{split}.annotations: no such file: {annotations.absolute()}.")
    if not images.is_dir():
        raise ValueError(
            f"{annotations}: its images should be in the folder {images}, which does not exist. Pass "
            f"data.{split}.annotations={annotations.absolute()} with data.{split}.images=FOLDER."
        )
    return SplitFiles(annotations, images)


def _explain(split: SplitName, folder: Path, matches: list[_Layout]) -> str:
    remedy = f"Or pass data.{split}.annotations=FILE with data.{split}.images=FOLDER."
    if matches:
        found = " and ".join(layout.annotations[split] for layout in matches)
        return f"data.root={folder}: more than one {split} split: {found}. Remove one. {remedy}"
    looked = "\n".join(
        f"  {layout.name}: {layout.annotations[split]} with images in {layout.images[split]}/"
        for layout in _LAYOUTS
    )
    entries = sorted(p.name + "/" * p.is_dir() for p in folder.iterdir())
    there = ", ".join(entries[:12]) + (f" and {len(entries) - 12} more" if len(entries) > 12 else "")
    return (
        f"data.root={folder}: no {split} split found. Looked for:\n{looked}\nFound in the folder: "
        f"{there or 'nothing'}. {remedy}"
    )

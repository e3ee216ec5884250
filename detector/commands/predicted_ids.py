"""The image and category ids that `detector predict` writes: counted, or those of an annotation file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detector.coco.annotations import Category
from detector.coco.columns import read_columns
from detector.coco.entries import declared_images, image_ids, read_categories
from detector.coco.findings import Policy, Problems, settle
from detector.coco.ids import Key, id_key
from detector.coco.image_names import ImageNames, same_file

_LISTED = 5


@dataclass(frozen=True)
class PredictedIds:
    """The image id of each file and the category id of each class.

    `note` counts the images of the annotation file that are not among the files.
    """

    image_ids: Sequence[Any]
    category_ids: Sequence[Any]
    note: str = ""


def counted_ids(files: Sequence[Path], category_ids: Sequence[Any]) -> PredictedIds:
    """Return each file's position, from 1, as image id, and the category ids of the training."""
    return PredictedIds(range(1, len(files) + 1), category_ids)


def ids_of_annotations(
    path: str, files: Sequence[Path], *, class_names: Sequence[str], category_ids: Sequence[Any]
) -> PredictedIds:
    """Return the ids that a COCO file has for these file names and classes, so that results refer to it.

    Raises:
        ValueError: a file or class is not in the COCO file, or may be several of its images or categories.
    """
    raw, problems = read_columns(Path(path)), Problems()
    file_categories = read_categories(raw.categories, problems.fatal)
    declared = declared_images(raw, image_ids(raw, problems.fatal), problems.fatal)
    settle(path, problems, Policy(skip=False, drop=False, drop_option=""))
    names = ImageNames(dict(zip(map(id_key, raw.image_ids), declared.names, strict=True)))
    matches = {file: names.candidates(str(file)) for file in files}
    conflicts = [*_image_problems(matches, num_images=len(raw.image_ids))]
    categories, missing = _categories(file_categories, class_names, category_ids)
    if missing:
        truth_names = [category.name for category in file_categories]
        conflicts.append(
            f"{len(missing)} classes of the checkpoint are not among its categories: {_listed(missing)}. Its "
            f"categories are {_listed(truth_names)}. Give the annotations of the same classes."
        )
    if conflicts:
        raise ValueError("\n".join(f"annotations={path}: {problem}" for problem in conflicts))
    keys = [matches[file][0] for file in files]
    absent = len(raw.image_ids) - len(set(keys))
    note = f"{absent} of {len(raw.image_ids)} images of {path} are not among the files." if absent else ""
    return PredictedIds([key[1] for key in keys], categories, note)


def _image_problems(matches: dict[Path, list[Key]], *, num_images: int) -> list[str]:
    problems = []
    if absent := [str(file) for file, candidates in matches.items() if not candidates]:
        problems.append(
            f"{len(absent)} of {len(matches)} files are not among its {num_images} images: {_listed(absent)}"
            ". Give source= a folder, a glob or a text file with its images alone, or leave annotations out."
        )
    if unclear := [str(file) for file, candidates in matches.items() if len(candidates) > 1]:
        problems.append(
            f"{len(unclear)} files may be several of its images: {_listed(unclear)}. Give source= with "
            "the folders that its file names have."
        )
    first: dict[Key, Path] = {}
    duplicates = []
    for file, candidates in matches.items():
        if len(candidates) == 1:
            other = first.setdefault(candidates[0], file)
            if other != file and not same_file(str(other), str(file)):
                duplicates.append(f"{other} and {file}")
    if duplicates:
        problems.append(
            f"{len(duplicates)} of its images may be two files: {_listed(duplicates)}. Leave one out."
        )
    return problems


def _categories(
    categories: Sequence[Category], class_names: Sequence[str], category_ids: Sequence[Any]
) -> tuple[list[Any], list[str]]:
    """Return the category id of each class, and the classes without a unique one."""
    ids, missing = [], []
    for name, trained_id in zip(class_names, category_ids, strict=True):
        same_name = [category.id for category in categories if category.name == name]
        chosen = same_name if len(same_name) == 1 else [id_ for id_ in same_name if id_ == trained_id]
        ids += chosen[:1]
        if not chosen:
            missing.append(name)
    return ids, missing


def _listed(values: Sequence[str]) -> str:
    more = f", ... ({len(values)} in all)" if len(values) > _LISTED else ""
    return ", ".join(values[:_LISTED]) + more

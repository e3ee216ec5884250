"""Assignment of results to images and classes of the ground truth, by their ids and by their names.

An `image_id` may be a number from another tool (the position among the files, the digits of the name). If a
result also names its file or its class, the name is used, and must not contradict the id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detector.coco.ground_truth import GroundTruth
from detector.coco.ids import Key, id_key, is_id, other_kind, shown
from detector.coco.image_names import ImageNames, same_file
from detector.evaluation.result_columns import Resolved, has_text

_LISTED = 5

_Pair = tuple[Key | None, str | None]  # an id and a name; None: the result has none


class NamedResults(list[Any]):
    """Results whose ids come from a file other than the ground truth, for rows that have names.

    The names decide. The ids count only if the ground truth names nothing that could contradict them.
    """


@dataclass(frozen=True)
class _Answer:
    """The ids of the ground truth, by the pair in the results that each replaces."""

    ids: Mapping[_Pair, Key]
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def resolve(results: Sequence[Any], truth: GroundTruth) -> Resolved:
    """Give each result the ids of the image and the class that it names.

    Results whose ids need no change are the same objects as before; malformed ones are left as they are.
    """
    images = _pairs(results, "image_id", "file_name")
    categories = _pairs(results, "category_id", "category_name")
    names = ImageNames(dict(zip(truth.image_numbers, truth.file_names, strict=True)))
    names_decide = isinstance(results, NamedResults)
    if names or _are_missing(images):
        image_answer = _images_by_name(images, truth, names, names_decide=names_decide)
    else:
        image_answer = _Answer({})
    if not image_answer.ids and not image_answer.problems and not any(name for _, name in images):
        image_answer = _images_by_name_as_id(images, truth, names) or image_answer
    category_answer = _categories_by_name(categories, truth, names_decide=names_decide)
    if image_answer.ids or category_answer.ids:
        results = [_replaced(result, image_answer.ids, category_answer.ids) for result in results]
    return Resolved(
        results,
        (*image_answer.problems, *category_answer.problems),
        (*image_answer.notes, *category_answer.notes),
    )


def _pairs(results: Sequence[Any], id_name: str, name: str) -> Counter[_Pair]:
    if {*map(type, results)} <= {dict}:
        ids, names = ([result.get(key) for result in results] for key in (id_name, name))
        if {*map(type, ids)} <= {int, str} and {*map(type, names)} <= {str, type(None)}:
            counted = Counter(zip(ids, names, strict=True))
            return Counter({(id_key(value), text or None): n for (value, text), n in counted.items()})
    return Counter(_pair(r, id_name, name) for r in results if isinstance(r, dict))


def _pair(result: Mapping[str, Any], id_name: str, name: str) -> _Pair:
    value = result.get(id_name)
    key = id_key(value) if value is not None and is_id(value) else None
    return key, result[name] if has_text(result, name) else None


def _are_missing(pairs: Mapping[_Pair, int]) -> bool:
    return any(key is None and name is not None for key, name in pairs)


def _replaced(result: Any, images: Mapping[_Pair, Key], categories: Mapping[_Pair, Key]) -> Any:
    if not isinstance(result, dict):
        return result
    image = images.get(_pair(result, "image_id", "file_name"))
    category = categories.get(_pair(result, "category_id", "category_name"))
    changed = {} if image is None else {"image_id": image[1]}
    if category is not None:
        changed["category_id"] = category[1]
    return {**result, **changed} if changed else result


def _images_by_name(
    pairs: Counter[_Pair], truth: GroundTruth, names: ImageNames, *, names_decide: bool
) -> _Answer:
    known = truth.image_numbers
    ids: dict[_Pair, Key] = {}
    conflicts, absent, ambiguous = Counter[_Pair](), Counter[_Pair](), Counter[_Pair]()
    for (key, name), count in pairs.items():
        if name is None:
            continue
        candidates = names.candidates(name)
        if (
            key in known
            and (key in candidates or not truth.file_names[known[key] - 1])
            and not (names_decide and len(candidates) == 1)
        ):
            continue  # nothing contradicts the id
        if key in known and not names_decide:
            conflicts[key, name] = count
        elif len(candidates) == 1:
            ids[key, name] = candidates[0]
        else:
            (ambiguous if candidates else absent)[key, name] = count
    problems = [*_conflicts(conflicts, truth, names), *_absent(absent, truth), *_ambiguous(ambiguous)]
    problems += _shared_images(ids)
    strange = 0 if names_decide else sum(pairs[key, name] for key, name in ids if key is not None)
    note = (
        f"{strange} results were matched to their images by file_name: their image_id is no id of the ground "
        "truth."
    )
    return _Answer(ids, tuple(problems), (note,) if strange else ())


def _conflicts(pairs: Counter[_Pair], truth: GroundTruth, names: ImageNames) -> list[str]:
    if not pairs:
        return []
    examples = []
    for key, name in list(pairs)[:_LISTED]:
        assert key is not None
        assert name is not None
        own = truth.file_names[truth.image_numbers[key] - 1]
        right = names.find(name)
        where = f'its "{name}" is {shown([right])}' if right else f'it has no "{name}"'
        examples.append(
            f'"{name}" with image_id {shown([key])}, which is "{own}" in the ground truth ({where})'
        )
    return [
        f"{sum(pairs.values())} results name one image by image_id and another by file_name: "
        f"{_listed(examples, len(pairs))}. Where the file names are right, leave image_id out, or let "
        "`detector predict annotations=<ground truth>` write its ids; where the ids are right, leave "
        "file_name out."
    ]


def _absent(pairs: Counter[_Pair], truth: GroundTruth) -> list[str]:
    if not pairs:
        return []
    examples = [f'"{name}"' for _, name in list(pairs)[:_LISTED]]
    own = [f'"{name}"' for name in truth.file_names if name]
    its = (
        f"Its images are {_listed(own[:_LISTED], len(own))}." if own else "It names no files: write its ids."
    )
    return [
        f"{sum(pairs.values())} results are of images that the ground truth does not have: "
        f"{_listed(examples, len(pairs))}. {its} Evaluate against the annotations that the predictions were "
        "made for, or leave these results out."
    ]


def _ambiguous(pairs: Counter[_Pair]) -> list[str]:
    if not pairs:
        return []
    examples = [f'"{name}"' for _, name in list(pairs)[:_LISTED]]
    return [
        f"{sum(pairs.values())} results have a file_name that several images of the ground truth end in: "
        f"{_listed(examples, len(pairs))}. Write the folder with it, as the ground truth does, or its ids."
    ]


def _shared_images(ids: Mapping[_Pair, Key]) -> list[str]:
    """Return the problem of different files that were matched to the same image, if any."""
    file_of: dict[Key, str] = {}
    shared = []
    for (_, name), key in ids.items():
        assert name is not None
        other = file_of.setdefault(key, name)
        if not same_file(name, other):
            shared.append(f'"{other}" and "{name}"')
    if not shared:
        return []
    return [
        f"{len(shared)} files have the base name of an image that another file has, too: "
        f"{_listed(shared[:_LISTED], len(shared))}. Write the folder as well, or the ids."
    ]


def _images_by_name_as_id(pairs: Counter[_Pair], truth: GroundTruth, names: ImageNames) -> _Answer | None:
    """Match ids that are file names or their stems; None unless all are and no two share an image."""
    used = {key for key, _ in pairs if key is not None}
    find = _finder(names, truth)
    if not used or used <= truth.image_numbers.keys():
        return _ids_that_are_names(used, truth, find)
    ids = {key: image_id for key in used if (image_id := find(key))}
    clear = len(ids) == len(used) and len(set(ids.values())) == len(ids)
    if not clear or any(
        other in truth.image_numbers and other != image_id
        for key, image_id in ids.items()
        for other in (key, other_kind(key))
    ):
        return None
    key, image_id = min(ids.items())
    example = f'{shown([key])} for "{truth.file_names[truth.image_numbers[image_id] - 1]}"'
    note = (
        f"The results call their images by file name or its stem ({example}), not by the ids of the ground "
        "truth: they were matched by it."
    )
    return _Answer({pair: ids[pair[0]] for pair in pairs if pair[0] in ids}, notes=(note,))


def _ids_that_are_names(
    used: set[Key], truth: GroundTruth, find: Callable[[Key], Key | None]
) -> _Answer | None:
    """Return a note if every id is also the name of an image, and some of an image with another id."""
    others = [(key, image_id) for key in sorted(used) if (image_id := find(key)) is not None]
    if len(used) < 2 or len(others) < len(used) or all(key == image_id for key, image_id in others):
        return None
    key, image_id = next(pair for pair in others if pair[0] != pair[1])
    own, other = (f'"{truth.file_names[truth.image_numbers[k] - 1]}"' for k in (key, image_id))
    return _Answer(
        {},
        notes=(
            f"Every image_id of the results is the id of one image and the file name of another: "
            f"{shown([key])} is the id of {own} and may mean {other}. They were taken as ids; where "
            "they are names, write file_name into the results.",
        ),
    )


def _finder(names: ImageNames, truth: GroundTruth) -> Callable[[Key], Key | None]:
    """Return a function from an id to the image it names: by a string, or by the digits of a stem."""
    digits: dict[int, list[Key]] = {}
    for key, name in zip(truth.image_numbers, truth.file_names, strict=True):
        stem = name.replace("\\", "/").rpartition("/")[2].partition(".")[0]
        if stem.isascii() and stem.isdigit() and len(stem) < 20:
            digits.setdefault(int(stem), []).append(key)

    def find(key: Key) -> Key | None:
        value = key[1]
        if isinstance(value, str):
            return names.find(value)
        candidates = digits.get(value, []) if isinstance(value, int) else []
        return candidates[0] if len(candidates) == 1 else None

    return find


def _categories_by_name(pairs: Counter[_Pair], truth: GroundTruth, *, names_decide: bool) -> _Answer:
    known = truth.category_numbers
    called: dict[str, list[Key]] = {}
    for own_key, own_name in zip(known, truth.class_names, strict=True):
        called.setdefault(_folded(own_name.removesuffix(f" (id {shown([own_key])})")), []).append(own_key)
    with_objects = {*truth.categories.tolist()}
    for same in called.values():  # a root category may have the name of a class
        if len(same) > 1 and (used := [key for key in same if known[key] in with_objects]):
            same[:] = used
    ids: dict[_Pair, Key] = {}
    conflicts, others, absent = Counter[_Pair](), Counter[_Pair](), Counter[_Pair]()
    for (key, name), count in pairs.items():
        if name is None:
            continue
        candidates = called.get(_folded(name), [])
        if key in known and key in candidates and not (names_decide and len(candidates) == 1):
            continue
        if len(candidates) == 1 and (names_decide or key not in known):
            ids[key, name] = candidates[0]
        elif key in known:
            (conflicts if candidates else others)[key, name] = count
        elif key is None:
            absent[key, name] = count
    if names_decide:  # an id that a name of the same file claims is not free for another name
        claimed = {*ids.values()}
        absent += Counter({pair: n for pair, n in others.items() if pair[0] in claimed})
        others = Counter({pair: n for pair, n in others.items() if pair[0] not in claimed})
    notes = []
    strange = 0 if names_decide else sum(pairs[key, name] for key, name in ids if key is not None)
    if strange:
        notes.append(
            f"{strange} results were matched to their classes by name: their "
            "category_id is none of the ground truth."
        )
    if others:
        notes.append(
            f"{sum(others.values())} results call their class otherwise than the ground truth: "
            f"{_shown_categories(others, truth)}. They were taken by their category_id."
        )
    return _Answer(ids, (*_category_problems(conflicts, absent, truth),), tuple(notes))


def _category_problems(conflicts: Counter[_Pair], absent: Counter[_Pair], truth: GroundTruth) -> list[str]:
    problems = []
    if conflicts:
        problems.append(
            f"{sum(conflicts.values())} results name one class by category_id and another by name: "
            f"{_shown_categories(conflicts, truth)}. Write the category ids of the ground truth, or leave "
            "category_id out where the names are right."
        )
    if absent:
        examples = [f'"{name}"' for _, name in list(absent)[:_LISTED]]
        own = [f'"{name}"' for name in truth.class_names]
        problems.append(
            f"{sum(absent.values())} results are of classes that the ground truth does not have: "
            f"{_listed(examples, len(absent))}. Its classes are {_listed(own[:_LISTED], len(own))}. Write "
            "its category ids, or its names."
        )
    return problems


def _shown_categories(pairs: Counter[_Pair], truth: GroundTruth) -> str:
    examples = [
        f'category_id {shown([key])} is "{name}" in the results, '
        f'"{truth.class_names[truth.category_numbers[key] - 1]}" in the ground truth'
        for key, name in list(pairs)[:_LISTED]
        if key is not None
    ]
    return _listed(examples, len(pairs))


def _folded(name: str) -> str:
    return " ".join(name.casefold().split())


def _listed(examples: Sequence[str], count: int) -> str:
    more = f", ... ({count} in all)" if count > len(examples) else ""
    return ", ".join(examples) + more

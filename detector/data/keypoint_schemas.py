"""The keypoints of each class: their names, which swap in mirrored images, and their sigmas."""

# K keypoints of a class, L classes

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from detector.coco.annotations import Category
from detector.coco.person import COCO_PERSON, COCO_SIGMAS, UNIFORM_SIGMA
from detector.structures import KeypointSchema

Pairs = tuple[tuple[str, str], ...]

_OTHER_SIDE = {"left": "right", "right": "left", "l": "r", "r": "l"}
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W_a-zA-Z]+")


def keypoint_schemas(
    categories: Sequence[Category],
    *,
    flip_pairs: Pairs | None = None,
    sigmas: tuple[float, ...] | None = None,
) -> tuple[KeypointSchema | None, ...]:
    """Return the schema of each category (L), None for one that names no keypoints.

    `flip_pairs` replaces what is found by left and right in the names, for each category that has all its
    names; `sigmas` those of each category with as many keypoints. Otherwise sigmas are COCO's for the names
    of COCO's persons, and `UNIFORM_SIGMA` for others.

    Raises:
        ValueError: an option fits no category.
    """
    named = [category for category in categories if category.keypoints]
    if named and sigmas is not None and not any(len(one.keypoints) == len(sigmas) for one in named):
        raise ValueError(
            f"data.keypoint_sigmas has {len(sigmas)} numbers, expected one for each keypoint of a category: "
            f"{_described(named)}."
        )
    if named and flip_pairs is not None and not any(_names_all(one, flip_pairs) for one in named):
        raise ValueError(
            f"data.keypoint_flip_pairs has {', '.join(name for pair in flip_pairs for name in pair)}, which"
            f" are not all keypoints of one category: {_described(named)}."
        )
    return tuple(_schema(one, flip_pairs, sigmas) if one.keypoints else None for one in categories)


def schema_notes(categories: Sequence[Category], schemas: Sequence[KeypointSchema | None]) -> Iterator[str]:
    """Yield for each class with keypoints how they are understood."""
    for category, schema in zip(categories, schemas, strict=True):
        if schema is None:
            continue
        odd = len(category.skeleton) - len(schema.skeleton)
        parts = [
            f'"{category.name}" has {len(schema.names)} keypoints',
            f"flipped images swap {_pairs_text(schema.flip_pairs)}",
            _sigmas_text(schema),
            *(
                [
                    f"{odd} of {len(category.skeleton)} pairs of its skeleton are left out, as they are not "
                    f"two different numbers from 1 to {len(schema.names)}"
                ]
                if odd
                else []
            ),
        ]
        yield f"{'; '.join(parts)}."


def pairs_by_name(names: Sequence[str]) -> Pairs:
    """Return the names that differ by left and right, or l and r as words of their own, alone.

    Examples:
        >>> pairs_by_name(["nose", "left_eye", "right_eye", "LPaw", "RPaw", "ear (left)", "ear (right)"])
        (('left_eye', 'right_eye'), ('LPaw', 'RPaw'), ('ear (left)', 'ear (right)'))
    """
    places = {_words(name): name for name in names}
    pairs = []
    for name in names:
        words = _words(name)
        other = places.get(tuple(_OTHER_SIDE.get(word, word) for word in words))
        if other is not None and other != name and names.index(name) < names.index(other):
            pairs.append((name, other))
    return tuple(pairs)


def _words(name: str) -> tuple[str, ...]:
    apart = re.sub(r"(left|right)", r" \1 ", name, flags=re.IGNORECASE)
    return tuple(word.lower() for word in _WORD.findall(apart))


def _schema(category: Category, flip_pairs: Pairs | None, sigmas: tuple[float, ...] | None) -> KeypointSchema:
    names = category.keypoints
    own_pairs = flip_pairs is not None and _names_all(category, flip_pairs)
    return KeypointSchema(
        names=names,
        sigmas=_sigmas(names, sigmas),
        flip_pairs=flip_pairs if own_pairs and flip_pairs is not None else pairs_by_name(names),
        skeleton=tuple(
            (names[a - 1], names[b - 1])
            for a, b in category.skeleton
            if a != b and min(a, b) >= 1 and max(a, b) <= len(names)
        ),
    )


def _sigmas(names: tuple[str, ...], sigmas: tuple[float, ...] | None) -> tuple[float, ...]:
    if sigmas is not None and len(sigmas) == len(names):
        return tuple(sigmas)
    return COCO_SIGMAS if names == COCO_PERSON else (UNIFORM_SIGMA,) * len(names)


def _names_all(category: Category, pairs: Pairs) -> bool:
    return {name for pair in pairs for name in pair} <= {*category.keypoints}


def _described(categories: Sequence[Category]) -> str:
    return "; ".join(
        f'"{one.name}" has {len(one.keypoints)}: {", ".join(one.keypoints)}' for one in categories
    )


def _pairs_text(pairs: Pairs) -> str:
    shown = [f"{a} and {b}" for a, b in pairs[:3]]
    more = [f"{len(pairs) - 3} more pairs"] if len(pairs) > 3 else []
    return (
        ", ".join([*shown, *more]) or "none of them (set data.keypoint_flip_pairs if some are left and right)"
    )


def _sigmas_text(schema: KeypointSchema) -> str:
    if schema.sigmas == COCO_SIGMAS:
        return "COCO's sigmas"
    if {*schema.sigmas} == {UNIFORM_SIGMA}:
        return f"the sigma {UNIFORM_SIGMA} for each (set data.keypoint_sigmas to those of your data)"
    return f"sigmas from {min(schema.sigmas):g} to {max(schema.sigmas):g}"

"""The keypoints of a model's classes in a checkpoint, as plain containers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detector.checkpoint_entries import is_plain, shown
from detector.structures import KeypointSchema


def plain_schema(schema: KeypointSchema | None) -> dict[str, Any] | None:
    """Return a schema as plain containers."""
    if schema is None:
        return None
    pairs = {name: [[*pair] for pair in getattr(schema, name)] for name in ("flip_pairs", "skeleton")}
    return {"names": [*schema.names], "sigmas": [*schema.sigmas], **pairs}


def schema_of(content: Mapping[str, Any] | None) -> KeypointSchema | None:
    """Return the keypoints of a class from plain containers; None for a class without any.

    Raises:
        ValueError: they contradict each other.
    """
    if content is None:
        return None
    pairs = {name: tuple((a, b) for a, b in content[name]) for name in ("flip_pairs", "skeleton")}
    return KeypointSchema(names=tuple(content["names"]), sigmas=tuple(content["sigmas"]), **pairs)


def schema_problems(schemas: object, num_classes: int) -> list[str]:
    """Return the first problem of an entry that holds a schema, or None, for each of the classes."""
    name = "detector.keypoint_schemas"
    if not isinstance(schemas, list) or len(schemas) not in (0, num_classes):
        return [f"{name} is {shown(schemas)}, expected a list of {num_classes}, one for each class"]
    for place, one in enumerate(schemas):
        if not (one is None or _is_schema(one)):
            return [
                f"{name}[{place}] is {shown(one)}, expected a dict of names, sigmas, flip_pairs, skeleton"
            ]
        try:
            schema_of(one)
        except ValueError as error:
            return [f"{name}[{place}]: {error}"]
    return []


def _is_schema(value: object) -> bool:
    return (
        isinstance(value, dict)
        and _are_texts(value.get("names"))
        and isinstance(sigmas := value.get("sigmas"), list)
        and all(type(sigma) in (int, float) for sigma in sigmas)
        and all(
            isinstance(pairs := value.get(name), list)
            and all(_are_texts(pair) and len(pair) == 2 for pair in pairs)
            for name in ("flip_pairs", "skeleton")
        )
    )


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) and is_plain(text) for text in value)

"""Check of plain values against annotations, and descriptions of annotations for users."""

from __future__ import annotations

import collections.abc
import inspect
import json
import types
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import annotated_types

from detector.config.errors import closest

if TYPE_CHECKING:
    from pydantic import TypeAdapter, ValidationError

_WORDS = {int: "an integer", float: "a number", str: "a string", bool: "true or false", Path: "a path"}
_SEQUENCES = (list, tuple, set, frozenset, collections.abc.Sequence, collections.abc.Iterable)
_BOUNDS = {
    annotated_types.Ge: ("ge", ">="),
    annotated_types.Gt: ("gt", ">"),
    annotated_types.Le: ("le", "<="),
    annotated_types.Lt: ("lt", "<"),
    annotated_types.MinLen: ("min_length", "of length >="),
    annotated_types.MaxLen: ("max_length", "of length <="),
}


def misfit(value: Any, annotation: Any, path: str) -> str | None:
    """Explain why `value` (plain data, read from YAML at `path`) does not fit `annotation`; None if it fits.

    The check is strict: "3" and true are not integers, but 1 is a number and a list is a tuple.
    """
    from pydantic import ValidationError  # here: it takes 0.3 s, and `--cfg job` does not need it

    adapter = _adapter(annotation)
    if adapter is None:
        return None
    try:
        adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        return f"expected {describe(annotation)}{_reason(error)}{_hint(value, annotation, path)}"
    return None


def fitted(value: Any, annotation: Any) -> Any:
    """Convert a value without mappings to `annotation` (list to tuple, 1 to 1.0); a misfit is unchanged."""
    from pydantic import ValidationError

    adapter = _adapter(annotation) if isinstance(value, list | int) else None
    if adapter is None:
        return value
    try:
        return adapter.validate_json(json.dumps(value), strict=True)
    except ValidationError:
        return value


def _adapter(annotation: Any) -> TypeAdapter[Any] | None:
    try:
        return _cached_adapter(annotation)
    except TypeError:  # unhashable: an annotation with a list or dict inside
        return _new_adapter(annotation)


def _new_adapter(annotation: Any) -> TypeAdapter[Any] | None:
    from pydantic import ConfigDict, PydanticUndefinedAnnotation, PydanticUserError, TypeAdapter

    try:
        return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True, allow_inf_nan=False))
    except (PydanticUserError, PydanticUndefinedAnnotation):
        if get_origin(annotation) is not Annotated:  # types with their own config: dataclasses, TypedDict
            try:
                return TypeAdapter(annotation)
            except (PydanticUserError, PydanticUndefinedAnnotation):
                pass
        return None


_cached_adapter = cache(_new_adapter)


def _reason(error: ValidationError) -> str:
    """Return the message of a dataclass or validator; pydantic's own adds nothing to `describe`."""
    messages = [e["msg"].removeprefix("Value error, ") for e in error.errors() if e["type"] == "value_error"]
    return f" ({'; '.join(messages)})" if messages else ""


def _hint(value: Any, annotation: Any, path: str) -> str:
    is_text = isinstance(value, str)
    takes_list = any(get_origin(member) in _SEQUENCES for member in members(annotation))
    if takes_list and not (is_text and not value.startswith("(")) and not isinstance(value, list | dict):
        inner = value.strip("()") if is_text else show(value)
        return f". A list has brackets: '{path}=[{inner}]'"
    if isinstance(value, str):
        match = closest(value, [c for c in choices(annotation) if isinstance(c, str)])
        if not match and value.isidentifier() and any(_is_object(m) for m in members(annotation)):
            return f". To choose a file of a group, write {path.replace('.', '/')}={value}"
        return f". Did you mean {match}?" if match else ""
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    if plain and str in members(annotation):
        return f". To mean a string, quote it twice: '\"{value}\"'"
    return ""


def members(annotation: Any) -> tuple[Any, ...]:
    """Return the alternatives of a union, flattened; the annotation itself if it is not a union."""
    if get_origin(annotation) is Annotated:
        inner = members(get_args(annotation)[0])
        return inner if len(inner) > 1 else (annotation,)
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(m for arg in get_args(annotation) for m in members(arg))
    return (annotation,)


def is_plain(annotation: Any) -> bool:
    """Return whether only numbers, text, booleans, null, and lists of them can fit."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return is_plain(get_args(annotation)[0])
    if origin in _SEQUENCES or origin in (Union, types.UnionType):
        return all(arg is ... or is_plain(arg) for arg in get_args(annotation))
    return origin is Literal or annotation in (*_WORDS, type(None))


def dataclass_in(annotation: Any) -> type | None:
    """Return the first alternative of a union that is a dataclass."""
    return next((m for m in members(annotation) if inspect.isclass(m) and is_dataclass(m)), None)


def choices(annotation: Any) -> tuple[Any, ...]:
    """Return all literal values that fit, directly or as elements of a list."""
    literals: list[Any] = []
    for member in members(annotation):
        if get_origin(member) is Literal:
            literals += get_args(member)
        elif get_origin(member) in _SEQUENCES:
            literals += [c for arg in get_args(member) if arg is not ... for c in choices(arg)]
    return tuple(literals)


def bounds(annotation: Any) -> list[str]:
    """Return the words of all ranges, of the value or of the elements of a list."""
    if get_origin(annotation) is Annotated:
        return _describe_bounds(get_args(annotation)[1:])
    inner = get_args(annotation) if get_origin(annotation) in _SEQUENCES else members(annotation)
    return [] if inner == (annotation,) else [word for part in inner for word in bounds(part)]


def element(annotation: Any, key: str | int) -> Any:
    """Return the annotation of one element of a container with this annotation; Any if unknown."""
    for member in members(annotation):
        origin, args = get_origin(member), get_args(member)
        if isinstance(key, str) and len(args) == 2 and _is_mapping(origin):
            return args[1]
        if isinstance(key, int) and origin in _SEQUENCES and args:
            fixed = origin is tuple and args[-1] is not ...
            return args[min(key, len(args) - 1)] if fixed else args[0]
    return Any


def holds(annotation: Any, container: dict[str, Any] | list[Any]) -> bool:
    """Return whether a mapping or list can fit, whatever its elements."""
    kinds = [get_origin(member) or member for member in members(annotation)]
    if any(kind in (Any, object) or isinstance(kind, TypeVar) for kind in kinds):
        return True
    return any(_is_mapping(k) if isinstance(container, dict) else k in _SEQUENCES for k in kinds)


def _is_mapping(origin: Any) -> bool:
    return inspect.isclass(origin) and issubclass(origin, collections.abc.Mapping)


def describe(annotation: Any) -> str:
    """Describe an annotation in words, such as "an integer >= 1 or null"."""
    alternatives = members(annotation)
    if len(alternatives) > 1:
        ordered = sorted(alternatives, key=lambda a: a is type(None))
        return " or ".join(dict.fromkeys(describe(a) for a in ordered))
    (annotation,) = alternatives
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return " ".join([describe(args[0]), *_describe_bounds(args[1:])])
    if origin is Literal:
        return f"one of {', '.join(show(a) for a in args)}" if len(args) > 1 else show(args[0])
    if origin in _SEQUENCES:
        return _describe_sequence(origin, args)
    if _is_mapping(origin or annotation):
        return "a mapping"
    if annotation is None or annotation is type(None):
        return "null"
    if annotation is Any or isinstance(annotation, TypeVar):
        return "anything"
    if _is_object(annotation):
        return f"an object ({getattr(annotation, '__name__', annotation)}) with its _target_"
    return _WORDS.get(annotation, str(annotation))


def _is_object(annotation: Any) -> bool:
    """Return whether only a node can produce a value for it."""
    if get_origin(annotation) is Annotated:
        return _is_object(get_args(annotation)[0])
    kind = get_origin(annotation) or annotation
    return (
        inspect.isclass(kind)
        and kind not in (*_WORDS, *_SEQUENCES, type(None), Any)
        and not _is_mapping(kind)
    )


def _describe_bounds(metadata: tuple[Any, ...]) -> list[str]:
    words = []
    for item in metadata:
        if isinstance(item, annotated_types.Interval):
            words += _describe_bounds(tuple(item))
        elif type(item) in _BOUNDS:
            attribute, sign = _BOUNDS[type(item)]
            words += [*(["and"] if words else []), f"{sign} {getattr(item, attribute)}"]
    return [w for i, w in enumerate(words) if w != "and" or i] if words else []


def _describe_sequence(origin: Any, args: tuple[Any, ...]) -> str:
    if not args:
        return "a list"
    if origin is tuple and args[-1] is not ...:
        if len(set(map(str, args))) == 1:
            return f"a list of {len(args)}, each {describe(args[0])}"
        return f"a list of {len(args)}: {', '.join(describe(a) for a in args)}"
    return f"a list, each {describe(args[0])}"


def show(value: Any) -> str:
    """Format a value as in YAML."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(show(v) for v in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {show(v)}" for k, v in value.items()) + "}"
    return (
        json.dumps(value, ensure_ascii=False) if isinstance(value, str) and _confusing(value) else str(value)
    )


def _confusing(text: str) -> bool:
    return not text or text != text.strip() or text.lower() in ("null", "true", "false") or _is_number(text)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

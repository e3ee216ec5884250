"""The table of options: what each one is, may be and does, from the YAML files and from signatures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from detector.config.annotations import annotations_of, source_of
from detector.config.group_files import ConfigFiles
from detector.config.paths import config_dir
from detector.config.targets import SPECIAL_KEYS
from detector.config.values import bounds, choices, describe, members, show

_LISTED = re.compile(r"^[\w.-]+(?: \| [\w.-]+)+(?:: |$)")
_PRESETS = ("experiment", "recipe", "compare")  # groups whose files set options of others, or name your own


@dataclass(frozen=True)
class OptionInfo:
    """An option as typed: `key`=value.

    `takes` says in words what it may be: "an integer >= 1 or auto". In parts it is a `type`, its `range` (""
    if there is none) and `choices` (the values that have a name).
    `default` is plain YAML data; "${...}" refers to another option. `group` is the file that has the option:
    "train" for configs/train.yaml, "optimizer=sgd" for configs/optimizer/sgd.yaml.
    """

    key: str
    takes: str
    type: str
    default: Any
    choices: tuple[str, ...]
    range: str
    description: str
    group: str


def every_option(verbs: Mapping[str, str]) -> list[OptionInfo]:
    """Return the options of all verbs (name: module) with every choice of every group, each once.

    Presets, which only set options (experiments, recipes, comparisons), are left out.
    """
    options: dict[tuple[str, str], OptionInfo] = {}
    for verb, module in verbs.items():
        pending: list[tuple[str, ...]] = [()]
        seen: set[str] = set()
        while pending:
            words = pending.pop(0)
            files = ConfigFiles([config_dir()], verb, words)
            for option in options_of(files, module):
                if option.group in words or (option.group, option.key) not in options:
                    options[option.group, option.key] = option
            for group in files.groups:
                chosen = {f"{group}={choice}" for choice in files.choices(group)} - seen
                if not group.startswith(_PRESETS):
                    pending += [(*words, word) for word in sorted(chosen)]
                    seen |= chosen
    return [*options.values()]


def options_of(files: ConfigFiles, module: str) -> Iterator[OptionInfo]:
    """Yield the options in `files`, with the annotations of the parts that they name."""
    for key, value, annotation in leaves(files.options, module):
        if key not in files.origins:  # an empty file of a group
            continue
        yield OptionInfo(
            key=key,
            takes=describe(type(value) if annotation is None else annotation),
            type=describe(type(value) if annotation is None else _unbounded(annotation)),
            default=value,
            choices=tuple(show(choice) for choice in choices(annotation)),
            range=" ".join(dict.fromkeys(bounds(annotation))),
            description=_LISTED.sub("", files.comments.get(key, "")),
            group=files.origins[key],
        )


def leaves(options: Mapping[str, Any], module: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield key, value and annotation (None: unknown) of each option of the verb in `module`."""
    return _leaves(options, annotations_of(f"{module}.Options"), "")


def _leaves(
    options: Mapping[str, Any], annotations: Mapping[str, Any], path: str
) -> Iterator[tuple[str, Any, Any]]:
    """Do the same for a part. A mapping of names is one option."""
    for name, value in options.items():
        key = f"{path}.{name}" if path else name
        if name in SPECIAL_KEYS:
            continue
        annotation = annotations.get(name)
        is_one = any(get_origin(m) is Mapping for m in members(annotation)) and not _holds_nodes(value)
        if isinstance(value, dict) and value and not is_one:
            parts = (source for member in members(annotation) if (source := source_of(member)))
            yield from _leaves(value, annotations_of(str(value.get("_target_") or next(parts, ""))), key)
        else:
            yield key, value, annotation


def _holds_nodes(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(v, dict) and "_target_" in v for v in value.values())


def _unbounded(annotation: Any) -> Any:
    """Return the annotation with types instead of choices, and without ranges."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _unbounded(args[0])
    if origin is Literal:
        return Union[tuple(type(value) for value in args)]  # noqa: UP007  # of a tuple
    if len(members(annotation)) > 1:
        return Union[tuple(_unbounded(member) for member in members(annotation))]  # noqa: UP007  # of a tuple
    if origin in (tuple, Sequence):
        return origin[tuple(arg if arg is ... else _unbounded(arg) for arg in args)]
    return annotation

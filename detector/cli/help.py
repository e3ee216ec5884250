"""The help of a verb: its groups, and its options with their comments, ranges and choices."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from detector.config.errors import ConfigError, did_you_mean
from detector.config.group_files import ConfigFiles, header
from detector.config.overrides import Arguments, composed_with_choices
from detector.config.paths import config_dir
from detector.config.reference import OptionInfo, options_of
from detector.config.values import show

_KEY_WIDTH = 44
_UNBROKEN = "\N{NO-BREAK SPACE}"
_FLAGS = """Flags
  -m, --multirun    run once for each combination of comma-separated values: seed=0,1 optimizer=adamw,sgd
  --cfg job         print the configuration and stop
  --config-dir DIR  add a folder of your own YAML files (DIR/experiment/mine.yaml: experiment=mine)
  --hydra-help      Hydra's own help"""


def verb_help(verb: str, module: str, summary: str, arguments: Arguments) -> str:
    """Return the help of a verb with the overrides of the command line, or only of the parts that it names.

    Raises:
        ConfigError: there is no such part, or the overrides are wrong.
    """
    values, choices = composed_with_choices(arguments)
    folders = [Path(arguments.config_dir)] if arguments.config_dir else []
    words = [f"{group}={choice}" for group, choice in choices.items() if choice is not None]
    files = ConfigFiles([*folders, config_dir()], verb, words)
    lines = [f"detector {verb}: {summary}", f"usage: detector {verb} [group=choice ...] [key=value ...]"]
    if not arguments.parts:
        options = [*options_of(files, module)]
        lines += ["", "Groups, with their present choices", *_groups(files, files.groups)]
        lines += [*_options(options, values), "", _FLAGS, "", f"One part only: detector {verb} --help PART"]
    for part in (word.replace("/", ".") for word in arguments.parts):
        lines += _part(part, files, module, values)
    return "\n".join(lines)


def _part(part: str, files: ConfigFiles, module: str, values: dict[str, Any]) -> Iterator[str]:
    options = [*options_of(files, module)]
    within = [option for option in options if f"{option.key}.".startswith(f"{part}.")]
    groups = [group for group in files.groups if f"{_place(group)}.".startswith(f"{part}.")]
    if not within and not groups:
        keys = [option.key for option in options]
        parts = {".".join(key.split(".")[:n]) for key in keys for n in range(1, key.count(".") + 2)}
        raise ConfigError([f"--help {part}: there is no such part.{did_you_mean(part, sorted(parts))}"])
    if comment := files.comments.get(part):
        yield from ("", *_filled(comment, ""))
    for group in groups:
        yield from ("", f"Choices of {group}, now {files.groups[group]}")
        for choice in files.choices(group):
            yield from _two_columns(choice, header(files.folders, group, choice))
    yield from _options(within, values)


def _place(group: str) -> str:
    name, _, at = group.partition("@")
    return at or name.replace("/", ".")


def _groups(files: ConfigFiles, groups: Sequence[str] | dict[str, str | None]) -> Iterator[str]:
    for group in groups:
        own = ConfigFiles(files.folders[:-1], files.verb)  # experiments of ours are trainings
        known = files if group != "experiment" or "training" in groups else own
        choices = [f"{c}*" if c == files.groups[group] else c for c in known.choices(group)]
        if choices:
            yield from _two_columns(group, ", ".join(choices))


def _options(options: Sequence[OptionInfo], values: dict[str, Any]) -> Iterator[str]:
    parts = dict.fromkeys(option.key.rpartition(".")[0] for option in options)
    for part in parts:
        yield from ("", f"Options of {part}" if part else "Options")
        for option in options:
            if option.key.rpartition(".")[0] == part:
                takes = option.takes.replace(" ", _UNBROKEN) if len(option.takes) < 36 else option.takes
                value = show(_value(values, option))
                yield from _two_columns(f"{option.key}={value}", f"{option.description} [{takes}]")


def _value(values: Any, option: OptionInfo) -> Any:
    for name in option.key.split("."):
        if not isinstance(values, dict) or name not in values:
            return option.default
        values = values[name]
    return values


def _two_columns(left: str, right: str) -> list[str]:
    width = max(60, min(shutil.get_terminal_size((120, 24)).columns, 140))
    start = f"  {left}"
    if not right:
        return [start]
    if len(start) >= _KEY_WIDTH:
        return [start, *_filled(right, " " * _KEY_WIDTH, width)]
    first, *rest = _filled(right, " " * _KEY_WIDTH, width)
    return [start.ljust(_KEY_WIDTH) + first.lstrip(), *rest]


def _filled(text: str, indent: str, width: int = 120) -> list[str]:
    lines = textwrap.wrap(
        text, width, initial_indent=indent, subsequent_indent=indent, break_long_words=False
    )
    return [line.replace(_UNBROKEN, " ") for line in lines]

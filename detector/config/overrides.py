"""Parsing of a command line, and explanations of its mistakes in the user's terms."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, cast

from hydra import compose
from hydra._internal.utils import get_args_parser  # Hydra has no public one; hydra-core is pinned below 1.4
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from detector.config.advice import advice, has_key, is_mapping
from detector.config.errors import ConfigError, closest
from detector.config.foreign_words import WORDS, as_list, lone_words, own_file
from detector.config.loading import loaded as _loaded
from detector.config.words import repaired
from detector.earlier import MOVED, present_word, tell

COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException)
_OF_SLURM = ("submitit_local", "submitit_slurm")  # launchers that the extra brings


@dataclass(frozen=True)
class Arguments:
    """A command line after its verb: Hydra's flags, the overrides, and the values of the flags."""

    flags: tuple[str, ...]
    overrides: tuple[str, ...]
    config_dir: str | None
    primary: str  # the name of the configuration: the verb, unless a flag names another
    multirun: bool
    runs: bool  # False: a flag only shows something
    allow_targets: tuple[str, ...]  # targets that the user allows: from here, never from a file
    help: bool
    parts: tuple[str, ...]  # with help: of which it is


def parse_arguments(verb: str, words: Sequence[str]) -> Arguments:
    """Separate flags from overrides, which may come in any order.

    Words that are neither raise ConfigError, each with the override that was meant.
    """
    parser = get_args_parser()
    parser.__class__ = _Parser
    parser.allow_abbrev = False  # --conf is no --config-dir
    parsed, unknown = parser.parse_known_intermixed_args(list(words))
    if unknown:
        with _loaded(None):
            cfg = _compose(verb, [])
            groups = _groups(cfg)
        options = [word for word in unknown if word.startswith("-")]
        raise ConfigError([_explain_dashes(option, words, cfg, groups) for option in options])
    flags = list(words)
    for override in parsed.overrides:
        flags.remove(override)
    parts = [word for word in parsed.overrides if "=" not in word and parsed.help]
    parsed.overrides = [word for word in parsed.overrides if word not in parts]
    _require_pairs(verb, parsed.overrides)
    _require_harmless(parsed)
    overrides = tuple(repaired(word, verb=verb, multirun=parsed.multirun) for word in parsed.overrides)
    shows = parsed.cfg or parsed.info or parsed.help or parsed.hydra_help
    _require_one_purpose(parsed, " ".join(flags))
    return Arguments(
        flags=tuple(flags),
        overrides=overrides,
        config_dir=parsed.config_dir,
        primary=parsed.config_name or verb,
        multirun=parsed.multirun,
        runs=not shows,
        allow_targets=_allowed_targets(overrides),
        help=parsed.help,
        parts=tuple(parts),
    )


def _require_one_purpose(parsed: argparse.Namespace, flags: str) -> None:
    """Raise ConfigError for incompatible flags, which Hydra would report with a traceback."""
    if (parsed.cfg or parsed.info or parsed.help or parsed.hydra_help) and (parsed.multirun or parsed.run):
        raise ConfigError([f"{flags}: give one of them: -m and --run run, the other only shows something"])
    if (parsed.multirun and parsed.run) or (parsed.cfg and parsed.info):
        raise ConfigError([f"{flags}: give one of them"])
    if parsed.resolve and not (parsed.cfg or parsed.help):
        raise ConfigError(["--resolve: shows nothing by itself: give --cfg job with it"])


def with_present_names(arguments: Arguments) -> Arguments:
    """Return the command line with options by their present names, and print those by earlier ones."""
    if not any(present_word(word) != word for word in arguments.overrides):
        return arguments  # composing takes a moment
    with _loaded(arguments.config_dir):
        return replace(arguments, overrides=tuple(_present(arguments.primary, arguments.overrides)))


def _present(verb: str, overrides: Sequence[str]) -> list[str]:
    """Return the overrides with present names, except for options of the user's own parts by these names."""
    words = [present_word(word) for word in overrides]
    if words == list(overrides):
        return words
    try:
        groups = _groups(_compose(verb, []))
        cfg = _compose(verb, [word for word in words if _key_and_value(word)[0] in groups])
    except COMPOSITION_ERRORS:  # explained later
        cfg = OmegaConf.create()
    for number, (old, new) in enumerate(zip(overrides, words, strict=True)):
        (key, value), (present_key, present_value) = map(_key_and_value, (old, new))
        if key != present_key and has_key(cfg, key):
            words[number] = old
        elif old != new:
            tell(*((key, present_key) if key != present_key else (value, present_value)))
    return words


def _key_and_value(word: str) -> tuple[str, str]:
    key, _, value = word.lstrip("+~").partition("=")
    return key, value


def explain(arguments: Arguments, error: Exception) -> dict[str, str]:
    """Explain why Hydra could not compose, with a problem for each wrong override, by that override.

    If no override is wrong, the only problem is Hydra's own message, with the key "".
    """
    with _loaded(arguments.config_dir):
        try:
            problems = _override_problems(arguments.primary, arguments.overrides)
            if not arguments.multirun:
                problems = _sweep_problems(arguments.primary, arguments.overrides) | problems
            return problems or {"": _cleaned(error)}
        except COMPOSITION_ERRORS:  # no override is wrong, but the files are
            return {"": _cleaned(error)}


def _sweep_problems(verb: str, overrides: Sequence[str]) -> dict[str, str]:
    """Return the problem of each override with several values, which need -m."""
    sweeps = [override for override in _parse_overrides(overrides)[0] if override.is_sweep_override()]
    cfg = _compose(verb, []) if sweeps else OmegaConf.create()
    problems = {}
    for override in sweeps:
        word, key = _word(override), override.key_or_group
        is_list = isinstance(OmegaConf.select(cfg, key, throw_on_missing=False), ListConfig)
        listed = f"{key}={as_list(word.partition('=')[2])}"
        brackets = f"A list has brackets: {shlex.quote(listed)}. " if is_list else ""
        problems[word] = f"{word}: several values. {brackets}With -m it runs once for each of them."
    return problems


def composed(verb: str, words: Sequence[str]) -> DictConfig:
    """Compose configs/<verb>.yaml with overrides, in a command that Hydra runs.

    Raises:
        ConfigError: overrides are wrong; lists the problems.
    """
    overrides = _present(verb, [repaired(word, verb=verb, multirun=False) for word in words])
    try:
        return compose(verb, overrides=overrides)
    except COMPOSITION_ERRORS as error:
        problems = _override_problems(verb, overrides) or {"": _cleaned(error)}
        raise ConfigError([*problems.values()]) from error


def composed_with_choices(arguments: Arguments) -> tuple[dict[str, Any], dict[str, str | None]]:
    """Compose as the command would; return the options, with interpolations as written, and chosen groups.

    Raises:
        ConfigError: overrides or files are wrong; lists the problems.
    """
    with _loaded(arguments.config_dir):
        try:
            cfg = _compose(arguments.primary, [*arguments.overrides])
        except COMPOSITION_ERRORS as error:
            problem = _cleaned(error)
        else:
            choices = dict(cfg.hydra.runtime.choices)
            return cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=False)), choices
    raise ConfigError([*explain(arguments, COMPOSITION_ERRORS[0](problem)).values()])


def _override_problems(verb: str, overrides: Sequence[str]) -> dict[str, str]:
    parsed, unparsed = _parse_overrides(overrides)
    default = _compose(verb, [])
    groups = _groups(default)
    choices = [override for override in parsed if override.key_or_group in groups]
    problems = {word: problem for word, problem in zip(overrides, unparsed, strict=True) if problem}
    problems |= {_word(o): problem for o in choices if (problem := _group_problem(o, groups))}
    chosen = [_word(o) for o in choices if not o.is_sweep_override() and _word(o) not in problems]
    cfg = _compose(verb, chosen) if chosen else default
    keys = [override for override in parsed if override not in choices]
    problems |= {_word(o): problem for o in keys if (problem := _key_problem(o, cfg, groups))}
    return problems


def _word(override: Override) -> str:
    return str(override.input_line)


def _require_harmless(parsed: argparse.Namespace) -> None:
    """Raise ConfigError for flags that would run code, or name a missing folder."""
    if parsed.experimental_rerun is not None:
        raise ConfigError(
            [
                f"--experimental-rerun {parsed.experimental_rerun}: refused: it would run any code that the "
                "file holds. Repeat the overrides of the run instead: overrides.txt in its folder"
            ]
        )
    if parsed.shell_completion:
        raise ConfigError(["--shell-completion: detector completion bash (or zsh, fish) prints the script"])
    for flag, folder in (("--config-dir", parsed.config_dir), ("--config-path", parsed.config_path)):
        if folder is not None and not Path(folder).is_dir():
            raise ConfigError(
                [f"{flag} {folder}: there is no such folder (looked for {Path(folder).absolute()})"]
            )


def _allowed_targets(overrides: Sequence[str]) -> tuple[str, ...]:
    """Return the list of the override allow_targets; empty if it is absent or not a list."""
    parsed, _ = _parse_overrides(
        [word for word in overrides if word.lstrip("+").startswith("allow_targets=")]
    )
    values = [override.value() for override in parsed]
    return tuple(str(name) for value in values[-1:] if isinstance(value, list) for name in value)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError([message])


def _compose(verb: str, overrides: list[str]) -> DictConfig:
    return compose(verb, overrides=overrides, return_hydra_config=True)


def _explain_dashes(
    option: str, words: Sequence[str], cfg: DictConfig, groups: Mapping[str, Sequence[str]]
) -> str:
    name, _, value = option.lstrip("-").partition("=")
    if not value:
        following = list(words)[list(words).index(option) + 1 :]
        value = following[0] if following and not following[0].startswith("-") else "..."
    hint = advice(name, value, cfg, groups)
    return f"{option}: options are written key=value, without dashes.{f' {hint}' if hint else ''}"


def _require_pairs(verb: str, overrides: Sequence[str]) -> None:
    """Raise ConfigError for words without a key or a value, mostly from `key = value`."""
    padded = ["", *overrides, ""]
    problems = []
    for before, word, after in zip(padded, overrides, padded[2:], strict=False):
        if word == "=":
            problems.append(f"{before} = {after}: write it without spaces: {before}={after}")
        elif word.startswith("="):
            problems.append(f"{before} {word}: write it without spaces: {before}{word}")
        elif word.endswith("=") and after and "=" not in after:
            problems.append(f"{word} {after}: write it without spaces: {word}{after}")
    if not problems:
        lone = [word for word in overrides if "=" not in word and not word.startswith("~")]
        problems = [f"{word}: expected key=value" for word in lone]
        advised_words = lone_words(verb, lone) if lone else None
        if advised_words:
            problems = [f"{' '.join(lone)}: expected key=value. {advised_words}."]
    if problems:
        raise ConfigError(problems)


def _parse_overrides(overrides: Sequence[str]) -> tuple[list[Override], list[str | None]]:
    """Return the overrides that parse, and for each word the reason why it does not, or None."""
    parser = OverridesParser.create()
    parsed: list[Override] = []
    problems: list[str | None] = []
    for word in overrides:
        try:
            parsed.append(parser.parse_override(word))
            problems.append(None)
        except HydraException as error:
            problems.append(_syntax_problem(word, error))
    return parsed, problems


def _syntax_problem(word: str, error: Exception) -> str:
    key, _, value = word.partition("=")
    if value == "~" or value.startswith("~/"):
        home = Path(value).expanduser()
        return f"{word}: the shell does not expand ~ after =. Write {key}={home} or {key}=$HOME{value[1:]}"
    if value.startswith("~"):  # a user's home, or a file of this name
        return (
            f"{word}: ~ is not expanded here. Write the path out; of a file that begins so, {key}=./{value}"
        )
    if re.search(r"[=:,()~{}\[\]]", value):
        return f"{word}: a value with special characters is quoted twice: '{key}=\"{value}\"'"
    return f"{word}: not understood: {_cleaned(error)}"


def _groups(default: DictConfig) -> dict[str, list[str]]:
    """Return the groups of a verb with their choices, including those inside a choice that is not chosen.

    `default` is the verb's configuration without overrides.
    """
    loader = GlobalHydra.instance().config_loader()
    groups = {g: loader.get_group_options(g) for g in default.hydra.runtime.choices}
    pending = [g for g in loader.list_groups("") if g != "hydra" and g in groups]
    while pending:
        group = pending.pop()
        groups[group] = loader.get_group_options(group)
        pending += [f"{group}/{inner}" for inner in loader.list_groups(group)]
    return groups


def _group_problem(override: Override, groups: dict[str, list[str]]) -> str | None:
    group, options = override.key_or_group, groups[override.key_or_group]
    for choice in _choices(override):
        if choice is not None and choice not in options:
            suggestion = closest(choice.lower(), options)
            if suggestion and re.sub(r"\D", "", suggestion) != re.sub(r"\D", "", choice):
                suggestion = None  # another depth or version is not a typo
            hint = f" Did you mean {group}={suggestion}?" if suggestion else ""
            if own := own_file(group, choice):
                return f"{group}={choice}: there is no {group}/{choice}.yaml. {own}."
            listing = f" There are: {', '.join(options)}." if options else ""
            if group == "hydra/launcher" and choice in _OF_SLURM:
                listing += " It comes with an extra: pip install 'detector[slurm]'"
            return f"{group}={choice}: there is no {group}/{choice}.yaml.{hint}{listing}"
    return None


def _choices(override: Override) -> list[str | None]:
    if override.is_delete() or isinstance(override.value(), Glob):  # a glob matches existing files only
        return []
    if override.is_sweep_override():
        return [text if text != "null" else None for text in override.sweep_string_iterator()]
    value = override.value()
    return [None if v is None else str(v) for v in (value if isinstance(value, list) else [value])]


def _key_problem(override: Override, cfg: DictConfig, groups: dict[str, list[str]]) -> str | None:
    key, word = override.key_or_group, _word(override)
    if override.is_add() or override.is_force_add() or key.startswith("hydra"):
        return None
    if "/" in key:
        dotted = key.replace("/", ".")
        config_groups = [group for group in groups if not group.startswith("hydra")]
        suggestion = dotted if has_key(cfg, dotted) else closest(key, config_groups)
        return f"{word}: there is no group {key}.{f' Did you mean {suggestion}=...?' if suggestion else ''}"
    if has_key(cfg, key) and not (is_mapping(cfg, key) and not override.is_delete() and key in WORDS):
        return None
    if key in MOVED:
        return f"{word}: {key} is {MOVED[key]} now. Write {MOVED[key]}={word.partition('=')[2]}"
    hint = advice(key, word.partition("=")[2], cfg, groups) or "See --help for all options."
    return f"{key}: there is no such option. {hint}"


def _cleaned(error: Exception) -> str:
    """Return Hydra's message without its advice to add the unknown key."""
    lines = [line.strip() for line in f"{error}\n{error.__cause__ or ''}".splitlines()]
    return " ".join(dict.fromkeys(line for line in lines if line and not line.startswith("To append")))

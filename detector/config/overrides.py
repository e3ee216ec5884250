"""Mistakes on the command line, in the user's terms. Only called when there is one."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser  # Hydra has no public one; hydra-core is pinned below 1.4
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from detector.config.errors import ConfigError, closest
from detector.config.paths import config_dir


def flags_first(verb: str, arguments: Sequence[str]) -> list[str]:
    """The arguments with Hydra's flags before the overrides: its parser fails on `seed=0,1 -m model=fcos`.

    Words with dashes that are none of its flags raise ConfigError, each with the override that was meant.
    """
    parsed, unknown = _parse(arguments)
    if unknown:
        with _loaded(arguments):
            known = _known_keys(_compose(verb, []))
        raise ConfigError([_explain_dashes(option, arguments, known) for option in unknown])
    flags = list(arguments)
    for override in parsed.overrides:
        flags.remove(override)
    return [*flags, *parsed.overrides]


def explain(verb: str, arguments: Sequence[str], error: Exception) -> list[str]:
    """Why Hydra could not compose: a problem for each wrong override; its own words when none is found."""
    overrides = _parse(arguments)[0].overrides
    if problems := _spaced_problems(overrides):
        return problems
    with _loaded(arguments):
        parsed, problems = _parse_overrides(overrides)
        groups = _groups(verb)
        chosen = [o for o in parsed if _is_group(o, groups)]
        wrong = [p for o in chosen if (p := _group_problem(o, groups))]
        fine = [
            str(o.input_line) for o in chosen if not _group_problem(o, groups) and not o.is_sweep_override()
        ]
        try:
            cfg = _compose(verb, fine)
        except (HydraException, OmegaConfBaseException):
            return problems + wrong or [_cleaned(error)]
        keys = [o for o in parsed if o not in chosen]
        problems += wrong + [p for o in keys if (p := _key_problem(o, cfg, groups))]
    return problems or [_cleaned(error)]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError([message])


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = get_args_parser()
    parser.__class__ = _Parser
    return parser.parse_known_intermixed_args(list(arguments))


@contextmanager
def _loaded(arguments: Sequence[str]) -> Iterator[None]:
    folder = _parse(arguments)[0].config_dir
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        if folder:
            path = GlobalHydra.instance().config_loader().get_search_path()
            path.prepend(provider="command-line", path=f"file://{Path(folder).absolute()}")
        yield


def _compose(verb: str, overrides: list[str]) -> DictConfig:
    return compose(verb, overrides=overrides, return_hydra_config=True)


def _known_keys(cfg: DictConfig) -> list[str]:
    return [key for key in _flat(cfg) if not key.startswith("hydra.")]


def _flat(cfg: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in map(str, cfg):
        yield prefix + key
        if not OmegaConf.is_missing(cfg, key) and not OmegaConf.is_interpolation(cfg, key):
            value = cfg[key]
            if isinstance(value, DictConfig):
                yield from _flat(value, f"{prefix}{key}.")


def _explain_dashes(option: str, arguments: Sequence[str], known: Sequence[str]) -> str:
    name, _, value = option.lstrip("-").partition("=")
    name = name.replace("-", "_")
    if not value:
        following = list(arguments)[list(arguments).index(option) + 1 :]
        value = following[0] if following and "=" not in following[0] else "..."
    meant = _suggest(name, known)
    hint = f" Did you mean {meant}={value}?" if meant else ""
    return f"{option}: options are written key=value, without dashes.{hint}"


def _suggest(key: str, known: Sequence[str]) -> str | None:
    """The key that was meant: one with the same last part, else a similar one, whole or in its last part."""
    ends: dict[str, str] = {}
    for name in known:
        ends.setdefault(name.rpartition(".")[2], name)
    last = key.rpartition(".")[2]
    same_end = [name for name in known if name.rpartition(".")[2] == last]
    if same_end:
        return closest(key, same_end) or same_end[0]
    if match := closest(key, known):
        return match
    return ends[end] if (end := closest(last, ends)) else None


def _spaced_problems(overrides: Sequence[str]) -> list[str]:
    """Words without a key or a value: mostly what is left of `key = value`."""
    problems = []
    for i, word in enumerate(overrides):
        before, after = overrides[i - 1] if i else "", overrides[i + 1] if i + 1 < len(overrides) else ""
        if word == "=":
            problems.append(f"{before} = {after}: write it without spaces: {before}={after}")
        elif word.startswith("="):
            problems.append(f"{before} {word}: write it without spaces: {before}{word}")
        elif word.endswith("=") and after and "=" not in after:
            problems.append(f"{word} {after}: write it without spaces: {word}{after}")
    if problems:
        return problems
    return [
        f"{word}: expected key=value" for word in overrides if "=" not in word and not word.startswith("~")
    ]


def _parse_overrides(overrides: Sequence[str]) -> tuple[list[Override], list[str]]:
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    parsed, problems = [], []
    for word in overrides:
        try:
            parsed.append(parser.parse_override(word))
        except HydraException as error:
            problems.append(_syntax_problem(word, error))
    return parsed, problems


def _syntax_problem(word: str, error: Exception) -> str:
    key, _, value = word.partition("=")
    if value.startswith("~"):
        home = Path(value).expanduser()
        return f"{word}: the shell does not expand ~ after =. Write {key}={home} or {key}=$HOME{value[1:]}"
    if re.search(r"[=:,()~{}\[\]]", value):
        return f"{word}: a value with special characters is quoted twice: '{key}=\"{value}\"'"
    return f"{word}: not understood: {_cleaned(error)}"


def _groups(verb: str) -> dict[str, list[str]]:
    """All groups with their choices, those included that only the defaults list names."""
    loader = GlobalHydra.instance().config_loader()
    groups: dict[str, list[str]] = {group: [] for group in _compose(verb, []).hydra.runtime.choices}
    pending = [g for g in loader.list_groups("") if g != "hydra"]
    while pending:
        group = pending.pop()
        groups[group] = loader.get_group_options(group)
        pending += [f"{group}/{inner}" for inner in loader.list_groups(group)]
    return groups


def _is_group(override: Override, groups: dict[str, list[str]]) -> bool:
    return override.key_or_group in groups


def _group_problem(override: Override, groups: dict[str, list[str]]) -> str | None:
    group, options = override.key_or_group, groups[override.key_or_group]
    for choice in _choices(override):
        if choice is not None and choice not in options:
            meant = closest(choice, options)
            hint = f" Did you mean {group}={meant}?" if meant else ""
            there = f" There are: {', '.join(options)}." if options else ""
            return f"{group}={choice}: there is no {group}/{choice}.yaml.{hint}{there}"
    return None


def _choices(override: Override) -> list[str | None]:
    if override.is_delete():
        return []
    if override.is_sweep_override():
        return [text if text != "null" else None for text in override.sweep_string_iterator()]
    value = override.value()
    return [None if v is None else str(v) for v in (value if isinstance(value, list) else [value])]


def _key_problem(override: Override, cfg: DictConfig, groups: dict[str, list[str]]) -> str | None:
    key, word = override.key_or_group, str(override.input_line)
    if override.is_add() or override.is_force_add() or key.startswith("hydra"):
        return None
    if "/" in key:
        dotted = key.replace("/", ".")
        meant = (
            dotted if _has(cfg, dotted) else closest(key, [g for g in groups if not g.startswith("hydra")])
        )
        return f"{word}: there is no group {key}.{f' Did you mean {meant}=...?' if meant else ''}"
    if _has(cfg, key):
        return None
    meant = _suggest(key, [*_known_keys(cfg), *groups])
    hint = f" Did you mean {meant}?" if meant else " See --cfg job for all options."
    return f"{key}: there is no such option.{hint}"


def _has(cfg: DictConfig, key: str) -> bool:
    head, _, rest = key.partition(".")
    if not isinstance(cfg, DictConfig) or head not in list(cfg):
        return False
    return not rest or _has(cfg._get_node(head), rest)  # type: ignore[arg-type]  # _get_node resolves nothing


def _cleaned(error: Exception) -> str:
    """Hydra's message without its advice to add the unknown key."""
    lines = [line.strip() for line in f"{error}\n{error.__cause__ or ''}".splitlines()]
    return " ".join(dict.fromkeys(line for line in lines if line and not line.startswith("To append")))

"""The configuration in a checkpoint, with names of environment variables instead of their values."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

from detector.config.check import check
from detector.config.errors import ConfigError
from detector.config.plain import resolved

_FREE_TEXTS = {"root", "annotations", "images", "weights", "output_dir", "name", "resume"}
_READ = re.compile(r"\$\{oc\.env:([^,{}]+)(?:,([^{}]*))?\}")


def without_environment(cfg: DictConfig) -> dict[str, Any]:
    """Resolve `cfg`, but keep text from the environment as written: "${oc.env:DATA}/images".

    Checkpoints are shared, and values of the environment may be private. This applies to paths and names;
    other options keep their values, without which nothing could be built. In the model only the files of
    its initial weights are such paths.
    """
    with _environment_by_name():
        named = _leniently(cfg)
    return {
        key: _merged(value, named.get(key), key, is_model=key == "model")
        for key, value in resolved(cfg).items()
    }


def check_stored(
    parts: Mapping[str, Any], kind: Callable[..., Any], *, source: str, other: str = "checkpoint"
) -> None:
    """Check parts of a stored configuration against the dataclass `kind`.

    Raises:
        ConfigError: the parts have problems; lists them in one sentence that begins with the file `source`.
    """
    try:
        check(dict(parts), kind)
    except ConfigError as error:
        problems = "; ".join(problem.rstrip(".") for problem in error.problems[:5])
        more = f"; and {len(error.problems) - 5} more" if len(error.problems) > 5 else ""
        raise ConfigError(
            [
                f"{source}: its configuration is not one of this version of detector: {problems}{more}. "
                f"Use the version that wrote it, or another {other}"
            ]
        ) from error


def with_environment(path: str, *, option: str) -> str:
    """Return a stored path with the variables in it replaced by their present values.

    Raises:
        ValueError: a variable is not set. The message names `option`, which gives the path instead.
    """

    def value(match: re.Match[str]) -> str:
        text = os.environ.get(match[1].strip(), match[2])
        if text is None:
            raise ValueError(
                f"{option} was {path} in training, and {match[1]} is not set here: checkpoints keep no "
                f"values of the environment. Give {option}=..."
            )
        return text

    return _READ.sub(value, path)


@contextmanager
def _environment_by_name() -> Iterator[None]:
    """Within this context, make OmegaConf's `oc.env` resolver return its own interpolation text."""

    def name(variable: str, default: object = None) -> str:
        return f"${{oc.env:{variable}}}" if default is None else f"${{oc.env:{variable},{default}}}"

    OmegaConf.register_new_resolver("oc.env", name, replace=True)
    try:
        yield
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)


def _leniently(value: Any) -> Any:
    """Resolve as far as possible; a value computed from a variable cannot be resolved, and is None."""
    if isinstance(value, DictConfig):
        return {str(key): _leniently(_item(value, key)) for key in value}
    if isinstance(value, ListConfig):
        return [_leniently(_item(value, index)) for index in range(len(value))]
    return value


def _item(container: DictConfig | ListConfig, key: Any) -> Any:
    try:
        return container[key]
    except OmegaConfBaseException:
        return None


def _merged(value: Any, named: Any, key: str, *, is_model: bool) -> Any:
    """Return the `value` of an option, or `named` if the option is a path or a name."""
    if isinstance(value, dict):
        inside = named if isinstance(named, dict) else {}
        return {k: _merged(v, inside.get(k), k, is_model=is_model) for k, v in value.items()}
    if isinstance(value, list):
        others = named if isinstance(named, list) and len(named) == len(value) else [None] * len(value)
        return [_merged(v, n, key, is_model=is_model) for v, n in zip(value, others, strict=True)]
    is_free = key == "weights" or (key in _FREE_TEXTS and not is_model)
    return named if is_free and isinstance(value, str) and isinstance(named, str) else value

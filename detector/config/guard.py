"""A guard on what Hydra itself builds from a configuration before a command runs: shipped parts only.

Hydra builds the callbacks, launchers, sweepers and logging that any configuration file names, before our own
check of `_target_` (see `targets`) can run. So every configuration is checked when it is composed: parts that
are not shipped are refused, unless the user's own command line allows them.
"""

from __future__ import annotations

import copy
import importlib
import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

from hydra._internal import hydra as hydra_module  # Hydra has no public place for it; pinned below 1.4
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.default_element import GroupDefault, ResultDefault
from hydra.core.override_parser.types import Override
from hydra.errors import ConfigCompositionException, HydraException
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, Node, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from detector.config.errors import ConfigError
from detector.config.paths import config_dir
from detector.config.targets import is_among
from detector.earlier import present_key, renamed, tell

_SHIPPED_TARGETS = {
    "launcher": (
        "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
        "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
        "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher",
        "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher",
    ),
    "sweeper": ("hydra._internal.core_plugins.basic_sweeper.BasicSweeper",),
    "callbacks": (),
}
_HYDRAS_OWN_PATHS = ("pkg://hydra.conf", "structured://")
_LOGGING = ("hydra_logging", "job_logging")
_HANDLERS = ("logging.StreamHandler", "logging.FileHandler", "logging.NullHandler", "logging.Formatter")
_STREAMS = ("ext://sys.stdout", "ext://sys.stderr")
_LOG_FILES = ("${hydra.runtime.output_dir}/${hydra.job.name}.log", "hydra-${hydra.job.name}.log")
_RUN_BY_A_SHELL = ("setup", "additional_parameters", "python", "srun_args")  # options of submitit's launchers


@contextmanager
def guarded(typed: Sequence[str], allowed: Sequence[str]) -> Iterator[None]:
    """Within this context, refuse to compose configurations that make Hydra build parts not shipped.

    `typed` are the overrides of the command line, `allowed` the targets among them that the user allows.
    """
    _import_plugins()
    before = hydra_module.ConfigLoaderImpl
    loader = partial(_GuardedLoader, typed=tuple(typed), allowed=tuple(allowed))
    setattr(hydra_module, "ConfigLoaderImpl", loader)  # noqa: B010  # no type checker lets a class be replaced
    try:
        yield
    finally:
        setattr(hydra_module, "ConfigLoaderImpl", before)  # noqa: B010


def _import_plugins() -> None:
    """Make Hydra find installed plugins only, not a folder hydra_plugins in the working directory.

    `python -m detector` puts that folder first on the path.
    """
    here = ("", os.getcwd())
    before = list(sys.path)
    sys.path[:] = [folder for folder in sys.path if folder not in here]
    try:
        plugins = importlib.import_module("hydra_plugins")
        plugins.__path__ = list(plugins.__path__)  # a namespace package's path follows sys.path
    except ModuleNotFoundError:
        pass  # none is installed
    finally:
        sys.path[:] = before


class _GuardedLoader(ConfigLoaderImpl):
    """Hydra's loader, restricted to configurations whose parts are safe to build.

    It is pickled with the jobs of launchers, hence it holds what the user typed.
    """

    def __init__(self, *, config_search_path: Any, typed: Sequence[str], allowed: Sequence[str]) -> None:
        super().__init__(config_search_path=config_search_path)
        self._typed, self._allowed = typed, allowed
        self.repository = _PresentGroups(config_search_path=config_search_path)

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        # Without the validation, Hydra asks for `hydra.mode` alone, which no shipped file sets.
        if not validate_sweep_overrides and self._is_of_shipped_files():
            return OmegaConf.create({"hydra": {"mode": None}})
        try:
            cfg = super().load_configuration(
                config_name, overrides, run_mode, from_shell, validate_sweep_overrides
            )
        except (ConfigError, HydraException):
            raise
        except OSError as error:
            raise ConfigError([f"{error.filename}: {error.strerror}. Choose another name."]) from error
        except ValueError as error:  # of a group whose choice is a number or null
            raise ConfigCompositionException(
                f"{error}. A group takes the name of one of its choices: group=choice"
            ) from error
        except (AttributeError, TypeError) as error:  # Hydra expects its own node to be complete
            raise ConfigError(
                [f"a file of the configuration sets hydra, or a part of it, not to a mapping ({error})"]
            ) from error
        problems = list(hydra_problems(cfg.hydra, typed=self._typed, allowed=self._allowed))
        if problems:
            raise ConfigError(list(dict.fromkeys(problems)))
        return cfg

    def _is_of_shipped_files(self) -> bool:
        """Return whether neither a folder nor an option of Hydra is the user's own."""
        if any(re.match(r"[+~]*hydra[.=]", override) for override in self._typed):
            return False
        paths = [element.path for element in self.config_search_path.get_path()]
        return {path.removeprefix("file://") for path in paths} <= {str(config_dir()), *_HYDRAS_OWN_PATHS}

    def _load_single_config(self, default: ResultDefault, repo: Any) -> ConfigResult:
        """Load a file, with options of the user's own files by their present names."""
        loaded = super()._load_single_config(default, repo)
        path = str(default.config_path)
        if isinstance(loaded.config, DictConfig) and not path.startswith("hydra/"):
            written = cast(dict[str, Any], OmegaConf.to_container(loaded.config, resolve=False))
            present, changed = renamed(written)
            for old, new in changed.items():
                tell(old, new, where=f"{path}.yaml")
            if changed:
                loaded = copy.copy(loaded)
                loaded.config = OmegaConf.create(present)
        return loaded

    def _process_config_searchpath(
        self, config_name: str | None, parsed_overrides: list[Override], repo: Any
    ) -> None:
        """Refuse packages in the search path, which Hydra imports before anything is composed."""
        loaded = None if config_name is None else repo.load_config(config_path=config_name)
        paths = [o.value() for o in parsed_overrides if o.get_key_element() == "hydra.searchpath"]
        if loaded is not None and OmegaConf.is_dict(loaded.config):
            paths.append(OmegaConf.select(loaded.config, "hydra.searchpath"))
        for path in (path for folders in paths if isinstance(folders, list | ListConfig) for path in folders):
            scheme, separator, _ = str(path).partition("://")
            if separator and scheme != "file":
                raise ConfigError(
                    [f"hydra.searchpath: {path}: expected file://FOLDER; a package would be imported"]
                )
        super()._process_config_searchpath(config_name, parsed_overrides, repo)


class _PresentGroups(ConfigRepository):
    """The files of a search path, whose defaults lists name groups by their present names."""

    def load_config(self, config_path: str) -> ConfigResult | None:
        result = super().load_config(config_path)
        for default in (result.defaults_list or []) if result else []:
            if isinstance(default, GroupDefault) and default.group:
                old = default.group.lstrip("/")
                if (new := present_key(old)) != old:
                    default.group = default.group.replace(old, new)
                    tell(old, new, where=f"{config_path}.yaml")
        return result


def hydra_problems(hydra: DictConfig, *, typed: Sequence[str], allowed: Sequence[str]) -> Iterator[str]:
    """Yield the entries of the node `hydra` that would run code neither shipped nor typed by the user."""
    for key, shipped in _SHIPPED_TARGETS.items():
        for path, value, _ in _leaves(hydra, key, "hydra"):
            if path.endswith("._target_"):
                if value is not None and value not in shipped and not is_among(value, allowed):
                    yield _refused(path, value)
            elif value is _UNKNOWN:
                yield _unclear(path)
    for key in _LOGGING:
        yield from _logging_problems(_leaves(hydra, key, "hydra"), allowed)
    yield from _command_problems(hydra, typed)


def _logging_problems(leaves: Iterable[tuple[str, Any, Any]], allowed: Sequence[str]) -> Iterator[str]:
    for inner, value, raw in leaves:
        name = inner.rpartition(".")[2].partition("[")[0]
        if name in ("()", "class", "_target_"):
            shipped = _HANDLERS if name == "class" else ()
            if value not in shipped and not is_among(value, allowed):
                yield _refused(inner, value)
        elif name == "filename" and raw not in _LOG_FILES:
            yield f"{inner} = {raw}: a configuration may not choose the file of a log. Leave it out"
        elif value is _UNKNOWN:
            yield _unclear(inner)
        elif isinstance(value, str) and value.startswith(("ext://", "cfg://")) and value not in _STREAMS:
            yield f"{inner} = {value}: expected one of {', '.join(_STREAMS)}"


def _command_problems(hydra: DictConfig, typed: Sequence[str]) -> Iterator[str]:
    """Yield entries passed to a shell or other programs that are not from the command line."""
    for path, value, _ in _leaves(hydra.job, "env_set", "hydra.job"):
        name = path.removeprefix("hydra.job.env_set.")
        if os.environ.get(name) != value and not _is_typed(path, typed):
            yield _only_typed(path, value)
    for path, value, _ in _leaves(hydra, "launcher", "hydra"):
        key = re.split(r"[.\[]", path)[2]
        lines = isinstance(value, str) and "\n" in value  # lines of a script for sbatch
        is_run = value is not None and (key in _RUN_BY_A_SHELL or lines)
        if is_run and not _is_typed(f"hydra.launcher.{key}", typed):
            yield _only_typed(path, value)


def _is_typed(path: str, typed: Sequence[str]) -> bool:
    keys = [word.lstrip("+").partition("=")[0] for word in typed]
    return any(path == key or path.startswith(f"{key}.") or key.startswith(f"{path}.") for key in keys)


def _only_typed(path: str, value: Any) -> str:
    key = path.partition("[")[0]
    return (
        f"{path} = {value}: a file may not set what other programs run or get. Give it on the command line: "
        f"{key}=..."
    )


def _refused(path: str, value: Any) -> str:
    if value is _UNKNOWN:
        return _unclear(path)
    return (
        f"{path} = {value}: not allowed: Hydra would call it before anything is checked; allow it with "
        f"{shlex.quote(f'+allow_targets=[{value}]')}"
    )


def _unclear(path: str) -> str:
    return f"{path}: its interpolation cannot be resolved here, so not be checked. Write it out"


_UNKNOWN: Any = object()


def _leaves(container: DictConfig | ListConfig, key: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield dotted path, value and value before interpolation of every scalar below `key`.

    _UNKNOWN stands for an interpolation that resolves only later, and could then be anything; with text
    around it, it will be a string.
    """
    inner = f"{path}[{key}]" if isinstance(container, ListConfig) else f"{path}.{key}"
    node = container._get_node(key)  # resolves nothing
    raw = node._value() if isinstance(node, Node) else node
    if isinstance(node, Node) and node._is_missing():
        return
    try:
        value = container[key]
    except OmegaConfBaseException:
        is_interpolation = isinstance(raw, str) and raw.startswith("${") and raw.endswith("}")
        yield inner, _UNKNOWN if is_interpolation else raw, raw
        return
    if isinstance(value, DictConfig | ListConfig) and not value._is_none():
        keys = range(len(value)) if isinstance(value, ListConfig) else list(value)
        for name in keys:
            yield from _leaves(value, name, inner)
    else:
        yield inner, None if isinstance(value, DictConfig | ListConfig) else value, raw

"""The `detector` command: a verb, then overrides of that verb's configuration in Hydra's grammar.

Nothing heavy is imported before it is known that there is something to do.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from detector import __version__

if TYPE_CHECKING:
    from omegaconf import DictConfig

FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130


@dataclass(frozen=True)
class Verb:
    """`name` is also that of configs/<name>.yaml; `module` has run(cfg) and perhaps Options."""

    name: str
    module: str
    summary: str


VERBS = {
    verb.name: verb
    for verb in (
        Verb("train", "detector.commands.train", "train a detector; with no override on generated data"),
        Verb("evaluate", "detector.commands.evaluate", "COCO metrics of a checkpoint or a results file"),
        Verb("info", "detector.commands.info", "parameters, layers and cost of a model"),
    )
}


def main() -> int:
    """Run what `sys.argv` says; returns the exit code: 0, 1 (failed), 2 (wrong use), 130 (Ctrl-C)."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if "--version" in arguments:
        print(f"detector {__version__}")
        return 0
    if arguments[0] not in VERBS:
        print(unknown_verb(arguments[0]), file=sys.stderr)
        return WRONG_USE
    try:
        return run_verb(VERBS[arguments[0]], arguments[1:])
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return INTERRUPTED


def usage() -> str:
    verbs = "\n".join(f"  {verb.name:<10} {verb.summary}" for verb in VERBS.values())
    return f"""detector {__version__}: object detection with deformable convolution, on COCO-format data

usage: detector VERB [key=value ...]

{verbs}

detector VERB --help lists the options of a verb, detector VERB --cfg job prints its configuration.
"""


def unknown_verb(word: str) -> str:
    if word.startswith("-") or "=" in word:
        return f"detector: the verb comes first: detector VERB {word} ... Verbs: {', '.join(VERBS)}"
    match = difflib.get_close_matches(word, VERBS, n=1)
    hint = f"Did you mean {match[0]}?" if match else f"Verbs: {', '.join(VERBS)}"
    return f"detector: there is no verb {word!r}. {hint}"


def run_verb(verb: Verb, arguments: Sequence[str]) -> int:
    """Compose the verb's configuration with the overrides, check it, run the command: once for each job."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from detector.config import ConfigError
    from detector.config.overrides import explain, flags_first

    job = _Job(verb, list(sys.argv))
    try:
        _hydra_main(job, flags_first(verb.name, arguments))
    except ConfigError as error:
        return _report(error)
    except (HydraException, OmegaConfBaseException) as error:
        return _report(ConfigError(explain(verb.name, arguments, error)))
    return job.exit_code


def _hydra_main(job: _Job, arguments: Sequence[str]) -> None:
    import hydra

    from detector.config import config_dir

    app = hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=job.verb.name)(job)
    # Hydra reads sys.argv, and prints the errors that we want to explain unless this variable is set.
    with _environment(HYDRA_FULL_ERROR="1"):
        name = job.verb.name
        named = [f"hydra.job.name={name}", f"hydra.help.app_name=detector {name}"]
        sys.argv = [job.argv[0], *arguments, *named]
        try:
            app()
        finally:
            sys.argv = job.argv


class _Job:
    """What Hydra calls with each composed configuration. An error ends its job, not the others of a sweep."""

    def __init__(self, verb: Verb, argv: list[str]) -> None:
        self.verb = verb
        self.argv = argv
        self.exit_code = 0

    def __call__(self, cfg: DictConfig) -> None:
        sys.argv = self.argv  # Lightning starts the other ranks of a distributed run with it
        with _environment(HYDRA_FULL_ERROR=None):
            try:
                self._run(cfg)
            except Exception as error:
                self.exit_code = max(self.exit_code, _report(error))

    def _run(self, cfg: DictConfig) -> None:
        from detector.config import allowing, check

        _number_output_dir(cfg)
        with allowing(cfg.get("allow_targets") or ()):
            command = importlib.import_module(self.verb.module)
            check(cfg, getattr(command, "Options", None))
            command.run(cfg)


def _number_output_dir(cfg: DictConfig) -> None:
    """The jobs of a sweep share no folder: each gets its number in the output_dir of the sweep."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra_cfg = HydraConfig.get()
    if hydra_cfg.mode == RunMode.MULTIRUN and "output_dir" in cfg:
        cfg.output_dir = os.path.join(cfg.output_dir, str(hydra_cfg.job.num))


def _report(error: Exception) -> int:
    """Tell the user; a mistake of theirs without traceback. Returns the exit code."""
    if _is_users(error):
        print(f"detector: {error}", file=sys.stderr)
        return WRONG_USE
    traceback.print_exception(error)
    return FAILED


def _is_users(error: Exception) -> bool:
    """A ValueError (or a file that is not there) raised by our own code; any other may be a bug of ours."""
    if not isinstance(error, ValueError | FileNotFoundError):
        return False
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return not frames or str(frames[-1].f_globals.get("__name__", "")).startswith("detector.")


@contextmanager
def _environment(**variables: str | None) -> Iterator[None]:
    """Inside, the environment variables have these values; None removes one."""
    before: dict[str, Any] = {name: os.environ.get(name) for name in variables}
    _set_environment(variables)
    try:
        yield
    finally:
        _set_environment(before)


def _set_environment(variables: dict[str, Any]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value

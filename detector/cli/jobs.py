"""Running a verb, once or for each job of a sweep.

The configuration is composed and checked, its options are built, and the command is called.
"""

from __future__ import annotations

import importlib
import os
import shlex
import sys
import tempfile
import traceback
import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig

from detector.cli.allocator import keep_freed_memory
from detector.cli.early import early_problems
from detector.cli.help import verb_help
from detector.cli.resuming import with_resumed
from detector.config.annotations import annotations_of
from detector.config.build import bind
from detector.config.check import ALLOW_TARGETS, check
from detector.config.errors import ConfigError
from detector.config.guard import guarded
from detector.config.overrides import (
    COMPOSITION_ERRORS,
    Arguments,
    explain,
    parse_arguments,
    with_present_names,
)
from detector.config.paths import config_dir
from detector.config.plain import resolved
from detector.config.recorded import without_environment
from detector.config.targets import allowing
from detector.exceptions import RunError, out_of_memory_message
from detector.processes import is_first_process
from detector.quoting import quoted
from detector.runs.context import Context, Launcher
from detector.version import __version__

FAILED, WRONG_USE = 1, 2


def run_verb(name: str, module: str, summary: str, words: Sequence[str]) -> int:
    """Run `module.run(options, context)` with configs/<name>.yaml and the overrides in `words`.

    With --help print the help of the verb instead, after its `summary`.
    Return the exit code. All jobs of a sweep are checked before the first one runs.
    """
    try:
        arguments = parse_arguments(name, words)
        if arguments.help:
            print(verb_help(name, module, summary, arguments))
            return 0
        arguments = replace(arguments, overrides=with_resumed(arguments.overrides))
        with guarded(arguments.overrides, arguments.allow_targets):
            arguments = with_present_names(arguments)
            shipped = not arguments.config_dir and not any(o.startswith("+") for o in arguments.overrides)
            job = _Job(name, module, arguments.flags, arguments.allow_targets, is_shipped=shipped)
            return _run(job, arguments)
    except ConfigError as error:
        return report(error)


def _run(job: _Job, arguments: Arguments) -> int:
    try:
        return _sweep(job, arguments) if arguments.multirun else _once(job, arguments)
    except COMPOSITION_ERRORS as error:
        problems = explain(arguments, error)
        others = _other_problems(job, arguments, problems) if arguments.runs else []
        return report(ConfigError([*problems.values(), *others]))


def _once(job: _Job, arguments: Arguments) -> int:
    _compose_and_call(job, arguments.overrides)
    return job.exit_code


def _sweep(job: _Job, arguments: Arguments) -> int:
    checked = _check_only(job, arguments.overrides)
    if checked.errors:
        return max(report(error, job=number) for number, error in checked.errors)
    overrides = list(arguments.overrides)
    if checked.output_dirs:
        try:
            Path(checked.output_dirs[0]).mkdir(parents=True, exist_ok=True)  # Hydra fails with a traceback
        except OSError as error:
            where = f"output_dir={checked.output_dirs[0]}"
            return report(ConfigError([f"{where}: {error.strerror}. Choose another output_dir, or name."]))
        folder = quoted(checked.output_dirs[0])
        overrides.append(f"hydra.sweep.dir={folder}")
        if not any(override.startswith("output_dir=") for override in overrides):
            # one for all jobs; the default differs by the second of their start
            overrides.append(f"output_dir={folder}")
    _compose_and_call(job, overrides)
    _print_summary(job)
    return job.exit_code


def _print_summary(job: _Job) -> None:
    from detector.cli.sweep import SweepJob, print_sweep  # heavy, and loaded by now

    folders = zip(job.task_overrides, job.output_dirs, strict=True)
    print_sweep([SweepJob(overrides, Path(folder)) for overrides, folder in folders])


def _check_only(job: _Job, overrides: Sequence[str]) -> _Job:
    """Check all configurations of `job` without running them or leaving files; return the checked job."""
    check = replace(job, check_only=True)
    with tempfile.TemporaryDirectory() as folder:
        unseen = [f"hydra.sweep.dir={quoted(folder)}", "hydra/hydra_logging=none", "hydra/job_logging=none"]
        _compose_and_call(check, [*overrides, *unseen])
    return check


def _other_problems(job: _Job, arguments: Arguments, wrong: Collection[str]) -> list[str]:
    """Return problems besides the `wrong` overrides, which cannot be composed, to report all at once."""
    right = [override for override in arguments.overrides if override not in wrong]
    try:
        errors = [error for _, error in _check_only(replace(job, is_skimmed=True), right).errors]
    except ConfigError as error:
        errors = [error]
    except COMPOSITION_ERRORS:
        return []
    problems = dict.fromkeys(p for error in errors if isinstance(error, ConfigError) for p in error.problems)
    reported = tuple(f"{override.partition('=')[0]}:" for override in wrong if override)
    return [problem for problem in problems if not problem.startswith(reported)]


def _compose_and_call(job: _Job, overrides: Sequence[str]) -> None:
    app = hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=job.name)(job)
    job_name = [f"hydra.job.name={job.name}"]
    before = sys.argv
    sys.argv = [before[0], *job.flags, *overrides, *job_name]  # Hydra reads sys.argv, and knows no verb
    try:
        with _environment(HYDRA_FULL_ERROR="1"):  # else Hydra prints the errors that we explain
            app()
    finally:
        sys.argv = before


@dataclass
class _Job:
    """The function that Hydra calls for each configuration. An error ends its job only, not the sweep.

    If only shipped files and options are used (`is_shipped`), values and paths are checked before the verb is
    imported; with `is_skimmed` no more than that is checked.
    """

    name: str
    module: str
    flags: tuple[str, ...]
    allow_targets: tuple[str, ...]
    check_only: bool = False
    is_shipped: bool = False
    is_skimmed: bool = False

    def __post_init__(self) -> None:
        self.exit_code = 0
        self.errors: list[tuple[int | None, Exception]] = []
        self.output_dirs: list[str] = []  # one for each job, as are its overrides
        self.task_overrides: list[list[str]] = []
        self._argv = sys.argv

    def __call__(self, cfg: DictConfig) -> None:
        with _environment(HYDRA_FULL_ERROR=None):
            try:
                self._run(cfg)
            except Exception as error:
                self.errors.append((_sweep_job(), error))
                if not self.check_only:
                    self.exit_code = max(self.exit_code, report(error, job=_sweep_job()))

    def _run(self, cfg: DictConfig) -> None:
        require_typed(cfg, self.allow_targets)
        if self.is_shipped and annotations_of(f"{self.module}.Options"):
            if problems := early_problems(cfg, self.module):
                raise ConfigError(problems)
            if self.is_skimmed:
                return
        with allowing(self.allow_targets):
            if self.module not in sys.modules and is_first_process():  # it takes seconds
                print(f"Loading detector {__version__} ...", file=sys.stderr, flush=True)
            command = importlib.import_module(self.module)
            plain = check(cfg, command.Options)
            if not self.check_only:
                _number_output_dir(cfg, plain)
            if "output_dir" in cfg:
                self.output_dirs.append(cfg.output_dir)
                self.task_overrides.append(list(HydraConfig.get().overrides.task))
            if not self.check_only:
                options = bind(plain, command.Options)
                sys.argv = self._argv_of_ranks(cfg)
                keep_freed_memory()
                with self._folder(cfg), plain_warnings():
                    command.run(options, context_of(cfg))

    def _folder(self, cfg: DictConfig) -> AbstractContextManager[None]:
        """Return a context with exclusive use of the output_dir, if the verb has one."""
        from detector.runs.folder import sole_use  # heavy, and loaded by now

        return sole_use(Path(cfg.output_dir), command=self.name) if "output_dir" in cfg else nullcontext()

    def _argv_of_ranks(self, cfg: DictConfig) -> list[str]:
        """Return the command line as typed, with its verb, from which Lightning starts the other ranks.

        They must run only this job of a sweep, and write to the same folder, not one named by a later time.
        """
        argv = self._argv
        if _sweep_job() is not None:
            flags = [flag for flag in self.flags if flag not in ("-m", "--multirun")]
            argv = [argv[0], self.name, *flags, *HydraConfig.get().overrides.task]
        return [*argv, f"output_dir={quoted(cfg.output_dir)}"] if "output_dir" in cfg else argv


def context_of(cfg: DictConfig) -> Context:
    """Return a command's context: its configuration, and what Hydra knows if Hydra runs this call."""
    plain, recorded = resolved(cfg), without_environment(cfg)
    if not HydraConfig.initialized():
        return Context(plain, recorded)
    hydra_cfg = HydraConfig.get()
    sources = [s for s in hydra_cfg.runtime.config_sources if s.provider == "command-line"]
    launcher = None
    if hydra_cfg.mode != RunMode.MULTIRUN:
        choice = hydra_cfg.runtime.choices["hydra/launcher"]
        # Resolved where they are used: a launcher of another plugin may leave options open.
        launcher = Launcher(
            choice, hydra_cfg.launcher["_target_"], lambda: _without_target(resolved(hydra_cfg.launcher))
        )
    return Context(
        plain,
        recorded,
        overrides=tuple(hydra_cfg.overrides.task),
        config_dir_flags=tuple(word for s in sources for word in ("--config-dir", s.path)),
        launcher=launcher,
    )


def _without_target(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key != "_target_"}


def require_typed(cfg: DictConfig, allowed: tuple[str, ...]) -> None:
    """Raise ConfigError if a configuration file allows targets, as it would allow itself."""
    targets = cfg.get(ALLOW_TARGETS)
    if isinstance(targets, ListConfig) and tuple(targets) != allowed:
        raise ConfigError(
            [
                f"{ALLOW_TARGETS}: stands in a file of the configuration, which may not allow itself to name "
                f"anything. Remove it there; what you trust, give on the command line: "
                + shlex.quote(f"+{ALLOW_TARGETS}=[{','.join(map(str, targets))}]")
            ]
        )


def _number_output_dir(cfg: DictConfig, plain: dict[str, Any]) -> None:
    """Append the job's number to the output_dir in a sweep, so that jobs share no folder."""
    number = _sweep_job()
    if number is not None and "output_dir" in cfg:
        cfg.output_dir = plain["output_dir"] = os.path.join(cfg.output_dir, str(number))


def _sweep_job() -> int | None:
    """Return the number of this job in its sweep, from 0; None outside a sweep."""
    hydra_cfg = HydraConfig.get()
    return hydra_cfg.job.num if hydra_cfg.mode == RunMode.MULTIRUN else None


def report(error: Exception, *, job: int | None = None) -> int:
    """Report user errors and failures of the run as one message, bugs of ours with their traceback.

    Return the exit code.
    """
    where = "detector" if job is None else f"detector (job {job} of the sweep)"
    message = message_of(error)
    if message is None:
        print(f"{where} failed unexpectedly:", file=sys.stderr)
        traceback.print_exception(error)
        return FAILED
    is_users = _is_users(error)
    print(f"{where}{'' if is_users else ' failed'}: {message}", file=sys.stderr)
    return WRONG_USE if is_users else FAILED


def message_of(error: Exception) -> str | None:
    """Return the message of a user error or of a failure of the run; None for bugs of ours."""
    if _is_users(error) or isinstance(error, RunError | OSError):
        return str(error)
    shortage = out_of_memory_message(error)
    return f"{shortage}. Lower the sizes of batches and images, or free memory." if shortage else None


def _is_users(error: Exception) -> bool:
    """Return whether our own code raised it as ValueError or FileNotFoundError; others may be our bugs."""
    if not isinstance(error, ValueError | FileNotFoundError):
        return False
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return not frames or str(frames[-1].f_globals.get("__name__", "")).startswith("detector.")


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Print UserWarnings of this package in one line, `warning: <text>`, without source, in this context."""
    others = warnings.formatwarning  # Lightning has set its own
    ours = str(Path(__file__).parents[1]) + os.sep

    def one_line(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        if category is UserWarning and filename.startswith(ours):
            return f"warning: {' '.join(str(message).split())}\n"
        return others(message, category, filename, lineno, line)

    warnings.formatwarning = one_line
    try:
        yield
    finally:
        warnings.formatwarning = others


@contextmanager
def _environment(**variables: str | None) -> Iterator[None]:
    """Set environment variables within this context; None removes one."""
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

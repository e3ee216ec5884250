"""A configuration of somebody else runs nothing: what Hydra would make itself is refused before it is made.

Each attempt would write an empty file named "ran", by callables of this module.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from detector.cli import main as cli
from tests import light_command

MARK = Path("ran")  # in the folder of the test


class Marks:
    """A callback and a handler that leaves its mark when it is made."""

    def __init__(self, *_: object, **__: object) -> None:
        MARK.touch()


class MarkingHandler(logging.NullHandler):
    def __init__(self) -> None:
        super().__init__()
        MARK.touch()


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(cli.VERBS, "predict", replace(cli.VERBS["predict"], module="tests.light_command"))
    light_command.runs.clear()


@pytest.fixture
def detector(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["detector", *words])
        code = cli.main()
        out, err = capsys.readouterr()
        return code, out + err

    return run


def file(name: str, text: str) -> None:
    path = Path("foreign", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def refused(code: int, message: str, *words: str) -> None:
    assert code == 2, message
    assert "Traceback" not in message
    for word in words:
        assert word in message
    assert not MARK.exists(), "it ran"
    assert light_command.runs == []


CALLBACK = "hydra: {callbacks: {x: {_target_: tests.test_guard.Marks}}}"
FILES = {
    "callback": CALLBACK,
    "callback by interpolation": ("a: {_target_: tests.test_guard.Marks}\nhydra: {callbacks: {x: '${a}'}}"),
    "handler": "hydra: {job_logging: {handlers: {console: {class: tests.test_guard.MarkingHandler}}}}",
    "factory": "hydra: {job_logging: {formatters: {simple: {'()': tests.test_guard.Marks}}}}",
    "resolved string": "hydra: {job_logging: {handlers: {console: {stream: 'ext://tests.test_guard.MARK'}}}}",
    "hydra's own log": "hydra: {hydra_logging: {formatters: {simple: {'()': tests.test_guard.Marks}}}}",
    "file of a log": (
        "hydra: {job_logging: {handlers: {console: {class: logging.FileHandler, filename: ran}}}}"
    ),
    "launcher": "hydra: {launcher: {_target_: tests.test_guard.Marks}}",
    "part of a launcher": "hydra: {launcher: {x: {_target_: tests.test_guard.Marks}}}",
    "sweeper": "hydra: {sweeper: {_target_: tests.test_guard.Marks}}",
    "part of the sweeper": "hydra: {sweeper: {params: {x: {_target_: tests.test_guard.Marks}}}}",
    "environment": "hydra: {job: {env_set: {LD_PRELOAD: ran.so}}}",
    "commands of a launcher": "hydra: {launcher: {setup: [touch ran]}}",
    "allows itself": f"allow_targets: [tests.test_guard.]\n{CALLBACK}",
}


REFUSALS = {  # the essential words of each refusal
    "callback": "hydra.callbacks.x._target_ = tests.test_guard.Marks: not allowed",
    "callback by interpolation": "hydra.callbacks.x._target_ = tests.test_guard.Marks: not allowed",
    "handler": "hydra.job_logging.handlers.console.class = tests.test_guard.MarkingHandler: not allowed",
    "factory": "hydra.job_logging.formatters.simple.() = tests.test_guard.Marks: not allowed",
    "resolved string": "hydra.job_logging.handlers.console.stream = ext://tests.test_guard.MARK: expected",
    "hydra's own log": "hydra.hydra_logging.formatters.simple.() = tests.test_guard.Marks: not allowed",
    "file of a log": "hydra.job_logging.handlers.console.filename = ran: a configuration may not choose",
    "launcher": "hydra.launcher._target_ = tests.test_guard.Marks: not allowed",
    "part of a launcher": "Key 'x' not in 'BasicLauncherConf'",
    "sweeper": "hydra.sweeper._target_ = tests.test_guard.Marks: not allowed",
    "part of the sweeper": "hydra.sweeper.params.x._target_ = tests.test_guard.Marks: not allowed",
    "environment": "hydra.job.env_set.LD_PRELOAD = ran.so: a file may not set",
    "commands of a launcher": "Key 'setup' not in 'BasicLauncherConf'",
    "allows itself": "hydra.callbacks.x._target_ = tests.test_guard.Marks: not allowed",
}


@pytest.mark.parametrize("case", FILES)
@pytest.mark.parametrize("flags", [(), ("-m",)])
def test_file_runs_nothing(
    detector: Callable[..., tuple[int, str]], case: str, flags: tuple[str, ...]
) -> None:
    file("experiment/mine.yaml", f"# @package _global_\n{FILES[case]}\n")
    code, message = detector("predict", *flags, "--config-dir", "foreign", "experiment=mine")
    refused(code, message, REFUSALS[case])


def test_group_of_hydra_that_a_file_chooses_runs_nothing(detector: Callable[..., tuple[int, str]]) -> None:
    file("experiment/mine.yaml", "# @package _global_\ndefaults: [{override /hydra/job_logging: own}]\n")
    file(
        "hydra/job_logging/own.yaml",
        "version: 1\nroot: {handlers: [x]}\nhandlers: {x: {'()': tests.test_guard.Marks}}\n",
    )
    code, message = detector("predict", "--config-dir", "foreign", "experiment=mine")
    refused(code, message, "hydra.job_logging.handlers.x.()")


@pytest.mark.parametrize(
    "word",
    [
        "+hydra.callbacks.x._target_=tests.test_guard.Marks",
        "hydra.job_logging.handlers.console.class=tests.test_guard.MarkingHandler",
        "hydra.launcher._target_=tests.test_guard.Marks",
    ],
)
def test_command_line_too_says_what_it_trusts(detector: Callable[..., tuple[int, str]], word: str) -> None:
    refused(*detector("predict", word), "allow_targets=[tests.test_guard.Mark")


def test_what_the_command_line_allows_is_made(detector: Callable[..., tuple[int, str]]) -> None:
    word = "+hydra.callbacks.x._target_=tests.test_guard.Marks"
    with pytest.warns(UserWarning, match="Marks"):  # Hydra's, as it has no method of a callback
        code, message = detector("predict", word, "+allow_targets=[tests.test_guard.Marks]")
    assert code == 0, message
    assert MARK.exists()


def test_file_does_not_allow_itself(detector: Callable[..., tuple[int, str]]) -> None:
    file("experiment/mine.yaml", "# @package _global_\nallow_targets: [os.getcwd]\n")
    code, message = detector("predict", "--config-dir", "foreign", "experiment=mine")
    refused(code, message, "allow_targets", "'+allow_targets=[os.getcwd]'")


def test_sweep_of_a_file_does_not_allow_it_either(detector: Callable[..., tuple[int, str]]) -> None:
    text = "# @package _global_\nhydra: {sweeper: {params: {+allow_targets: '[os.getcwd]'}}}\n"
    file("experiment/mine.yaml", text)
    code, message = detector("predict", "-m", "--config-dir", "foreign", "experiment=mine", "output_dir=out")
    refused(code, message, "allow_targets")


@pytest.mark.parametrize(
    ("flag", "reason"), [("--experimental-rerun", "overrides.txt"), ("--exp", "without dashes")]
)
def test_rerun_of_a_pickle_is_refused(
    detector: Callable[..., tuple[int, str]], flag: str, reason: str
) -> None:
    Path("config.pickle").write_bytes(b"")
    refused(*detector("predict", flag, "config.pickle"), flag, reason)


def test_package_on_the_search_path_is_not_imported(
    detector: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("foreign_package").mkdir()
    Path("foreign_package/__init__.py").write_text("open('ran', 'w')\n")
    monkeypatch.syspath_prepend(str(Path.cwd()))
    refused(*detector("predict", "hydra.searchpath=[pkg://foreign_package]"), "pkg://foreign_package")
    file("predict.yaml", "hydra: {searchpath: [pkg://foreign_package]}\n")
    file("own.yaml", "hydra: {searchpath: [pkg://foreign_package]}\n")
    path = str(Path("foreign").absolute())
    refused(*detector("predict", "--config-path", path), "pkg://foreign_package")
    refused(*detector("predict", "--config-dir", "foreign", "--config-name", "own"), "pkg://foreign_package")
    refused(*detector("predict", "--config-path", "pkg://foreign_package"), "--config-path")
    assert "foreign_package" not in sys.modules


@pytest.mark.parametrize(
    "word", ["hydra/job_logging=default", "hydra/hydra_logging=hydra_debug", "hydra.verbose=true"]
)
def test_shipped_logging_stays(detector: Callable[..., tuple[int, str]], word: str) -> None:
    code, message = detector("predict", word, "hydra.run.dir=log")
    assert (code, light_command.runs == []) == (0, False), message


def test_environment_of_the_command_line_stays(detector: Callable[..., tuple[int, str]]) -> None:
    assert detector("predict", "+hydra.job.env_set.DETECTOR_TEST=1")[0] == 0

"""What stands around the run of a command."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace

import pytest

from detector.cli import jobs
from detector.cli import main as cli
from tests import light_command


def formatted(category: type[Warning] = UserWarning, filename: str = jobs.__file__) -> str:
    return warnings.formatwarning("gt.json: image 3\n has none", category, filename, 1, "the_source(line)")


def test_warning_of_ours_is_one_line_without_its_source() -> None:
    before = warnings.formatwarning
    others = formatted(DeprecationWarning), formatted(filename="/other/file.py")
    with jobs.plain_warnings():
        assert formatted() == "warning: gt.json: image 3 has none\n"
        assert (formatted(DeprecationWarning), formatted(filename="/other/file.py")) == others
        assert "the_source(line)" in others[1]
    assert warnings.formatwarning is before


def test_commands_run_with_plain_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[str] = []
    monkeypatch.setattr(light_command, "run", lambda *_: printed.append(formatted()))
    monkeypatch.setitem(cli.VERBS, "predict", replace(cli.VERBS["predict"], module="tests.light_command"))
    monkeypatch.setattr(sys, "argv", ["detector", "predict"])
    before = warnings.formatwarning
    assert cli.main() == 0
    assert printed == ["warning: gt.json: image 3 has none\n"]
    assert warnings.formatwarning is before

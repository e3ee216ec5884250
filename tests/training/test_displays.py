"""What a run prints."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from detector.commands.train import choose_display
from detector.training.displays import EpochReport, LineDisplay, StepReport, TerminalDisplay, step_line
from detector.training.trainer import TrainingOptions

STEP = StepReport(
    epoch=1,
    epochs=12,
    step=40,
    steps=73,
    losses={"loss": 1.2342, "loss_cls": 0.6},
    lr=0.01,
    images_per_second=12.34,
    eta_seconds=190.2,
)
EPOCH = EpochReport(
    epoch=2,
    epochs=12,
    values={
        "train/loss": 1.5,
        "val/loss": 1.25,
        "val/AP": 0.412,
        "val/AP50": 0.7,
        "val/AP75": 0.3,
        "val/AR1": 0.1,
    },
    seconds=21.34,
    eta_seconds=3723.0,
    is_best=True,
)


def test_step_line() -> None:
    assert step_line(STEP) == (
        "epoch 1/12 step 40/73 loss 1.2342 loss_cls 0.6000 lr 0.01 img/s 12.3 eta 0:03:10"
    )


def test_step_line_is_pairs_of_key_and_value() -> None:
    words = step_line(STEP).split(" ")
    parsed = dict(zip(words[::2], words[1::2], strict=True))
    assert float(parsed["loss_cls"]) == 0.6
    assert float(parsed["img/s"]) == 12.3


def test_epoch_line_tells_losses_ap_and_best() -> None:
    lines: list[str] = []
    LineDisplay(every_n_steps=10, write=lines.append).epoch(EPOCH)
    assert lines == [
        "epoch 2/12 done train/loss 1.5000 val/loss 1.2500 val/AP 0.4120 val/AP50 0.7000 val/AP75 0.3000 "
        "seconds 21.3 eta 1:02:03 best"
    ]


def test_lines_come_every_n_steps() -> None:
    lines: list[str] = []
    display = LineDisplay(every_n_steps=20, write=lines.append)
    for number in range(1, 74):
        display.step(number, 73, lambda: STEP)
    assert len(lines) == 3


def test_reports_are_made_only_when_shown() -> None:
    def fail() -> StepReport:
        raise AssertionError("made for nothing")

    LineDisplay(every_n_steps=20, write=print).step(7, 73, fail)


def test_terminal_shows_one_row_an_epoch_under_one_header() -> None:
    output = io.StringIO()
    display = TerminalDisplay(Console(file=output, force_terminal=True, width=100, color_system=None))
    display.step(1, 73, lambda: STEP)
    display.validating(1, 5)
    display.epoch(EPOCH)
    display.epoch(EPOCH)
    display.close()
    text = output.getvalue()
    assert text.count("val loss") == 1
    assert text.count("0.412") == 2


def test_terminal_row_of_an_epoch_without_validation_has_dashes() -> None:
    output = io.StringIO()
    display = TerminalDisplay(Console(file=output, force_terminal=True, width=100, color_system=None))
    display.epoch(
        EpochReport(
            epoch=1, epochs=3, values={"train/loss": 1.5}, seconds=1.0, eta_seconds=2.0, is_best=False
        )
    )
    assert output.getvalue().splitlines()[-1].split() == [
        "1/3",
        "1.500",
        "-",
        "-",
        "-",
        "-",
        "1.0",
        "s",
        "0:00:02",
    ]


def test_a_long_validation_says_in_a_log_file_where_it_is() -> None:
    lines: list[str] = []
    now = 0.0
    display = LineDisplay(every_n_steps=10, write=lines.append, clock=lambda: now)
    for number in range(1, 101):  # of a second each
        now = float(number)
        display.validating(number, 100)
    assert lines == ["validation 30/100", "validation 60/100", "validation 90/100"]


class Outputs(list[str]):
    """The outputs of a notebook's cell, as IPython.display gives them."""

    HTML = str

    def display(self, html: str, *, display_id: bool) -> Outputs:
        assert display_id  # else it cannot be updated
        self.append(html)
        return self

    def update(self, html: str) -> None:
        self[-1] = html


def test_notebook_has_one_table_that_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    outputs: Any = Outputs()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(display=outputs))
    monkeypatch.setattr(Console, "is_terminal", False)
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    display = choose_display(TrainingOptions(max_epochs=12))
    display.step(41, 400, lambda: STEP)
    assert len(outputs) == 0  # not every step is shown, where there are many
    display.step(73, 73, lambda: STEP)
    assert outputs == ["<p>epoch 1/12, step 73/73: loss 1.234, 12.3 images/s, 3 min 10 s left</p>"]
    display.validating(1, 3)
    display.epoch(EPOCH)
    display.epoch(replace(EPOCH, epoch=3, values={"train/loss": 1.0}, is_best=False))
    display.close()
    (table,) = outputs
    assert "<td>2/12</td><td>1.500</td><td>1.250</td><td>0.412</td>" in table
    assert "<td>3/12</td><td>1.000</td><td>-</td><td>-</td>" in table
    assert "validation" not in table

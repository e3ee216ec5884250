"""One owner of the names and formats of a run's files."""

import re
from pathlib import Path

import pytest

from detector.run_folder import Row, RunFolder

PACKAGE = Path(__file__).resolve().parents[1] / "detector"


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "run")


def test_epochs_are_read_as_they_were_written(folder: RunFolder) -> None:
    """The second epoch was validated, the first was not; digits and kinds of numbers are kept."""
    rows: list[Row] = [
        {"epoch": 1, "step": 2, "lr": 0.1 + 0.2, "offsets/a/mean_px": 0.5},
        {"epoch": 2, "step": 4, "lr": 1e-7, "val/AP": 0.0, "offsets/a/mean_px": 1.0},
    ]
    folder.write_epochs(rows)
    assert folder.read_epochs() == rows
    assert type(folder.read_epochs()[1]["epoch"]) is int
    assert folder.epochs.read_text().splitlines()[0] == "epoch,step,lr,offsets/a/mean_px,val/AP"


def test_the_record_is_read_as_it_was_written(folder: RunFolder) -> None:
    folder.write_record(config={"b": [1], "a": "é"}, overrides=["x=1", "y=[2]"], environment={"gpus": []})
    assert [*folder.read_config().items()] == [("b", [1]), ("a", "é")]
    assert folder.read_environment() == {"gpus": []}
    assert folder.overrides.read_text() == "x=1\ny=[2]\n"
    assert {file.name for file in folder.path.iterdir()} == {
        "config.yaml",
        "overrides.txt",
        "environment.json",
    }


def test_what_lies_beside_a_folder_outlives_it(folder: RunFolder) -> None:
    assert folder.output == folder.path.parent / "run.log"
    assert folder.training_lock == folder.path.parent / "run.lock"


def test_no_other_module_builds_the_path_of_a_file_of_a_run() -> None:
    names = [inside._parts[-1] for inside in vars(RunFolder).values() if hasattr(inside, "_parts")]
    assert "metrics.csv" in names
    built = re.compile(rf"/ \"({'|'.join(map(re.escape, names))})\"")
    modules = [file for file in PACKAGE.rglob("*.py") if file.parent.name != "commands"]  # not yet
    file_names = {file.name for file in modules if built.search(file.read_text(encoding="utf-8"))}
    assert file_names == {"published.py"}  # torch.hub's own folder

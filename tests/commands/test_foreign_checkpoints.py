"""A checkpoint of somebody else writes into the output alone, and one that is given away tells nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from detector.checkpoint import Checkpoint, load_checkpoint
from detector.cli.main import main
from detector.config.recorded import with_environment, without_environment
from detector.data.warped_shapes.source import WarpedShapes
from detector.predictor import check_used
from detector.runs.resume import require_same_model
from detector.runs.validation import stored_data
from tests.training.tiny import run_training, tiny_config, write_dataset

SECRET = "hush-4711"
SHAPES = {"_target_": "detector.data.WarpedShapes", "num_train": 1, "num_val": 2, "image_size": 64}


def detector(*arguments: object) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["detector", *map(str, arguments)])
        return main()


def written(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"), train_images=4, val_images=2)


@pytest.fixture(scope="module")
def run(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose name and data come from the environment."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_SECRET", SECRET)
        patch.setenv("TEST_DATA", str(dataset))
        return run_training(
            dataset,
            folder / "run",
            "training.max_epochs=1",
            "model.head.num_convs=1",
            "name=${oc.env:TEST_SECRET}",
            "data.root=${oc.env:TEST_DATA}",
        )


def test_no_value_of_the_environment_is_in_a_checkpoint(run: Path, dataset: Path) -> None:
    for name in ("best", "last"):
        content = (run / "checkpoints" / f"{name}.ckpt").read_bytes()
        assert SECRET.encode() not in content
        assert str(dataset).encode() not in content
    config = load_checkpoint(run / "checkpoints" / "best.ckpt").config
    assert (config["name"], config["data"]["root"]) == ("${oc.env:TEST_SECRET}", "${oc.env:TEST_DATA}")


def test_evaluation_takes_paths_from_the_environment_of_today(
    run: Path,
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    evaluate = ("evaluate", f"checkpoint={run}/checkpoints/best.ckpt", f"output_dir={tmp_path}/out")
    assert detector(*evaluate) == 2
    error = capsys.readouterr().err
    assert "data.root was ${oc.env:TEST_DATA} in training, and TEST_DATA is not set here" in error
    assert "Give data.root=" in error
    monkeypatch.setenv("TEST_DATA", str(dataset))
    assert detector(*evaluate) == 0
    assert (tmp_path / "out" / "metrics.json").read_text() == (run / "metrics.json").read_text()


def test_what_a_model_needs_is_kept_and_what_it_starts_from_is_not(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_NORM", "group")
    monkeypatch.setenv("TEST_COUNT", "3")
    cfg = tiny_config(
        dataset,
        tmp_path,
        "model.backbone.norm=${oc.env:TEST_NORM}",
        "model.backbone.weights=${oc.env:TEST_NORM}/r18.pth",
        "name=${oc.env:TEST_NOT_SET,other}",
        "data.check_images=${oc.env:TEST_NOT_SET,headers}",
        "output_dir=runs/${name}/x",
    )
    cfg.training.max_epochs = "${oc.decode:${oc.env:TEST_COUNT}}"  # overrides cannot nest these
    kept = without_environment(cfg)
    assert kept["model"]["backbone"]["norm"] == "group"
    assert kept["model"]["backbone"]["weights"] == "${oc.env:TEST_NORM}/r18.pth"
    assert kept["training"]["max_epochs"] == 3
    assert kept["data"]["check_images"] == "headers"
    assert kept["output_dir"] == "runs/${oc.env:TEST_NOT_SET,other}/x"
    assert cfg.model.backbone.norm == "group"  # OmegaConf's own resolver is back
    assert with_environment(kept["output_dir"], option="x") == "runs/other/x"


def test_options_chosen_from_few_are_kept_so_that_the_checkpoint_is_of_use(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_PRECISION", "bf16-mixed")
    monkeypatch.setenv("TEST_DATA", str(dataset))
    chosen = (
        "training.precision=${oc.env:TEST_PRECISION}",
        "data.check_images=${oc.env:TEST_NOT_SET,headers}",
    )
    kept = without_environment(tiny_config(dataset, tmp_path, *chosen, "data.root=${oc.env:TEST_DATA}"))
    check_used(kept, source="best.ckpt")
    assert (kept["training"]["precision"], kept["data"]["check_images"]) == ("bf16-mixed", "headers")
    assert kept["data"]["root"] == "${oc.env:TEST_DATA}"


def test_a_name_inside_a_model_is_kept(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_NAME", "resnet18")
    kept = without_environment(tiny_config(dataset, tmp_path, "+model.backbone.name=${oc.env:TEST_NAME}"))
    assert kept["model"]["backbone"]["name"] == "resnet18"


def test_a_variable_that_changed_what_must_not_change_is_noticed_where_a_run_goes_on(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = tiny_config(dataset, tmp_path, "+optimizer.kind=${oc.env:TEST_KIND}")
    monkeypatch.setenv("TEST_KIND", "one")
    trained = Checkpoint(
        class_names=("x",),
        category_ids=(1,),
        config=without_environment(cfg),
        path=Path("last.ckpt"),
        state_dict={},
        metrics={},
        epoch=1,
        step=1,
    )
    monkeypatch.setenv("TEST_KIND", "other")
    with pytest.raises(ValueError, match=r"optimizer\.kind: one -> other"):
        require_same_model(trained, without_environment(cfg), max_epochs=2)


def foreign(run: Path, path: Path, **data: Any) -> Path:
    content = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    content["detector"]["class_names"] = ["x", "y"]
    content["detector"]["config"]["data"] |= data
    content["detector"]["config"]["output_dir"] = str(path.parent / "elsewhere")
    content["detector"]["config"]["model"]["backbone"]["weights"] = "IMAGENET1K_V1"
    torch.save(content, path)
    return path


def test_data_is_generated_nowhere_but_in_the_output(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its classes are others, so that evaluation ends once the data is there."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    path = foreign(run, tmp_path / "x.ckpt", root=str(tmp_path / "elsewhere" / "data"), source=SHAPES)
    assert detector("evaluate", f"checkpoint={path}", f"output_dir={tmp_path}/out", "hydra.run.dir=.") == 2
    assert {name.partition("/")[0] for name in written(tmp_path)} == {"x.ckpt", "out"}
    assert (tmp_path / "out" / "data" / "val.json").is_file()


def test_generated_data_that_is_there_is_read_where_it_is(tmp_path: Path) -> None:
    root = WarpedShapes(num_train=1, num_val=2, image_size=64).generate(tmp_path / "shapes")
    trained = {"root": str(root), "source": SHAPES, "val": None}
    before = written(tmp_path)
    actual = stored_data(trained, {}, generate_into=tmp_path / "out")
    assert (actual["root"], actual["source"]) == (str(root), None)
    assert written(tmp_path) == before
    other = {**trained, "source": {**SHAPES, "num_val": 3}}
    assert stored_data(other, {}, generate_into=tmp_path / "out")["root"] == str(tmp_path / "out")


def test_weights_of_a_foreign_model_are_not_fetched(run: Path, tmp_path: Path) -> None:
    from detector.predictor import Predictor

    path = foreign(run, tmp_path / "x.ckpt")
    content = torch.load(path, weights_only=True)
    content["detector"]["config"]["model"]["weights"] = "/somewhere/else.pth"
    torch.save(content, path)
    Predictor(path)


def test_environment_record_holds_no_variables(run: Path) -> None:
    text = (run / "environment.json").read_text()
    assert SECRET not in text
    assert not [value for value in os.environ.values() if len(value) > 30 and value in text]

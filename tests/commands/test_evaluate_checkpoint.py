"""`detector evaluate` with a checkpoint gives what the training's own validation gave."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from detector.cli.main import main
from detector.evaluation.results import detections_to_results
from detector.predictor import Predictor, load_image
from detector.runs.validation import data_config

TRAINING = (  # averaged weights, bf16 and channels-last: each changes the numbers where it is forgotten
    "training.precision=bf16-mixed",
    "training.max_epochs=2",
    "training.ema_decay=0.5",
    "training.channels_last=true",
    "training.accelerator=cpu",
    "optimizer.lr=0.02",
    "model.neck.out_channels=64",
    "model.head.num_convs=1",
    "data=coco",
    "data/augmentation=none",
    "data.num_workers=0",
    "data.image_size.min_size=64",
    "data.image_size.max_size=64",
    "data.val_batch_size=2",
)


def detector(*arguments: object) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["detector", *map(str, arguments)])
        return main()


def write_dataset(root: Path, *, names: tuple[str, str] = ("green", "blue"), images: int = 4) -> Path:
    """Bright boxes on noise; image ids from 100, category ids 4 and 9, annotation ids from 0."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    for split in ("train", "val"):
        table: list[dict[str, Any]]
        annotations: list[dict[str, Any]]
        table, annotations = [], []
        for i in range(images):
            pixels = rng.integers(0, 80, (60, 80, 3), dtype=np.uint8)
            for category, color in ((4, (0, 255, 0)), (9, (255, 0, 0))):
                x, y, w, h = (int(v) for v in (*rng.integers(0, 35, 2), *rng.integers(12, 24, 2)))
                pixels[y : y + h, x : x + w] = color
                annotations.append(
                    {
                        "id": len(annotations),
                        "image_id": 100 + i,
                        "category_id": category,
                        "bbox": [x, y, w, h],
                    }
                )
            cv2.imwrite(str(root / "images" / f"{split}{i}.png"), pixels)
            table.append({"id": 100 + i, "file_name": f"{split}{i}.png", "width": 80, "height": 60})
        categories = [{"id": i, "name": name} for i, name in zip((4, 9), names, strict=True)]
        content = {"images": table, "annotations": annotations, "categories": categories}
        (root / f"{split}.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the dataset `data` and the finished run `run`."""
    folder = tmp_path_factory.mktemp("trained")
    data = write_dataset(folder / "data")
    assert detector("train", *TRAINING, f"data.root={data}", f"output_dir={folder}/run") == 0
    return folder


def test_the_numbers_are_those_of_the_validation(trained: Path, tmp_path: Path) -> None:
    assert (
        detector("evaluate", f"checkpoint={trained}/run/checkpoints/best.ckpt", f"output_dir={tmp_path}/out")
        == 0
    )
    for name in ("metrics.json", "predictions.json"):
        assert json.loads((tmp_path / "out" / name).read_text()) == json.loads(
            (trained / "run" / name).read_text()
        )
    assert json.loads(
        (tmp_path / "out/predictions.json").read_text()
    )  # equal, and not for want of detections


def test_python_predicts_what_evaluation_scores(trained: Path) -> None:
    """In bfloat16, as it was trained: in float32 scores differ in the third digit."""
    results = json.loads((trained / "run/predictions.json").read_text())
    scored = sorted((one for one in results if one["image_id"] in (100, 101)), key=json.dumps)
    images = [load_image(trained / f"data/images/val{number}.png") for number in range(2)]
    model = Predictor(trained / "run/checkpoints/best.ckpt")
    predicted = model.predict_batch(images, score_threshold=0.0)
    again = [
        one
        for image_id, detections in zip((100, 101), predicted, strict=True)
        for one in detections_to_results(detections, image_id=image_id, category_ids=model.category_ids)
    ]
    assert sorted(again, key=json.dumps) == scored


def test_the_predictions_evaluate_to_the_same_metrics(trained: Path, tmp_path: Path) -> None:
    code = detector(
        "evaluate",
        f"predictions={trained}/run/predictions.json",
        f"annotations={trained}/data/val.json",
        f"output_dir={tmp_path}/out",
    )
    assert code == 0
    assert (tmp_path / "out/metrics.json").read_text() == (trained / "run/metrics.json").read_text()


def test_another_split_can_be_named(trained: Path, tmp_path: Path) -> None:
    code = detector(
        "evaluate",
        f"checkpoint={trained}/run/checkpoints/last.ckpt",
        "data.val.annotations=train.json",
        "data.val.images=images",
        f"output_dir={tmp_path}/out",
    )
    assert code == 0
    assert (tmp_path / "out/predictions.json").read_text() != (trained / "run/predictions.json").read_text()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("green", "red"), "Only the checkpoint has: blue. Only the data has: red."),
        (("blue", "green"), "The order by category id differs: green, blue in the checkpoint."),
    ],
)
def test_data_with_other_classes_is_an_error(
    trained: Path, tmp_path: Path, names: tuple[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_dataset(tmp_path / "data", names=names)
    code = detector(
        "evaluate",
        f"checkpoint={trained}/run/checkpoints/best.ckpt",
        f"data.root={data}",
        f"output_dir={tmp_path}/out",
    )
    error = capsys.readouterr().err
    assert code == 2
    assert message in error
    assert "Traceback" not in error


def test_a_training_run_is_not_overwritten(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (trained / "run/metrics.json").read_text()
    code = detector(
        "evaluate", f"checkpoint={trained}/run/checkpoints/best.ckpt", f"output_dir={trained}/run"
    )
    assert code == 2
    assert "is a training run" in capsys.readouterr().err
    assert (trained / "run/metrics.json").read_text() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_accelerator_is_an_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").touch()
    code = detector(
        "evaluate", f"checkpoint={tmp_path}/a.ckpt", "accelerator=gpu", f"output_dir={tmp_path}/out"
    )
    assert code == 2
    assert "Choose auto or cpu" in capsys.readouterr().err


def test_overrides_replace_only_what_they_name() -> None:
    trained = {"root": "a", "num_workers": 2, "val": {"_target_": "x", "annotations": None, "images": "i"}}
    assert data_config(trained, {"num_workers": 0}) == {**trained, "num_workers": 0}
    merged = data_config(trained, {"root": "b", "val": {"annotations": "v.json"}})
    assert merged == {
        "root": "b",
        "num_workers": 2,
        "val": {"_target_": "x", "annotations": "v.json", "images": "i"},
        "source": None,
    }


def test_another_root_generates_nothing_and_leaves_absolute_paths_of_the_training() -> None:
    val = {"_target_": "x", "annotations": "/training/v.json", "images": "i"}
    merged = data_config({"root": "a", "val": val, "source": {"_target_": "y"}}, {"root": "b"})
    assert merged == {
        "root": "b",
        "val": {"_target_": "x", "annotations": None, "images": "i"},
        "source": None,
    }

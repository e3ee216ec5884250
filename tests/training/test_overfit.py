"""Eight images can be learned by heart: from boxes to losses to boxes, the whole chain fits together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.training.tiny import run_training, write_dataset


@pytest.fixture(scope="module")
def eight_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same eight images to train on, listed twenty times an epoch, and to validate on."""
    root = write_dataset(tmp_path_factory.mktemp("eight"), train_images=8)
    content = json.loads((root / "train.json").read_text())
    (root / "val.json").write_text(json.dumps(content))
    repeated = {
        **content,
        "images": [{**image, "id": image["id"] + 1000 * k} for k in range(20) for image in content["images"]],
        "annotations": [
            {**annotation, "id": annotation["id"] + 1000 * k, "image_id": annotation["image_id"] + 1000 * k}
            for k in range(20)
            for annotation in content["annotations"]
        ],
    }
    (root / "train.json").write_text(json.dumps(repeated))
    return root


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "stages"),
    [
        ("fcos", "[4,5]"),
        pytest.param("fcos", "[]", marks=pytest.mark.nightly),
        pytest.param("faster_rcnn_small", "[]", marks=pytest.mark.nightly),
        pytest.param("faster_rcnn_small", "[4,5]", marks=pytest.mark.nightly),
    ],
)
def test_eight_images_are_learned(eight_images: Path, tmp_path: Path, stages: str, model: str) -> None:
    run = run_training(
        eight_images,
        tmp_path / "run",
        f"model={model}",
        f"model.backbone.deform.stages={stages}",
        "data/augmentation=none",
        "data.batch_size=8",
        "optimizer=adamw",
        "optimizer.lr=0.001",
        "optimizer.reference_batch_size=8",
        "lr_scheduler.warmup_steps=5",
        "training.max_epochs=5",
        "training.check_val_every_n_epoch=5",
    )
    assert json.loads((run / "metrics.json").read_text())["AP50"] >= 0.95

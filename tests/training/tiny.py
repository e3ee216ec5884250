"""A dataset and a model small enough to train in a test, and runs of the whole command on them."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from lightning import Trainer
from omegaconf import DictConfig

from detector.cli.jobs import context_of
from detector.commands import train
from detector.config.build import build_options
from detector.config.paths import config_dir
from detector.data.datamodule import DetectionDataModule
from detector.training.module import DetectionModule

SIZE = 64
CLASSES = {7: "square", 3: "disc"}  # ids sparse and unordered, as real files have them
KEYPOINT_NAMES = ["left_corner", "right_corner"]


def write_dataset(root: Path, *, train_images: int = 8, val_images: int = 6, seed: int = 0) -> Path:
    """Gray noise with one or two bright squares and discs; image ids start at 100 (train) and 200 (val)."""
    rng = np.random.default_rng(seed)
    (root / "images").mkdir(parents=True)
    for split, count, first_id in (("train", train_images, 100), ("val", val_images, 200)):
        images: list[dict[str, Any]]
        annotations: list[dict[str, Any]]
        images, annotations = [], []
        for image_id in range(first_id, first_id + count):
            name = f"{split}{image_id}.png"
            image = rng.integers(0, 90, (SIZE, SIZE, 3), dtype=np.uint8)
            for corner in ((2, 2), (34, 34))[: rng.integers(1, 3)]:
                category = int(rng.choice([*CLASSES]))
                box = _draw(image, corner, int(rng.integers(16, 26)), category)
                annotations.append(
                    {"id": len(annotations), "image_id": image_id, "category_id": category, "bbox": box}
                )
            cv2.imwrite(str(root / "images" / name), image)
            images.append({"id": image_id, "file_name": name, "width": SIZE, "height": SIZE})
        categories = [{"id": number, "name": name} for number, name in CLASSES.items()]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / f"{split}.json").write_text(json.dumps(content))
    return root


def _draw(image: np.ndarray, corner: tuple[int, int], side: int, category: int) -> list[int]:
    x, y = corner
    if CLASSES[category] == "square":
        cv2.rectangle(image, (x, y), (x + side - 1, y + side - 1), (230, 230, 230), -1)
    else:
        cv2.circle(image, (x + side // 2, y + side // 2), side // 2, (230, 230, 230), -1)
    return [x, y, side, side]


def with_shapes(root: Path) -> Path:
    """The dataset, its boxes as masks of all objects but the first, upper corners as keypoints of squares."""
    for file in (root / "train.json", root / "val.json"):
        content = json.loads(file.read_text())
        for one in content["annotations"]:
            x, y, side, _ = one["bbox"]
            one["segmentation"] = [[x, y, x + side, y, x + side, y + side, x, y + side]]
            if one["category_id"] == 7:
                one |= {"keypoints": [x, y, 2, x + side, y, 2], "num_keypoints": 2}
        del content["annotations"][0]["segmentation"]
        for category in content["categories"]:
            if category["id"] == 7:
                category |= {"keypoints": KEYPOINT_NAMES, "skeleton": [[1, 2]]}
        file.write_text(json.dumps(content))
    return root


def tiny_overrides(root: Path, output_dir: Path) -> list[str]:
    """configs/train.yaml for the dataset in `root`: two epochs of two batches with a thin R18."""
    return [
        "data=coco",
        f"data.root={root}",
        f"data.image_size.min_size={SIZE}",
        f"data.image_size.max_size={SIZE}",
        "data.batch_size=4",
        "data.num_workers=0",
        "model.neck.out_channels=32",
        "optimizer=sgd",
        "optimizer.lr=0.01",
        "optimizer.reference_batch_size=4",
        "lr_scheduler=cosine",
        "training.ema_decay=null",
        "training.max_epochs=2",
        "training.accelerator=cpu",
        "name=tiny",
        f"output_dir={output_dir}",
    ]


def tiny_config(root: Path, output_dir: Path, *overrides: str) -> DictConfig:
    """configs/train.yaml with `tiny_overrides` and others."""
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return compose("train", overrides=[*tiny_overrides(root, output_dir), *overrides])


def run_training(root: Path, output_dir: Path, *overrides: str) -> Path:
    """Check and train, as the command line does. Returns `output_dir`."""
    cfg = tiny_config(root, output_dir, *overrides)
    train.run(build_options(cfg, train.Options), context_of(cfg))
    return output_dir


def assembled(
    root: Path, output_dir: Path, *overrides: str
) -> tuple[Trainer, DetectionModule, DetectionDataModule]:
    """`run_training` up to its fit: what it would fit, with the plan printed and nothing trained."""
    built: list[tuple[Trainer, DetectionModule, DetectionDataModule]] = []

    def stop(trainer: Trainer, module: DetectionModule, *, data: DetectionDataModule, **_: Any) -> None:
        built.append((trainer, module, data))
        raise _Assembled

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "fit", stop)
        with suppress(_Assembled):
            run_training(root, output_dir, *overrides)
    return built[0]


class _Assembled(Exception):
    pass


def copy_run(run: Path, folder: Path) -> Path:
    """A copy of the run in another folder, which its config.yaml does not name."""
    shutil.copytree(run, folder, copy_function=_copy)
    return folder


def _copy(source: str, target: str) -> None:
    (os.link if source.endswith(".ckpt") else shutil.copy2)(source, target)  # no test changes a checkpoint

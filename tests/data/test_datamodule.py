"""From a folder to batches."""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any, cast

import albumentations as A
import lightning
import numpy as np
import pytest
import torch
from torch import Tensor

from detector.coco.layouts import SplitPaths
from detector.data.collate import Batch, collate
from detector.data.datamodule import DetectionDataModule
from detector.data.samplers import TrainBatchSampler
from detector.data.transforms import ImageSize
from tests.coco.small_coco import as_coco, valid, write_dataset, write_image
from tests.shared import shared_path


def make(root: Path | None, **options: Any) -> DetectionDataModule:
    defaults: dict[str, Any] = {
        "root": None if root is None else str(root),
        "image_size": ImageSize(24, 32),
        "batch_size": 2,
        "val_batch_size": 2,
        "num_workers": 0,
        "seed": 0,
    }
    return DetectionDataModule(**(defaults | options))


def fit(root: Path | None, **options: Any) -> DetectionDataModule:
    module = make(root, **options)
    module.setup("fit")
    return module


def many_images(root: Path, count: int = 12) -> Path:
    """Portraits and landscapes, one box each."""
    content: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "thing"}]}
    for i in range(count):
        height, width = (48, 64) if i % 3 else (64, 40)
        write_image(root / f"images/{i}.jpg", height=height, width=width, seed=i)
        content["images"].append({"id": i, "file_name": f"{i}.jpg", "height": height, "width": width})
        box = {"id": i, "image_id": i, "category_id": 1, "bbox": [i, 2, 12, 20]}
        content["annotations"].append(box)
    for split in ("train", "val"):
        (root / f"{split}.json").write_text(json.dumps(content))
    return root


# --- batches


def test_a_batch_is_padded_with_zeros_and_says_how_far_it_reaches(tmp_path: Path) -> None:
    (first, _) = fit(write_dataset(tmp_path)).val_dataloader()
    assert first.images.shape == (2, 3, 32, 32)
    assert first.images.dtype == torch.uint8
    assert first.image_sizes.tolist() == [[24, 32], [32, 21]]
    assert first.original_sizes.tolist() == [[48, 64], [60, 40]]
    assert first.indices.tolist() == [0, 1]
    assert first.images[0, :, 24:].sum() == 0
    assert first.images[1, :, :, 21:].sum() == 0
    assert first.images[0, :, 23].sum() > 0


def test_targets_are_padded_without_crowds_and_scaled(tmp_path: Path) -> None:
    (first, last) = fit(write_dataset(tmp_path)).val_dataloader()
    assert first.targets.valid.tolist() == [[True, True], [True, False]]
    expected = torch.tensor([[2.625, 3.25, 12.625, 8.25], [25, 15, 32, 24]])
    torch.testing.assert_close(first.targets.boxes[0], expected)
    assert first.targets.labels.tolist() == [[0, 1], [1, 0]]
    assert last.targets.boxes.shape == (1, 0, 4)  # an image without boxes


def test_padding_is_to_the_largest_image_and_a_multiple_of_32(tmp_path: Path) -> None:
    module = fit(write_dataset(tmp_path), image_size=ImageSize(48, 70))
    batch = collate([module.val_set[0, 0], module.val_set[0, 1]])
    assert batch.image_sizes.tolist() == [[48, 64], [70, 47]]
    assert batch.images.shape == (2, 3, 96, 64)


def test_several_shorter_sides_are_drawn_in_training_and_the_last_evaluates(tmp_path: Path) -> None:
    module = fit(many_images(tmp_path), image_size=ImageSize((16, 24, 32), 64))
    drawn = {min(module.train_set[0, i].image.shape[1:]) for i in range(12)}
    assert drawn == {16, 24, 32}
    assert {min(module.val_set[0, i].image.shape[1:]) for i in range(12)} == {32}


def _epoch(root: Path, *, epoch: int, num_workers: int, seed: int = 0) -> str:
    transforms = {"flip": A.HorizontalFlip(p=0.5), "noise": A.GaussNoise(p=1)}
    module = fit(root, augmentation=transforms, num_workers=num_workers, seed=seed)
    loader = module.train_dataloader()
    assert isinstance(loader.batch_sampler, TrainBatchSampler)
    loader.batch_sampler.set_epoch(epoch)
    digest = hashlib.sha256()
    for batch in loader:
        for tensor in (batch.images, batch.indices, batch.targets.boxes, batch.targets.labels):
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("epoch", range(5))
def test_strongly_augmented_boxes_stay_inside_their_image(tmp_path: Path, epoch: int) -> None:
    transforms = {"crop": A.RandomCrop(30, 30), "affine": A.Affine(scale=(0.5, 2), rotate=(-45, 45), p=1)}
    module = fit(many_images(tmp_path), augmentation=transforms)
    for index in range(12):
        sample = module.train_set[epoch, index]
        height, width = sample.image.shape[1:]
        assert (sample.boxes >= 0).all()
        assert (sample.boxes <= torch.tensor([width, height, width, height])).all()
        assert (sample.boxes[:, :2] < sample.boxes[:, 2:]).all()
        assert len(sample.boxes) == len(sample.labels)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_an_epoch_is_the_same_with_any_number_of_workers(tmp_path: Path) -> None:
    root = many_images(tmp_path)
    assert len({_epoch(root, epoch=1, num_workers=n) for n in (0, 2, 4)}) == 1


def test_epochs_and_seeds_differ(tmp_path: Path) -> None:
    root = many_images(tmp_path)
    epochs = {(s, e): _epoch(root, epoch=e, seed=s, num_workers=0) for s in (0, 1) for e in (0, 1)}
    assert len(set(epochs.values())) == 4


def test_persistent_workers_learn_of_a_new_epoch(tmp_path: Path) -> None:
    """The epoch travels with the keys: it differs between passes over one loader, and repeats."""
    module = fit(many_images(tmp_path), augmentation={"noise": A.GaussNoise(p=1)}, num_workers=2)
    loader = module.train_dataloader()
    assert isinstance(loader.batch_sampler, TrainBatchSampler)
    sums = []
    for epoch in (0, 1, 0):
        loader.batch_sampler.set_epoch(epoch)
        sums.append([int(b.images.sum()) for b in loader])
    assert sums[0] == sums[2]
    assert sums[0] != sums[1]


def test_aspect_ratios_are_grouped(tmp_path: Path) -> None:
    root = many_images(tmp_path)  # 4 portraits, 8 landscapes
    for batch in fit(root, group_by_aspect_ratio=True).train_dataloader():
        assert len({bool(h > w) for h, w in batch.original_sizes.tolist()}) == 1


def test_images_without_boxes_are_dropped_from_training_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        module = fit(write_dataset(tmp_path), drop_images_without_boxes=True)
    assert (len(module.train_set), len(module.val_set)) == (2, 3)
    assert "1 images without boxes" in caplog.text


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_image_damaged_after_the_checks_stops_the_run_with_its_name_alone(
    tmp_path: Path, num_workers: int
) -> None:
    module = fit(write_dataset(tmp_path), num_workers=num_workers)
    path = tmp_path / "images/b.jpg"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"b\.jpg: cannot be decoded .*Restore") as error:
        list(module.val_dataloader())
    assert str(error.value).startswith(str(path))


# --- set-up


def test_set_up_is_idempotent_and_tells_the_classes(tmp_path: Path) -> None:
    module = fit(write_dataset(tmp_path))
    before = module.train_set
    module.setup("fit")
    module.setup("validate")
    assert module.train_set is before
    assert (module.class_names, module.category_ids, module.num_classes) == (("blood", "cell"), (0, 20), 2)


def test_validation_alone_needs_no_training_split(tmp_path: Path) -> None:
    root = write_dataset(tmp_path)
    (root / "train.json").unlink()
    module = make(root)
    module.setup("validate")
    assert len(module.val_set) == 3


def test_fit_after_validation_reads_the_training_split_too(tmp_path: Path) -> None:
    module = make(write_dataset(tmp_path))
    module.setup("validate")
    module.setup("fit")
    assert len(module.train_set) == 3


def test_splits_that_disagree_on_classes_are_refused(tmp_path: Path) -> None:
    val = valid()
    val["categories"][1]["name"] = "plasma"
    with pytest.raises(ValueError, match='id 0: "blood" in train, "plasma" in val'):
        fit(write_dataset(tmp_path, val=val))


def test_classes_that_share_a_name_are_refused(tmp_path: Path) -> None:
    content = valid()
    content["categories"].append({"id": 33, "name": "cell"})
    with pytest.raises(ValueError, match=r'"cell": ids \[20, 33\]'):
        fit(write_dataset(tmp_path, train=content, val=content))


def _with_root() -> dict[str, Any]:
    content = valid()
    for category in content["categories"]:
        category["supercategory"] = "things"
    content["categories"].append({"id": 1, "name": "things", "supercategory": "none"})
    return content


def test_an_unused_root_category_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        module = fit(write_dataset(tmp_path, train=_with_root(), val=_with_root()))
    assert module.category_ids == (0, 20)
    assert module.val_set.annotations.labels.tolist() == [0, 1, 1, 1]
    assert 'category 1 "things" is used by no annotation' in caplog.text


def test_a_root_category_that_one_split_uses_stays(tmp_path: Path) -> None:
    val = _with_root()
    val["annotations"][0]["category_id"] = 1
    module = fit(write_dataset(tmp_path, train=_with_root(), val=val))
    assert module.category_ids == (0, 1, 20)


def test_a_class_of_the_model_is_no_root_category(tmp_path: Path) -> None:
    """In training another split used it."""
    root = write_dataset(tmp_path, train=_with_root(), val=_with_root())
    module = make(root)
    module.know_classes(("blood", "things", "cell"))
    module.setup("validate")
    assert module.category_ids == (0, 1, 20)


def test_an_unused_category_that_is_no_root_stays(tmp_path: Path) -> None:
    content = valid()
    content["categories"].append({"id": 5, "name": "unseen"})
    assert fit(write_dataset(tmp_path, train=content, val=content)).num_classes == 3


def test_the_fingerprint_follows_the_annotations(tmp_path: Path) -> None:
    one = fit(write_dataset(tmp_path / "a")).fingerprint
    changed = valid()
    changed["annotations"][0]["bbox"][0] = 1.5
    assert fit(write_dataset(tmp_path / "b")).fingerprint == one
    assert fit(write_dataset(tmp_path / "c", train=changed)).fingerprint != one


def test_no_root_says_what_to_pass() -> None:
    with pytest.raises(ValueError, match=r"data\.root=FOLDER"):
        fit(None)


class Generated:
    """A source that puts its data into a folder of its own choice."""

    def generate(self, root: Path) -> Path:
        folder = root.with_name(root.name + "-1")
        return folder if folder.exists() else write_dataset(folder)


def test_a_source_decides_where_its_data_lies(tmp_path: Path) -> None:
    module = make(tmp_path / "made", source=Generated())
    module.prepare_data()
    module.setup("fit")
    assert module.train_set.annotations.path == tmp_path / "made-1/train.json"


# --- with Lightning


class Recorder(lightning.LightningModule):
    """Learns nothing; remembers what it saw."""

    def __init__(self, stop_after: int | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[tuple[int, list[int]]] = []

    def training_step(self, batch: Batch, _: int) -> Tensor:
        self.seen.append((self.current_epoch, batch.indices.tolist()))
        return self.weight * 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def _train(
    root: Path, tmp_path: Path, *, epochs: int, num_workers: int, resume: Path | None = None
) -> list[tuple[int, list[int]]]:
    model = Recorder()
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(model, datamodule=make(root, num_workers=num_workers), ckpt_path=resume, weights_only=True)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    return model.seen


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("num_workers", [0, 2])
def test_lightning_announces_each_epoch_and_resumes_in_the_right_one(
    tmp_path: Path, num_workers: int
) -> None:
    root = many_images(tmp_path / "data")
    whole = _train(root, tmp_path, epochs=3, num_workers=num_workers)
    expected = [
        (e, b.tolist())
        for e in range(3)
        for b in cast(TrainBatchSampler, fit(root).train_dataloader().batch_sampler).batches(e)
    ]
    assert whole == expected
    _train(root, tmp_path, epochs=2, num_workers=num_workers)
    resumed = _train(root, tmp_path, epochs=3, num_workers=num_workers, resume=tmp_path / "last.ckpt")
    assert resumed == [(e, b) for e, b in expected if e == 2]


# --- real data


def test_bccd_is_read_whole() -> None:
    module = fit(shared_path("data/bccd"), image_size=ImageSize(240, 320))
    assert module.class_names == ("RBC", "WBC", "Platelets")
    assert (len(module.train_set), len(module.val_set)) == (292, 72)
    assert len(module.train_set.annotations.labels) == 3941
    batch = next(iter(module.val_dataloader()))
    assert batch.images.shape == (2, 3, 256, 320)


def test_coco_keeps_its_sparse_ids_crowds_and_empty_images() -> None:
    module = fit(shared_path("data/coco_cc"))
    assert module.num_classes == 80
    assert module.category_ids[-1] == 90
    train, val = module.train_set.annotations, module.val_set.annotations
    assert train.crowd.sum() + val.crowd.sum() == 9
    empty = sum(int(np.sum(np.diff(split.first) == 0)) for split in (train, val))
    assert empty == 3


def test_coco_ground_truth_is_the_file_itself() -> None:
    module = make(shared_path("data/coco_cc"))
    module.setup("validate")
    original = json.loads((shared_path("data/coco_cc") / "val.json").read_text())
    truth = as_coco(module.val_set.annotations)
    keys = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
    assert {a["id"]: a for a in truth["annotations"]} == {
        a["id"]: {k: a[k] for k in keys} for a in original["annotations"]
    }
    assert [i["id"] for i in truth["images"]] == [i["id"] for i in original["images"]]


def test_explicit_splits_reach_the_reader(tmp_path: Path) -> None:
    root = write_dataset(tmp_path)
    module = fit(root, train=SplitPaths("val.json", "images"))
    assert module.train_set.annotations.path == root / "val.json"

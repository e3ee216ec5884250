"""A dataset as a person at a prompt uses it."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch

from detector.coco.reader import read_coco
from detector.data.dataset import CocoDataset
from detector.data.transforms import ImageSize
from tests.training.tiny import SIZE, write_dataset


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "set")


def test_index_alone_is_the_first_epoch(root: Path) -> None:
    dataset = CocoDataset(
        read_coco(str(root / "val.json"), str(root / "images")), image_size=ImageSize(48, 48)
    )
    assert torch.equal(dataset[3].image, dataset[0, 3].image)
    assert dataset[-1].index == 5
    assert [sample.index for sample in dataset] == [0, 1, 2, 3, 4, 5]  # type: ignore[attr-defined]  # by index
    with pytest.raises(IndexError):
        dataset[6]


def test_number_is_the_longest_side(root: Path) -> None:
    dataset = CocoDataset(read_coco(root / "val.json", root / "images"), image_size=SIZE // 2)
    assert dataset[0].image.shape == (3, SIZE // 2, SIZE // 2)


def test_text_names_the_file_and_its_contents(root: Path) -> None:
    dataset = CocoDataset(read_coco(root / "val.json", root / "images"), image_size=SIZE)
    assert f"{root / 'val.json'}: 6 images, 9 objects, 2 classes" in repr(dataset)


def test_file_in_place_of_annotations_is_told(root: Path) -> None:
    path: Any = str(root / "val.json")
    without_the_check_of_tests = inspect.unwrap(CocoDataset.__init__)
    with pytest.raises(TypeError, match=r"as read_coco\(file, images\) returns them, got '.*val.json'"):
        without_the_check_of_tests(object.__new__(CocoDataset), path, image_size=SIZE)

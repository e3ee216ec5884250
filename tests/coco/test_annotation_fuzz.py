"""Any annotation file gives a result or a ValueError that can be printed, in seconds: never a traceback."""

import copy
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from detector.coco.reader import read_coco
from detector.data.datamodule import DetectionDataModule
from detector.data.transforms import ImageSize
from detector.evaluation.coco import CocoEvaluator
from tests.coco.small_coco import valid, write_dataset

_LIMIT_S = 10.0

_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 100),
    st.sampled_from([2**31, 2**63, -(2**63) - 1, 10**30, 10**400, 1e308, -1e308, 5e-324, 0.0, -0.0]),
    st.floats(),
    st.text(max_size=6),
    st.sampled_from(["\ud800", "a\0b", "../a.jpg", "a.jpg", "7", "", "\u2028", "\x1b[31m", "x" * 5000]),
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
_KEYS = {
    "images": ("id", "file_name", "width", "height"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "ignore", "segmentation"),
    "categories": ("id", "name", "supercategory"),
}


@st.composite
def broken_files(draw: st.DrawFn) -> Any:
    """A valid file in which some values are anything, or missing, or whole entries are."""
    content: Any = valid()
    for _ in range(draw(st.integers(1, 4))):
        section = draw(st.sampled_from(list(_KEYS)))
        how = draw(st.sampled_from(["value"] * 6 + ["box", "missing", "entry", "section", "repeat"]))
        entries = content[section]
        if not isinstance(entries, list) or not entries:
            continue
        entry = entries[draw(st.integers(0, len(entries) - 1))]
        if how == "section":
            content[section] = draw(_VALUES)
        elif how == "entry":
            entries.append(draw(_VALUES))
        elif how == "repeat":
            entries.append(copy.deepcopy(entry))
        elif isinstance(entry, dict):
            key = draw(st.sampled_from(_KEYS[section]))
            if how == "missing":
                entry.pop(key, None)
            elif how == "box":
                entry["bbox"] = draw(st.lists(_SCALARS, min_size=4, max_size=4))
            else:
                entry[key] = draw(_VALUES)
    return content


def require_result_or_message(root: Path, text: str) -> None:
    """Read `text` as both verbs do, with both policies."""
    for name in ("train.json", "val.json"):
        (root / name).write_text(text, encoding="utf-8", errors="surrogatepass")
    started = time.monotonic()
    for drop in (False, True):
        for read in (_as_training, _as_truth):
            message = _message_of(read, root, drop)
            message.encode("utf-8")  # can be printed
            assert ".json" in message, "names the file"
    assert time.monotonic() - started < _LIMIT_S


def _message_of(read: Callable[[Path, bool], None], root: Path, drop: bool) -> str:
    """The message of the ValueError; where there is none, the file's name."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            read(root, drop)
    except ValueError as error:
        return str(error)
    return "val.json"


def _as_training(root: Path, drop: bool) -> None:
    module = DetectionDataModule(
        root=str(root),
        image_size=ImageSize(24, 32),
        batch_size=1,
        val_batch_size=1,
        num_workers=0,
        seed=0,
        on_bad_box="drop" if drop else "error",
        on_bad_image="skip" if drop else "error",
    )
    module.setup("fit")
    truth = module.val_set.ground_truth()
    names = (*truth.class_names, *truth.file_names, *(value for _, value in truth.image_numbers))
    json.dumps(names, ensure_ascii=False).encode("utf-8")  # what is written to files later
    CocoEvaluator(truth)
    for index in range(len(module.train_set)):
        boxes = module.train_set[0, index].boxes
        assert (boxes[:, 2:] > boxes[:, :2]).all()


def _as_truth(root: Path, drop: bool) -> None:
    evaluator = CocoEvaluator(root / "val.json", on_bad_box="drop" if drop else "error")
    evaluator.truth.require_objects()
    "".join(evaluator.class_names).encode("utf-8")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("fuzz"))


_SETTINGS = settings(
    deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck), max_examples=30
)


def _with(section: str, **changes: Any) -> dict[str, Any]:
    content = valid()
    content[section][1].update(changes)
    return content


@_SETTINGS
@given(content=broken_files())
@example(content=valid() | {"images": [*valid()["images"], {}]})
@example(content=valid() | {"annotations": [*valid()["annotations"], {}]})
@example(content=valid() | {"annotations": [*valid()["annotations"], {"bbox": [1, 2, 3, 4]}]})
@example(content=_with("annotations", iscrowd=[1]))
@example(content=_with("annotations", iscrowd={"a": 1}))
@example(content=_with("annotations", bbox=[1, 2, 3, 10**400]))
@example(content=_with("annotations", area=10**400))
@example(content=_with("annotations", id=10**400))
@example(content=_with("annotations", image_id=[[]]))
@example(content=_with("annotations", category_id=None))
@example(content=_with("images", id=10**30))
@example(content=_with("images", width=10**400))
@example(content=_with("images", id="\ud800"))
@example(content=_with("images", file_name="\ud800.jpg"))
@example(content=_with("categories", id=10**30))
@example(content=_with("categories", name="\ud800"))
@example(content=_with("categories", name=["a"]))
@example(content=_with("categories", supercategory="\ud800"))
@example(content=_with("categories", supercategory=[["a"]]))
def test_wrong_values_anywhere(root: Path, content: Any) -> None:
    require_result_or_message(root, json.dumps(content))


@pytest.mark.slow
@settings(_SETTINGS, max_examples=100)
@given(content=broken_files())
def test_wrong_values_anywhere_many(root: Path, content: Any) -> None:
    require_result_or_message(root, json.dumps(content))


_TEXT = json.dumps(valid())


@_SETTINGS
@given(at=st.integers(0, len(_TEXT)), cut=st.integers(0, 40), put=st.text(max_size=6))
def test_damaged_text(root: Path, at: int, cut: int, put: str) -> None:
    require_result_or_message(root, _TEXT[:at] + put + _TEXT[at + cut :])


def _nested(depth: int, *, open_: str, close: str) -> str:
    return open_ * depth + "1" + close * depth


@pytest.mark.parametrize("depth", [500, 900, 990, 100_000])
@pytest.mark.parametrize(("open_", "close"), [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("images", "id"),
        ("images", "file_name"),
        ("images", "height"),
        ("annotations", "id"),
        ("annotations", "iscrowd"),
        ("annotations", "bbox"),
        ("annotations", "image_id"),
        ("annotations", "segmentation"),
        ("categories", "name"),
        ("categories", "supercategory"),
    ],
)
def test_deep_nesting(root: Path, depth: int, open_: str, close: str, section: str, key: str) -> None:
    content = valid()
    content[section][0][key] = "HERE"
    require_result_or_message(
        root, json.dumps(content).replace('"HERE"', _nested(depth, open_=open_, close=close))
    )


@pytest.mark.parametrize("digits", [400, 4300, 5000])
@pytest.mark.parametrize(
    ("section", "key"), [("images", "id"), ("annotations", "area"), ("categories", "id")]
)
def test_integers_of_many_digits(root: Path, digits: int, section: str, key: str) -> None:
    content = valid()
    content[section][0][key] = "HERE"
    require_result_or_message(root, json.dumps(content).replace('"HERE"', "9" * digits))


def test_the_valid_file_is_read(root: Path) -> None:
    """Or the tests above would prove nothing."""
    (root / "train.json").write_text(json.dumps(valid()))
    assert len(read_coco(root / "train.json", images_dir=root / "images").labels) == 4

"""Checkpoints whose entries do not fit: one message that names file and entry, never a traceback."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR

from detector.checkpoint import load_checkpoint
from detector.cli.jobs import _is_users
from detector.predictor import Predictor
from detector.training.checkpoint_io import AtomicCheckpointIO
from detector.training.resumable import require_entries, require_fitting
from tests.training.tiny import run_training, write_dataset

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("forms")
    data = write_dataset(folder / "data", train_images=4, val_images=2)
    options = ("training.max_epochs=1", "model.head.num_convs=1", "optimizer.momentum=0")
    return run_training(data, folder / "run", *options)


@pytest.fixture(scope="module")
def whole(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.fixture(scope="module")
def light(whole: dict[str, Any]) -> dict[str, Any]:
    """`whole` in a file of kilobytes: each tensor of the model repeats its first value."""
    state = {
        name: value.flatten()[0].clone().expand(value.shape) for name, value in whole["state_dict"].items()
    }
    return {**whole, "state_dict": state}


def setting(path: str, value: object) -> Change:
    """Put a value at a place such as detector/config/model."""

    def change(content: dict[str, Any]) -> None:
        inside, last = _descend(content, path)
        inside[last] = value

    return change


def removing(path: str) -> Change:
    def change(content: dict[str, Any]) -> None:
        inside, last = _descend(content, path)
        del inside[last]

    return change


def _descend(content: Any, path: str) -> tuple[Any, Any]:
    *parents, last = (int(name) if name.isdigit() else name for name in path.split("/"))
    for name in parents:
        content = content[name]
    return content, last


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


def doubling(levels: int) -> list[Any]:
    value: list[Any] = [1]
    for _ in range(levels):
        value = [value, value]
    return value


def itself() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["a"] = value
    return value


CLASSES = "state_dict/model.head.classification_head.cls_logits.bias"
MODEL = "detector/config/model"
FORMS: dict[str, tuple[Change, str]] = {
    "no record": (removing("detector"), "no checkpoint of"),
    "a list as record": (setting("detector", [1]), "no checkpoint of"),
    "no weights": (removing("state_dict"), "no checkpoint of"),
    **{
        f"no {name}": (removing(f"detector/{name}"), rf"detector\.{name} is missing, expected")
        for name in ("class_names", "category_ids", "config", "weights", "metrics", "epoch", "step")
    },
    "no format": (removing("detector/format"), r"detector\.format is None, expected 1 to 4"),
    "a later format": (setting("detector/format", 99), "format 99, this version reads 1 to 4"),
    "a huge format": (setting("detector/format", 10**30), "this version reads 1 to 4"),
    "text as format": (setting("detector/format", "2"), r"detector\.format is '2'"),
    "true as format": (setting("detector/format", True), r"detector\.format is True"),
    "a number as names": (setting("detector/class_names", 5), r"class_names is 5, expected a list of"),
    "text as names": (setting("detector/class_names", "ab"), r"class_names is 'ab'"),
    "numbers as names": (setting("detector/class_names", [1, 2]), r"class_names is a list of 2"),
    "names twice": (setting("detector/class_names", ["a", "a"]), "different texts"),
    "no names": (setting("detector/class_names", []), "class_names is a list of 0"),
    "half a character": (setting("detector/class_names", ["a", "\ud800"]), "class_names is a list of 2"),
    "more names than ids": (setting("detector/class_names", ["a", "b", "c"]), "has 3 and .* 2 entries"),
    "a dict as ids": (setting("detector/category_ids", {}), "category_ids is a dict of 0"),
    "a huge id": (setting("detector/category_ids", [1, 2**80]), "category_ids is a list of 2"),
    "a list as config": (setting("detector/config", []), "config is a list of 0"),
    "tensors in the config": (setting("detector/config/x", torch.ones(2)), "dict of plain values"),
    "a deep config": (setting("detector/config/x", deep(100)), "dict of plain values"),
    "a huge config": (setting("detector/config/x", doubling(60)), "dict of plain values"),
    "a config in itself": (setting("detector/config/x", itself()), "dict of plain values"),
    "a number as prefix": (setting("detector/weights", 3), r"detector\.weights is 3"),
    "another prefix": (setting("detector/weights", "x."), "no tensor whose name begins with"),
    "a list as metrics": (setting("detector/metrics", [0.5]), "metrics is a list of 1"),
    "text as metric": (setting("detector/metrics", {"AP": "0.5"}), "metrics is a dict of 1"),
    "a fraction as epoch": (setting("detector/epoch", 1.5), r"epoch is 1\.5"),
    "a number among the rows": (setting("epoch_rows", [1]), "epoch_rows is a list of 1, expected a list of"),
    "text as rows": (setting("epoch_rows", "abc"), "epoch_rows is 'abc'"),
    "a row with a text": (setting("epoch_rows", [{"epoch": "1"}]), "epoch_rows is a list of 1"),
    "a negative step": (setting("detector/step", -1), "step is -1"),
    "a list as weights": (setting("state_dict", [torch.ones(1)]), "state_dict is a list of 1"),
    "numbers as names of weights": (setting("state_dict", {1: torch.ones(1)}), "tensors by name"),
    "weights that are not finite": (
        setting(CLASSES, torch.tensor([1.0, torch.nan])),
        "1 of 2 values that are",
    ),
    "fewer classes": (setting(CLASSES, torch.ones(1)), r"has the shape \(1,\), expected \(2,\)"),
    "integers as weights": (setting(CLASSES, torch.ones(2, dtype=torch.int64)), "holds int64, expected"),
    "text as weights": (setting(CLASSES, "x"), r"cls_logits\.bias is missing"),
    "a weight is missing": (removing(CLASSES), r"1 of \d+ entries do not fit: .*cls_logits\.bias is missing"),
    "a weight too many": (setting("state_dict/model.x", torch.ones(1)), "x is unknown"),
    "a scalar as weight": (setting(CLASSES, torch.tensor(1.0)), r"has the shape \(\)"),
    "an empty config": (setting("detector/config", {}), "needs it and it is not given"),
    "no model": (removing(MODEL), "model: .*not given"),
    "a list as model": (setting(MODEL, []), "not one of this version"),
    "text as model": (setting(MODEL, "fcos"), "not one of this version"),
    "a model of another version": (setting(f"{MODEL}/backbone/wings", 2), r"model\.backbone\.wings"),
    "a model of no kind": (
        setting(MODEL, {"_target_": "torch.nn.Linear", "_partial_": True}),
        "builds no detector|builds a",
    ),
    "a model that is made": (setting(f"{MODEL}/_partial_", False), "needs it and it is not given"),
    "a layer as backbone": (
        setting(f"{MODEL}/backbone", {"_target_": "torch.nn.Identity"}),
        "builds no detector",
    ),
    "somebody's code": (setting(f"{MODEL}/_target_", "os.system"), "os.system: not allowed"),
    "a number as target": (setting(f"{MODEL}/_target_", 3), "expected the dotted name"),
    "no image size": (removing("detector/config/data/image_size"), "image_size"),
    "a list as image size": (setting("detector/config/data/image_size", [1]), "image_size"),
    "no data": (removing("detector/config/data"), "data: .*not given"),
    "another precision": (setting("detector/config/training/precision", "8"), "precision"),
    "a list as training": (setting("detector/config/training", [1]), "training"),
}


def write(content: object, path: Path) -> Path:
    torch.save(content, path)
    return path


def assert_one_message(path: Path, call: Callable[[], object]) -> str:
    """What is told to the user: an error of ours that names the file."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (any: what counts is who raises it)
        call()
    assert _is_users(caught.value)
    text = str(caught.value)
    assert str(path) in text
    assert "weights_only" not in text
    return text


@pytest.mark.parametrize("form", FORMS)
def test_a_form_that_does_not_fit_is_told(form: str, light: dict[str, Any], tmp_path: Path) -> None:
    change, message = FORMS[form]
    content = deepcopy(light)
    change(content)
    path = write(content, tmp_path / "x.ckpt")
    started = time.monotonic()
    text = assert_one_message(path, lambda: Predictor(path))
    assert re.search(message, text), text
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("content", [[1], 3, "text", None, torch.ones(2), {}, {1: 2}], ids=repr)
def test_another_torch_file_is_told(content: object, tmp_path: Path) -> None:
    path = write(content, tmp_path / "x.ckpt")
    assert_one_message(path, lambda: Predictor(path))


def test_all_problems_are_told_at_once(light: dict[str, Any], tmp_path: Path) -> None:
    content = deepcopy(light)
    content["detector"] |= {"class_names": 5, "epoch": "one"}
    path = write(content, tmp_path / "x.ckpt")
    assert "2 problems: detector.class_names is 5" in assert_one_message(path, lambda: load_checkpoint(path))


def test_what_training_has_written_is_used(run: Path, whole: dict[str, Any], tmp_path: Path) -> None:
    """Also without what later versions added to the configuration."""
    Predictor(run / "checkpoints" / "best.ckpt")
    content = deepcopy(whole)
    config = content["detector"]["config"]
    for place, name in ((config["training"], "channels_last"), (config["model"], "weights_images")):
        del place[name]
    Predictor(write(content, tmp_path / "old.ckpt"))


# --- damage


def test_a_changed_byte_is_told_with_what_is_whole(run: Path, tmp_path: Path) -> None:
    for name in ("best", "last"):
        (tmp_path / f"{name}.ckpt").write_bytes((run / "checkpoints" / f"{name}.ckpt").read_bytes())
    last = tmp_path / "last.ckpt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    for load in (load_checkpoint, AtomicCheckpointIO().load_checkpoint):
        text = assert_one_message(last, lambda load=load: load(last))  # type: ignore[misc]
        assert "damaged: its entry" in text
        assert f"Use {tmp_path / 'best.ckpt'}, which is whole" in text
    (tmp_path / "best.ckpt").unlink()
    assert "Copy it again" in assert_one_message(last, lambda: load_checkpoint(last))


@pytest.mark.slow
def test_any_changed_byte_is_told_or_does_no_harm(run: Path, tmp_path: Path) -> None:
    whole = (run / "checkpoints" / "last.ckpt").read_bytes()
    expected = load_checkpoint(run / "checkpoints" / "last.ckpt").state_dict
    path, rng, noticed = tmp_path / "x.ckpt", random.Random(0), 0
    for _ in range(60):
        content = bytearray(whole)
        content[rng.randrange(len(content))] ^= rng.randrange(1, 256)
        path.write_bytes(content)
        try:
            loaded = load_checkpoint(path).state_dict
        except ValueError as error:
            noticed += 1
            assert _is_users(error)  # noqa: PT017 (either is right)
        else:
            assert all(torch.equal(loaded[name], value) for name, value in expected.items())
    assert noticed > 50


# --- going on from one

RESUMED: dict[str, tuple[Change, str]] = {
    "no version": (removing("pytorch-lightning_version"), "pytorch-lightning_version is missing"),
    "text as epoch": (setting("epoch", "1"), "epoch is '1', expected an integer"),
    "no loops": (removing("loops"), "loops is missing"),
    "a list as loops": (setting("loops", []), "loops is a list of 0"),
    "numbers as callbacks": (setting("callbacks", {"Checkpoints": 3}), "callbacks is a dict of 1"),
    "a dict as optimizers": (setting("optimizer_states", {}), "optimizer_states is a dict of 0"),
    "numbers as schedulers": (setting("lr_schedulers", [1]), "lr_schedulers is a list of 1"),
}


@pytest.mark.parametrize("form", RESUMED)
def test_entries_that_a_training_needs_are_told(form: str, whole: dict[str, Any], tmp_path: Path) -> None:
    change, message = RESUMED[form]
    content = deepcopy(whole)
    change(content)
    path = write(content, tmp_path / "x.ckpt")
    assert message in assert_one_message(path, lambda: AtomicCheckpointIO().load_checkpoint(path))


def small_training() -> tuple[nn.Module, SGD, LambdaLR]:
    module = nn.Linear(2, 3)
    optimizer = SGD(module.parameters(), lr=0.1, momentum=0.9)
    module(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return module, optimizer, LambdaLR(optimizer, lambda step: 1.0)


LOOPS = {"fit_loop": {"epoch_progress": {"total": {"ready": 1}}}}
OPTIMIZER = "optimizer_states/0"
FITTING: dict[str, tuple[Change, str]] = {
    "whole": (lambda content: None, ""),
    "no loop": (setting("loops", {}), "loops.fit_loop is missing"),
    "text as progress": (setting("loops/fit_loop/epoch_progress/total/ready", "1"), "ready is '1', expected"),
    "no optimizer": (setting("optimizer_states", []), "has 0 entries"),
    "no groups": (removing(f"{OPTIMIZER}/param_groups"), "with param_groups and state"),
    "other groups": (
        setting(f"{OPTIMIZER}/param_groups/0/params", [0]),
        "are of [1] parameters, expected [2]",
    ),
    "no state": (removing(f"{OPTIMIZER}/state"), "param_groups are of"),
    "text as rate": (setting(f"{OPTIMIZER}/param_groups/0/lr", "x"), "lr is 'x'"),
    "another shape": (
        setting(f"{OPTIMIZER}/state/0/momentum_buffer", torch.ones(5)),
        "of shape [5], expected [3, 2]",
    ),
    "another key": (setting(f"{OPTIMIZER}/state/x", 1), "has 'x'"),
    "no scheduler": (setting("lr_schedulers", []), "has 0 entries, expected 1"),
    "text as step": (setting("lr_schedulers/0/last_epoch", "x"), "last_epoch is 'x'"),
    "a list of texts": (setting("lr_schedulers/0/base_lrs", ["x"]), "base_lrs[0] is 'x'"),
    "a weight is missing": (removing("state_dict/bias"), "bias is missing"),
    "another weight": (setting("state_dict/bias", torch.ones(7)), "bias is of shape (7,)"),
    "text as weight": (setting("state_dict/bias", "x"), "bias is 'x', expected a tensor"),
}


@pytest.mark.parametrize("form", FITTING)
def test_what_does_not_fit_the_training_is_told(form: str) -> None:
    change, message = FITTING[form]
    module, optimizer, scheduler = small_training()
    content: dict[str, Any] = {
        "epoch": 0,
        "global_step": 1,
        "pytorch-lightning_version": "2.6",
        "state_dict": dict(module.state_dict()),
        "loops": deepcopy(LOOPS),
        "callbacks": {},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [scheduler.state_dict()],
    }
    change(content)
    fresh, optimizer, scheduler = small_training()

    def check() -> None:
        require_entries(content, source="x")
        require_fitting(
            content, module=fresh, optimizer=optimizer, scheduler=scheduler.state_dict(), loops=LOOPS
        )

    if not message:
        check()
        return
    with pytest.raises(ValueError, match="training cannot resume from it") as caught:
        check()
    assert message in str(caught.value)


# --- anything at all

JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(exclude_categories=[])),
    st.lists(st.integers(), max_size=3), st.dictionaries(st.text(max_size=3), st.integers(), max_size=3),
    st.sampled_from([torch.ones(2), torch.tensor(float("nan")), torch.zeros(0), 2**100, deep(200), itself()]),
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield (*path, key)
        yield from places(inner, (*path, key))


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_anything_anywhere_is_a_message_or_a_detector(
    whole: dict[str, Any], tmp_path: Path, data: st.DataObject
) -> None:
    content = deepcopy({key: whole[key] for key in ("detector", "state_dict")})
    # Deep ones first, and none within another: what is put in has no places, and may hold itself.
    chosen = st.lists(
        st.sampled_from(sorted(places(content["detector"]), key=str)), min_size=1, max_size=3, unique=True
    )
    for *parents, last in sorted(data.draw(chosen), key=len, reverse=True):
        place: Any = content["detector"]
        for key in parents:
            place = place[key]
        if last not in (range(len(place)) if isinstance(place, list) else place):
            continue
        if data.draw(st.booleans()):
            place[last] = data.draw(JUNK)
        else:
            place.pop(last)
    path = write(content, tmp_path / "x.ckpt")
    try:
        Predictor(path)
    except ValueError as error:
        assert _is_users(error), repr(error)  # noqa: PT017 (either is right)

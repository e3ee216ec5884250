"""Files of weights as other programs write them: read without running code, or told what is wrong."""

from __future__ import annotations

import argparse
import builtins
import datetime
import functools
import io
import itertools
import math
import operator
import os
import pathlib
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict, defaultdict, deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from detector.weights.files import StoredWeights
from detector.weights.published import read_weights
from tests.weights.safetensors_files import write_safetensors

STATE = {"conv1.weight": torch.arange(4.0), "bn1.running_mean": torch.ones(2)}


def read(path: Path) -> StoredWeights:
    return read_weights(str(path), option="model.weights", published={})


def assert_same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(actual) == list(expected)
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


class Buffer:
    """As mmengine's history buffer: arrays, and its own methods."""

    def __init__(self) -> None:
        self.history = np.arange(3.0)
        self.methods = {"mean": Buffer.mean}

    def mean(self) -> float:
        return 0.0


@pytest.fixture
def mmengine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of a package that is gone when its file is read."""
    module = types.ModuleType("mmengine_that_is_not_installed")
    history = type("HistoryBuffer", (Buffer,), {"__module__": module.__name__})
    module.HistoryBuffer = history  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return history


class Options(dict[str, Any]):
    """As a dictionary of options with attributes."""


EXTRAS: dict[str, Any] = {
    "numpy scalar": np.float64(0.5),
    "numpy array": np.arange(4).reshape(2, 2),
    "numpy dtype": np.dtype("float32"),
    "array of objects": np.array([1, "a", None], dtype=object),
    "namespace": argparse.Namespace(lr=0.1, out=pathlib.Path("a/b")),
    "simple namespace": types.SimpleNamespace(a=1),
    "path": pathlib.PurePosixPath("/data"),
    "ordered": OrderedDict(a=1),
    "default dict": defaultdict(list, a=[1]),
    "deque": deque([1, 2], maxlen=3),
    "time": datetime.datetime(2026, 1, 2),
    "set": {1, 2, "x"},
    "partial": functools.partial(dict),
    "object": Buffer(),
    "dict of options": Options(a=1),
    "module": nn.Linear(2, 2),
    "type": int,
    "huge number": 2**200,
    "bytes": b"abc",
    "buffer": io.BytesIO(b"abc"),
    "iterator": iter([1, 2]),
    "counter": itertools.count(3),
    "getter": operator.itemgetter(0),
    "function of the standard library": math.sqrt,
}


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "old format"])
@pytest.mark.parametrize("kind", EXTRAS)
def test_tensors_beside_other_objects_are_read(
    tmp_path: Path, kind: str, zipped: bool, protocol: int
) -> None:
    content = {"extra": EXTRAS[kind], "state_dict": OrderedDict(STATE), "list": [EXTRAS[kind]]}
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    assert_same(read(tmp_path / "x.pth").state, STATE)


def test_what_is_left_out_is_named_and_its_package_not_needed(
    tmp_path: Path, mmengine: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save({"message_hub": {"loss": mmengine()}, "state_dict": STATE}, tmp_path / "x.pth")
    monkeypatch.delitem(sys.modules, mmengine.__module__)
    assert_same(read(tmp_path / "x.pth").state, STATE)
    assert "holds more than tensors, of which nothing is used" in caplog.text
    assert "mmengine_that_is_not_installed.HistoryBuffer" in caplog.text


def test_plain_files_are_read_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING")
    torch.save(STATE, tmp_path / "x.pth")
    assert_same(read(tmp_path / "x.pth").state, STATE)
    assert not caplog.text


class Call:
    """Pickled as a call of a function."""

    def __init__(self, function: Any, *stored: object) -> None:
        self.call = function, stored

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    "function", [os.mkdir, builtins.eval, builtins.exec, os.makedirs], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("ending", [".pth", ".pkl"])
def test_code_is_refused_by_name_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: Any, ending: str
) -> None:
    monkeypatch.chdir(tmp_path)
    text = "__import__('pathlib').Path('ran').mkdir()" if function in (eval, exec) else "ran"
    content = {"state_dict": STATE, "extra": Call(function, text)}
    if ending == ".pth":
        torch.save(content, tmp_path / "x.pth")
    else:
        (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": np.ones(2), "extra": Call(function, text)}))
    with pytest.raises(ValueError, match="could run code: it is not loaded") as error:
        read(tmp_path / f"x{ending}")
    assert function.__name__ in str(error.value)
    assert "torch.save(model.state_dict()" in str(error.value)
    assert not (tmp_path / "ran").exists()


def test_functions_of_other_packages_are_not_called(tmp_path: Path) -> None:
    torch.save(
        {"state_dict": STATE, "extra": Call(np.save, str(tmp_path / "ran.npy"), 1)}, tmp_path / "x.pth"
    )
    assert_same(read(tmp_path / "x.pth").state, STATE)
    assert not (tmp_path / "ran.npy").exists()


def test_a_pickle_cannot_change_what_rebuilds_tensors(tmp_path: Path) -> None:
    """BUILD with slots sets attributes of whatever lies on the stack, a function of torch's as well."""
    attack = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}X\x0c\x00\x00\x00__defaults__K\x01s\x86b."
    (tmp_path / "x.pkl").write_bytes(attack)
    before = torch._utils._rebuild_tensor_v2.__defaults__
    with pytest.raises(ValueError, match="attributes of a function"):
        read(tmp_path / "x.pkl")
    assert torch._utils._rebuild_tensor_v2.__defaults__ == before


def test_a_whole_model_is_read_as_its_state_dict(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Sequential(nn.BatchNorm2d(2)))
    model.register_buffer("left_out", torch.ones(1), persistent=False)
    torch.save({"epoch": 1, "model": model}, tmp_path / "x.pt")
    assert_same(read(tmp_path / "x.pt").state, dict(model.state_dict()))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "optimizer": {"state": {"a": torch.ones(1)}}},
        lambda s: {"model": s},
        lambda s: {"model_state_dict": s, "epoch": 1},
        lambda s: {"ema": {"module": s}},
        lambda s: {"model": {"state_dict": s}},
        lambda s: {"teacher": s},
        lambda s: {
            "detector_weights": s,
            "optimizer": {"a.b": torch.ones(3), "c": torch.ones(1), "d": torch.ones(1)},
        },
    ],
)
def test_the_state_dict_is_found(tmp_path: Path, wrap: Any) -> None:
    torch.save(wrap(STATE), tmp_path / "x.pth")
    assert_same(read(tmp_path / "x.pth").state, STATE)


def test_of_several_state_dicts_one_is_taken_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save({"model_ema": {"a": torch.zeros(1)}, "model": STATE}, tmp_path / "x.pth")
    assert_same(read(tmp_path / "x.pth").state, STATE)
    assert "model of" in caplog.text
    assert "It also holds model_ema" in caplog.text


def test_pickles_of_arrays_are_read(tmp_path: Path) -> None:
    """As Detectron2 and Paddle write them; big-endian numbers too."""
    arrays = {"a": np.arange(3, dtype=np.float32), "b": np.arange(2, dtype=">f8")}
    (tmp_path / "d2.pkl").write_bytes(pickle.dumps({"model": arrays, "__author__": "x"}))
    expected = {"a": torch.arange(3.0), "b": torch.arange(2, dtype=torch.float64)}
    assert_same(read(tmp_path / "d2.pkl").state, expected)
    paddle = {**arrays, "StructuredToParameterName@@": {"a": "conv2d_0.w_0"}}
    for protocol in (2, 4):
        (tmp_path / "x.pdparams").write_bytes(pickle.dumps(paddle, protocol))
        assert_same(read(tmp_path / "x.pdparams").state, expected)


def test_classes_of_mmdetection_are_read(tmp_path: Path) -> None:
    for meta in ({"dataset_meta": {"classes": ("cat", "dog")}}, {"CLASSES": ["cat", "dog"]}):
        torch.save({"meta": meta, "state_dict": STATE}, tmp_path / "x.pth")
        assert read(tmp_path / "x.pth").class_names == ("cat", "dog")


# --- safetensors


def test_safetensors_are_read(tmp_path: Path) -> None:
    values = np.arange(6, dtype=np.float32)
    path = write_safetensors(
        tmp_path / "x.safetensors",
        {
            "b": ("F32", [2, 3], values.tobytes()),
            "half": ("F16", [3], values[:3].astype(np.float16).tobytes()),
            "brain": ("BF16", [2], struct.pack("<2H", 0x3F80, 0x4000)),
            "count": ("I64", [], struct.pack("<q", 7)),
            "empty": ("F32", [0, 4], b""),
        },
    )
    actual = read(path).state
    assert torch.equal(actual["b"], torch.arange(6.0).reshape(2, 3))
    assert torch.equal(actual["half"], torch.arange(3).half())
    assert torch.equal(actual["brain"], torch.tensor([1.0, 2.0], dtype=torch.bfloat16))
    assert (actual["count"].item(), actual["empty"].shape) == (7, (0, 4))
    actual["b"].add_(1)  # they are tensors of their own


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: b[:5], "5 bytes"),
        (lambda b: b[:20], "cut off or damaged"),
        (lambda b: b[:-4], "cut off"),
        (lambda b: b + b"1234", "damaged"),
        (lambda b: b.replace(b'"F32"', b'"F99"'), "expected dtype"),
        (lambda b: b.replace(b"[2, 3]", b"[2, 4]"), "lies at bytes 0 to 24, expected 0 to 32"),
        (lambda b: b.replace(b"[2, 3]", b"[2,-3]"), "expected dtype"),
        (lambda b: b.replace(b"[0, 24]", b"[4, 28]"), "lies at bytes 4 to 28"),
        (lambda b: b.replace(b'"b"', b'"b '), "no JSON"),
        (lambda b: b"\xff" * 8 + b[8:], "header should have"),
        (lambda b: struct.pack("<Q", 2) + b"[]", "no table"),
    ],
)
def test_damaged_safetensors_are_an_error(tmp_path: Path, damage: Any, message: str) -> None:
    path = write_safetensors(tmp_path / "x.safetensors", {"b": ("F32", [2, 3], bytes(24))})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=message) as error:
        read(path)
    assert str(path) in str(error.value)


# --- damage, and files that are none


def flipped(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_a_flipped_bit_is_damage_wherever_it_is(tmp_path: Path) -> None:
    """torch itself compares no sums, and loads other numbers."""
    torch.save({"a": torch.arange(3000.0)}, tmp_path / "x.pth")
    whole = (tmp_path / "x.pth").read_bytes()
    with zipfile.ZipFile(tmp_path / "x.pth") as archive:
        for entry in archive.infolist():
            flipped(tmp_path / "x.pth", whole.index(archive.read(entry)) + entry.file_size // 2)
            with pytest.raises(ValueError, match=f"damaged: its entry {entry.filename}.*Copy or download"):
                read(tmp_path / "x.pth")
            (tmp_path / "x.pth").write_bytes(whole)


def test_the_other_checkpoint_of_a_run_is_named_where_one_is_damaged(tmp_path: Path) -> None:
    for name in ("best.ckpt", "last.ckpt"):
        torch.save({"a": torch.arange(3000.0)}, tmp_path / name)
    flipped(tmp_path / "last.ckpt", (tmp_path / "last.ckpt").stat().st_size // 2)
    with pytest.raises(ValueError, match=rf"damaged: .*Use {tmp_path / 'best.ckpt'}, which is whole"):
        read(tmp_path / "last.ckpt")


def test_archives_without_sums_are_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(STATE, tmp_path / "x.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert_same(read(tmp_path / "x.pth").state, STATE)


def test_other_files_are_told_apart(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "script.pt")
    np.savez(tmp_path / "arrays.npz", a=np.ones(2))
    contents: dict[str, tuple[bytes, str]] = {
        "empty.pth": (b"", "empty"),
        "page.pth": (b"<!DOCTYPE html>", "HTML"),
        "lfs.pth": (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        "keras.pth": (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
        "text.pth": (b"hello" * 50, "not a file of torch.save"),
        "script.pt": ((tmp_path / "script.pt").read_bytes(), r"torch\.jit\.load"),
        "arrays.pth": ((tmp_path / "arrays.npz").read_bytes(), "not one of torch.save"),
        "list.pkl": (pickle.dumps([1, 2]), "holds no tensors but list"),
        "cut.pkl": (pickle.dumps({"a": np.arange(100.0)})[:200], "pickle cannot be read"),
    }
    for name, (content, message) in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message) as error:
            read(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)
        assert "weights_only" not in str(error.value)


def test_a_folder_names_the_files_in_it(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(ValueError, match=r"is a folder\. Give one of its files: model\.safetensors"):
        read(tmp_path)


@pytest.mark.parametrize("content", [{}, {"a": 1}, [torch.ones(1)], torch.ones(2), "text", None], ids=repr)
def test_files_without_a_state_dict_are_an_error(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="expected a dict of parameter names and tensors"):
        read(tmp_path / "x.pth")


def test_where_torch_may_load_nothing_else_the_message_names_what_is_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")
    torch.save({"state_dict": STATE, "args": argparse.Namespace(a=1)}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="cannot be read") as error:
        read(tmp_path / "x.pth")
    assert "weights_only" not in str(error.value)


def test_no_message_recommends_to_unpickle() -> None:
    package = Path(__file__).resolve().parents[2] / "detector"
    texts = [path.read_text(encoding="utf-8") for path in (package / "weights").glob("*.py")]
    texts += [path.read_text(encoding="utf-8") for path in package.rglob("checkpoint*.py")]
    assert texts
    assert not [text for text in texts if "weights_only=False" in text]

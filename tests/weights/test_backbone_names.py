"""Names of other projects' ResNets: each map is total and one to one, and gives equal weights."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor

from detector.backbones.resnet import ResNet
from detector.layers.deform import DeformableStages
from detector.weights.backbone_names import to_torchvision
from tests.weights.safetensors_files import write_safetensors

COUNTS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def hugging_face(name: str, depth: int) -> str:
    """As in transformers' ResNetModel: stages, layers and layers of these from 0 on, convolution and norm."""
    name = re.sub(r"^conv1\.", "embedder.embedder.convolution.", name)
    name = re.sub(r"^bn1\.", "embedder.embedder.normalization.", name)
    name = re.sub(r"^layer(\d)\.(\d+)\.", lambda m: f"encoder.stages.{int(m[1]) - 1}.layers.{m[2]}.", name)
    name = re.sub(r"\.conv(\d)\.", lambda m: f".layer.{int(m[1]) - 1}.convolution.", name)
    name = re.sub(r"\.bn(\d)\.", lambda m: f".layer.{int(m[1]) - 1}.normalization.", name)
    name = name.replace(".downsample.0.", ".shortcut.convolution.")
    return name.replace(".downsample.1.", ".shortcut.normalization.")


def paddle(name: str, depth: int) -> str:
    return name.replace("running_mean", "_mean").replace("running_var", "_variance")


def paddle_detection(name: str, depth: int) -> str:
    """As in ppdet's ResNet: res3b, or res4b2 in stages of more than ten blocks; branches 2a to 2c."""
    name = re.sub(r"^conv1\.", "conv1.conv1.conv.", paddle(name, depth))
    name = re.sub(r"^bn1\.", "conv1.conv1.norm.", name)

    def block(match: re.Match[str]) -> str:
        stage, number = int(match[1]) + 1, int(match[2])
        letter = chr(ord("a") + number)
        if stage == 4 and COUNTS[depth][2] > 10 and number:
            letter = f"b{number}"
        return f"res{stage}.res{stage}{letter}."

    name = re.sub(r"^layer(\d)\.(\d+)\.", block, name)
    if name.startswith("res"):
        name = name.replace(".offset.", ".conv_offset.")
        name = re.sub(r"\.conv(\d)\.", lambda m: f".branch2{'abc'[int(m[1]) - 1]}.conv.", name)
        name = re.sub(r"\.bn(\d)\.", lambda m: f".branch2{'abc'[int(m[1]) - 1]}.norm.", name)
    name = name.replace(".downsample.0.", ".short.conv.")
    return name.replace(".downsample.1.", ".short.norm.")


PROJECTS: dict[str, Callable[[str, int], str]] = {
    "hugging face": hugging_face,
    "paddle": paddle,
    "paddle detection": paddle_detection,
}


def own_state(depth: Literal[18, 34, 50, 101]) -> dict[str, Tensor]:
    with torch.device("meta"):
        return ResNet(depth, norm="batch").state_dict()


@pytest.mark.parametrize("depth", COUNTS)
@pytest.mark.parametrize("project", PROJECTS)
@pytest.mark.parametrize("prefix", ["", "resnet.", "module.backbone."])
def test_map_is_total_and_one_to_one(project: str, depth: Literal[18, 34, 50, 101], prefix: str) -> None:
    ours = own_state(depth)
    theirs = {prefix + PROJECTS[project](name, depth): value for name, value in ours.items()}
    assert len(theirs) == len(ours)
    assert list(to_torchvision(theirs)) == [prefix + name for name in ours]


@pytest.mark.parametrize("depth", COUNTS)
def test_our_names_stay(depth: Literal[18, 34, 50, 101]) -> None:
    with torch.device("meta"):
        model = ResNet(depth, deform=DeformableStages(stages=(3, 4, 5)))
    assert list(to_torchvision(model.state_dict())) == list(model.state_dict())


def trained(depth: int = 18, **options: object) -> ResNet:
    torch.manual_seed(1)
    model = ResNet(depth, norm="batch", **options)  # type: ignore[arg-type]
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5)
    return model


def assert_same_weights(a: ResNet, b: ResNet) -> None:
    for (name, x), (_, y) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(x, y), name


@pytest.mark.parametrize("project", PROJECTS)
def test_files_of_other_projects_load(project: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Hugging Face as safetensors, behind a prefix and with a classifier; Paddle as a pickle of arrays."""
    model = trained()
    theirs = {PROJECTS[project](name, 18): value.numpy() for name, value in model.state_dict().items()}
    if project == "hugging face":
        path = write_safetensors(
            tmp_path / "model.safetensors",
            {
                **{
                    f"resnet.{name}": ("F32" if v.dtype.kind == "f" else "I64", list(v.shape), v.tobytes())
                    for name, v in theirs.items()
                },
                "classifier.1.bias": ("F32", [3], bytes(12)),
            },
        )
    else:
        path = tmp_path / "model.pdparams"
        path.write_bytes(pickle.dumps({**theirs, "StructuredToParameterName@@": {"a": "b"}}, protocol=4))
    assert_same_weights(ResNet(18, norm="batch", weights=str(path)), model)
    assert "not used" not in caplog.text
    assert "keep their initialization" not in caplog.text


def test_offsets_beside_the_convolution_as_in_backbones_of_paddle_detection() -> None:
    names = [
        "res5.res5a.branch2b.conv_offset.bias",
        "res5.res5a.branch2b.conv.weight",
        "conv1.res_conv1.conv.weight",
    ]
    expected = ["layer4.0.conv2.offset.bias", "layer4.0.conv2.weight", "conv1.weight"]
    assert list(to_torchvision(dict.fromkeys(names, torch.ones(1)))) == expected


def deformable_paddle_file(tmp_path: Path) -> Path:
    deform = DeformableStages(stages=(5,), modulation="sigmoid")
    state = trained(deform=deform).state_dict()
    theirs = {}
    for name, value in state.items():
        new = paddle_detection(name, 18)
        if re.search(r"layer4\.\d\.conv2\.weight", name):
            new = new.replace(".conv.weight", ".conv.conv_dcn.weight")
        theirs[new] = value.numpy()
    assert "res5.res5a.branch2b.conv.conv_offset.bias" in theirs
    assert theirs["res5.res5a.branch2b.conv.conv_offset.bias"].shape == (27,)
    (tmp_path / "dcn.pdparams").write_bytes(pickle.dumps(theirs))
    return tmp_path / "dcn.pdparams"


def test_deformable_layers_of_paddle_detection_load(tmp_path: Path) -> None:
    deform = DeformableStages(stages=(5,), modulation="sigmoid")
    model = ResNet(18, norm="batch", deform=deform, weights=str(deformable_paddle_file(tmp_path)))
    assert_same_weights(model, trained(deform=deform))


def test_their_mask_of_another_function_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Set model\.backbone\.deform\.modulation=sigmoid"):
        ResNet(18, deform=DeformableStages(stages=(5,)), weights=str(deformable_paddle_file(tmp_path)))


@pytest.mark.parametrize(
    "prefix", ["model.", "module.", "backbone.body.", "module.backbone.", "teacher.backbone."]
)
def test_prefixes_are_found(prefix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    model = trained()
    state = {f"{prefix}{name}": value for name, value in model.state_dict().items()}
    if prefix.startswith("teacher"):
        state |= {k.replace("teacher", "student"): torch.zeros_like(v) for k, v in state.items()}
    torch.save({"model_state_dict": {**state, "head.weight": torch.ones(1)}}, tmp_path / "x.pth")
    assert_same_weights(ResNet(18, norm="batch", weights=str(tmp_path / "x.pth")), model)
    assert f"entries that begin with {prefix} are taken" in caplog.text


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.full((64,), torch.nan), "bn1.weight has 64 of 64 values that are not finite"),
        (torch.full((64,), 1e300, dtype=torch.float64), "not finite"),
        (torch.ones(64, dtype=torch.int64), "bn1.weight holds int64, expected float32"),
        (torch.ones(64, dtype=torch.complex64), "holds complex64"),
        (torch.ones(64).to_sparse(), "sparse"),
        (torch.ones(64, device="meta"), "has no values"),
    ],
    ids=["nan", "overflow", "integers", "complex", "sparse", "meta"],
)
def test_values_of_no_use_are_an_error(value: Tensor, message: str, tmp_path: Path) -> None:
    torch.save({**trained().state_dict(), "bn1.weight": value}, tmp_path / "x.pth")
    with pytest.raises(ValueError, match=message) as error:
        ResNet(18, norm="batch", weights=str(tmp_path / "x.pth"))
    assert "1 entry cannot be used" in str(error.value)


def test_half_precision_weights_load(tmp_path: Path) -> None:
    state = {k: v.half() if v.is_floating_point() else v for k, v in trained().state_dict().items()}
    torch.save(state, tmp_path / "x.pth")
    weight = ResNet(18, norm="batch", weights=str(tmp_path / "x.pth")).conv1.weight
    assert torch.equal(weight, state["conv1.weight"].float())

"""ResNet with injected convolutions: names, equality with torchvision, freezing, weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

import pytest
import torch
import torchvision

from detector.backbones.resnet import ResNet
from detector.layers.deform import DeformableStages, DeformConv2d, Modulation
from detector.layers.norms import NormKind


@pytest.mark.parametrize("depth", [18, 34, 50, 101])
def test_parameter_names_and_shapes_are_torchvisions(depth: Literal[18, 34, 50, 101]) -> None:
    theirs = getattr(torchvision.models, f"resnet{depth}")().state_dict()
    ours = ResNet(depth, norm="batch").state_dict()
    assert {k: v.shape for k, v in ours.items()} == {
        k: v.shape for k, v in theirs.items() if not k.startswith("fc.")
    }


@pytest.mark.parametrize("depth", [18, 50])
def test_features_equal_torchvisions(depth: Literal[18, 50]) -> None:
    theirs = getattr(torchvision.models, f"resnet{depth}")().eval()
    ours = ResNet(depth, norm="batch", out_stages=(2, 3, 4, 5)).eval()
    ours.load_state_dict({k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")})
    x = torch.randn(1, 3, 64, 96)
    expected = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
    for feature, name in zip(ours(x), ("layer1", "layer2", "layer3", "layer4"), strict=True):
        expected = getattr(theirs, name)(expected)
        torch.testing.assert_close(feature, expected)


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("modulation", ["none", "doubled_sigmoid"])
def test_deformable_equals_regular_before_training(depth: Literal[18, 50], modulation: Modulation) -> None:
    torch.manual_seed(0)
    regular = ResNet(depth, norm="batch").eval()
    deformable = ResNet(
        depth, norm="batch", deform=DeformableStages(stages=(3, 4, 5), modulation=modulation)
    ).eval()
    missing, unexpected = deformable.load_state_dict(regular.state_dict(), strict=False)
    assert not unexpected
    assert missing
    assert all(".conv2.offset." in name for name in missing)
    x = torch.randn(2, 3, 64, 64)
    for a, b in zip(regular(x), deformable(x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("version", [3, 4])
def test_depthwise_layers_keep_their_initialization(version: Literal[3, 4]) -> None:
    """In both kinds of blocks; projections of 512 channels drawn uniformly up to sqrt(6 / 1024)."""
    for depth in (18, 50):
        model = ResNet(depth, norm="batch", deform=DeformableStages(stages=(5,), version=version))
        for block in cast(Any, model.layer4):
            assert block.conv2.offset[-1].weight.eq(0).all()
            largest = float(block.conv2.input_proj.weight.detach().abs().max())
            assert largest == pytest.approx((6 / 1024) ** 0.5, rel=1e-3)
        assert [x.shape[-1] for x in model(torch.randn(2, 3, 64, 64))] == [8, 4, 2]


def test_offsets_stay_zero_after_initialization() -> None:
    model = ResNet(18, deform=DeformableStages(stages=(5,)))
    offsets = [p for name, p in model.named_parameters() if ".offset." in name]
    assert len(offsets) == 4
    assert all(p.eq(0).all() for p in offsets)


@pytest.mark.parametrize(("blocks", "expected"), [("all", {0, 1, 2}), ("last", {2}), ((0, -1), {0, 2})])
def test_blocks_choose_within_a_stage(
    blocks: Literal["all", "last"] | tuple[int, ...], expected: set[int]
) -> None:
    model: Any = ResNet(50, deform=DeformableStages(stages=(5,), blocks=blocks))
    deformable = {i for i, block in enumerate(model.layer4) if isinstance(block.conv2, DeformConv2d)}
    assert deformable == expected
    assert not any(isinstance(block.conv2, DeformConv2d) for block in model.layer3)


@pytest.mark.parametrize("norm", ["frozen_batch", "batch", "sync_batch", "group"])
def test_every_norm_runs(norm: NormKind) -> None:
    assert [f.shape[1] for f in ResNet(18, norm=norm).eval()(torch.randn(1, 3, 64, 64))] == [128, 256, 512]


def test_frozen_stages_keep_weights_and_statistics() -> None:
    model = ResNet(18, norm="batch", frozen_stages=2).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(torch.randn(2, 3, 64, 64))[-1].square().mean().backward()
    optimizer.step()
    moved = {k.split(".")[0] for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {"layer2", "layer3", "layer4"}


def test_out_stages_must_ascend() -> None:
    with pytest.raises(ValueError, match=r"ascending stages out of 2\.\.5, got \[4, 3\]"):
        ResNet(18, out_stages=(4, 3))


@pytest.mark.parametrize(
    ("depth", "options", "where"),
    [(18, {}, "first convolution of a block"), (50, {"stride_in_1x1": True}, "1x1 convolution")],
    ids=str,
)
def test_fallback_on_stride_needs_a_stride(
    depth: Literal[18, 50], options: dict[str, Any], where: str
) -> None:
    deform = DeformableStages(stages=(4,), fallback_on_stride=True)
    with torch.device("meta"):
        with pytest.raises(ValueError, match=f"fallback_on_stride=true: in this ResNet-{depth} the {where}"):
            ResNet(depth, deform=deform, **options)
        layer3: Any = ResNet(50, deform=deform).layer3
    assert [isinstance(block.conv2, DeformConv2d) for block in layer3] == [False] + 5 * [True]


@pytest.mark.parametrize("options", [{"stages": (2,)}, {"stages": (3,), "blocks": "last"}], ids=str)
def test_fallback_on_stride_needs_a_deformable_block_with_one(options: dict[str, Any]) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match="only the first block of C3, C4 and C5 has"):
        ResNet(50, deform=DeformableStages(fallback_on_stride=True, **options))


def test_a_sweep_may_leave_fallback_on_stride_without_stages() -> None:
    with torch.device("meta"):
        ResNet(18, deform=DeformableStages(fallback_on_stride=True, stages=()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"version": 3, "offset_groups": 4},
            "version=3, offset_groups=4 changes nothing, for deform.stages=",
        ),
        ({"modulation": "none", "blocks": "last"}, "blocks=last, modulation=none changes nothing"),
        ({"modulation": "doubled_sigmoid", "offset_groups": 1}, ""),
        ({"version": 3, "stages": (5,)}, ""),
    ],
    ids=str,
)
def test_options_of_no_deformable_stage_are_told(
    options: dict[str, Any], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    """And no error: a sweep over the stages may have a point without any."""
    with torch.device("meta"):
        ResNet(18, deform=DeformableStages(**options))
    assert len(caplog.records) == bool(message)
    assert message in caplog.text


def test_stages_above_the_last_are_not_built_and_cannot_deform() -> None:
    names = {name.split(".")[0] for name, _ in ResNet(18, out_stages=(3, 4)).named_parameters()}
    assert names == {"conv1", "layer1", "layer2", "layer3"}
    with pytest.raises(ValueError, match=r"\[5\] goes beyond the last of out_stages \[3, 4\]"):
        ResNet(18, out_stages=(3, 4), deform=DeformableStages(stages=(5,)))


# --- weights from a file ---


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(torchvision.models.resnet18().state_dict(), path)
    return path


def test_local_weights_load_and_new_offsets_are_reported(
    weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    model = ResNet(18, norm="frozen_batch", deform=DeformableStages(stages=(5,)), weights=str(weights))
    expected = torch.load(weights, weights_only=True)
    torch.testing.assert_close(cast(Any, model.layer4)[1].conv2.weight, expected["layer4.1.conv2.weight"])
    assert "4 offset-branch entries are new" in caplog.text


def test_depthwise_layers_start_anew_in_the_place_of_local_weights(
    weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    deform = DeformableStages(stages=(5,), version=3)
    model = ResNet(18, norm="batch", deform=deform, weights=str(weights))
    expected = torch.load(weights, weights_only=True)
    torch.testing.assert_close(cast(Any, model.layer4)[1].conv1.weight, expected["layer4.1.conv1.weight"])
    assert "2 convolutions of" in caplog.text
    assert "start anew: layer4.0.conv2, layer4.1.conv2" in caplog.text
    assert "not used" not in caplog.text
    assert "are not in" not in caplog.text


def test_entries_of_stages_not_built_are_reported(weights: Path, caplog: pytest.LogCaptureFixture) -> None:
    ResNet(18, out_stages=(3, 4), weights=str(weights))
    assert "30 entries" in caplog.text or "25 entries" in caplog.text
    assert "layer4" in caplog.text


def test_unused_entries_are_reported(weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = torch.load(weights, weights_only=True) | {"extra.weight": torch.zeros(1)}
    torch.save(state, tmp_path / "more.pth")
    ResNet(18, weights=str(tmp_path / "more.pth"))
    assert "1 entries" in caplog.text
    assert "extra.weight" in caplog.text


def test_weights_of_another_architecture_are_an_error(weights: Path) -> None:
    with pytest.raises(ValueError, match="not the weights of a resnet50"):
        ResNet(50, weights=str(weights))


def test_cut_off_weights_are_an_error(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.pth").write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="cut off or damaged"):
        ResNet(18, weights=str(tmp_path / "cut.pth"))


def test_legacy_tar_weights_are_an_error_that_tells_the_cure(tmp_path: Path) -> None:
    import io
    import tarfile

    with tarfile.open(tmp_path / "old.pth", "w") as tar:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(ValueError, match="old tar format"):
        ResNet(18, weights=str(tmp_path / "old.pth"))


@pytest.mark.parametrize(
    ("name", "text"), [("nowhere.pth", "no such file"), ("IMAGENET9", "neither a file nor")]
)
def test_unknown_weights_are_an_error(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        ResNet(18, weights=name)


def test_resnext_has_torchvisions_names_and_shapes() -> None:
    with torch.device("meta"):
        theirs, ours = torchvision.models.resnext101_32x8d(), ResNet(101, groups=32, width_per_group=8)
    expected = {
        k: v.shape for k, v in theirs.state_dict().items() if "num_batches" not in k and "fc." not in k
    }
    assert {k: v.shape for k, v in ours.state_dict().items()} == expected


def test_stride_in_1x1_moves_the_stride_and_nothing_else() -> None:
    model: Any = ResNet(50, stride_in_1x1=True)
    assert (model.layer2[0].conv1.stride, model.layer2[0].conv2.stride) == ((2, 2), (1, 1))
    shapes = [tuple(x.shape) for x in model(torch.zeros(1, 3, 64, 64))]
    assert shapes == [tuple(x.shape) for x in ResNet(50)(torch.zeros(1, 3, 64, 64))]


@pytest.mark.parametrize("options", [{"groups": 32}, {"width_per_group": 4}, {"stride_in_1x1": True}])
def test_options_of_bottlenecks_need_them(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="ResNet-18 has no bottlenecks"):
        ResNet(18, **options)

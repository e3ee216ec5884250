"""What is measured of deformable layers in training, where it goes, and what is warned of."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from detector.layers.deform import DeformConv2d
from detector.layers.deform_depthwise import DepthwiseDeformConv2d
from detector.layers.roi_pooling import DeformRoIPool
from detector.ops.deform_conv.geometry import Geometry
from detector.ops.deform_conv.statistics import sampling_statistics
from detector.structures import FeatureSpec
from detector.training.module import NonFiniteLossError
from detector.training.offset_warnings import OffsetWatch
from detector.training.offsets import OffsetMeter
from tests.samples import make_batch, small_faster_rcnn, total
from tests.training.tiny import run_training, write_dataset

FINE = {"mean_px": 0.5, "effective_dilation": 1.2, "outside": 0.01, "gradient_norm": 0.1}


def two_layers() -> nn.Sequential:
    torch.manual_seed(0)
    convolutions = [
        DeformConv2d(3, 3, 3, stride=stride, padding=1, offset_init="normal") for stride in (2, 1)
    ]
    return nn.Sequential(*convolutions)


# --- the meter ---


def test_meter_finds_the_statistics_of_what_a_layer_computes() -> None:
    model, x = two_layers(), torch.randn(2, 3, 9, 8)
    meter = OffsetMeter(model)
    meter.start()
    model(x)
    statistics = meter.stop()
    offset, mask = cast(DeformConv2d, model[0]).sampling(x)
    geometry = Geometry((3, 3), (2, 2), (1, 1), (1, 1), 1, 1)
    expected = sampling_statistics(offset, mask, geometry=geometry, input_size=(9, 8))
    assert statistics.keys() == {"0", "1"}
    assert statistics["0"] == pytest.approx({name: value.item() for name, value in expected.items()})


def test_meter_weights_passes_by_their_positions() -> None:
    model = nn.Sequential(DeformConv2d(1, 1, 3, padding=1))
    meter = OffsetMeter(model)
    meter.start()
    for length_px, size in ((1.0, 4), (2.0, 8)):
        nn.init.constant_(cast(Any, model[0]).offset.bias[:18:2], length_px)
        model(torch.zeros(1, 1, size, size))
    assert meter.stop()["0"]["mean_px"] == pytest.approx((1 * 16 + 2 * 64) / 80)


def test_meter_finds_layers_of_every_kind() -> None:
    """Depth-wise ones, and pooling whose bins move, whose numbers are of the regions of a step."""
    torch.manual_seed(0)
    model = small_faster_rcnn(pooling=partial(DeformRoIPool, width=16))
    cast(Any, model.neck).layer_blocks[0][0] = DepthwiseDeformConv2d(32, 32, 3, padding=1, version=3)
    meter = OffsetMeter(model)
    meter.start()
    total(model.train().loss(make_batch([[[8.0, 8, 40, 40]]], [[0]], sizes=[(64, 64)]))).backward()
    meter.record_gradients()
    statistics = meter.stop()
    expected = {"mean_px": 0, "outside": 0, "modulation_mean": 1, "modulation_entropy": 1}
    pooled = statistics["head.roi_heads.pooling"]
    assert pooled.pop("gradient_norm") > 0
    assert pooled == pytest.approx(expected)
    depthwise = statistics["neck.layer_blocks.0.0"]
    assert depthwise.pop("gradient_norm") > 0
    assert depthwise == pytest.approx({**expected, "modulation_mean": 1 / 9, "effective_dilation": 1})


def test_meter_of_pooling_measures_in_cells_of_each_level() -> None:
    levels = [FeatureSpec("p2", 2, 4), FeatureSpec("p3", 2, 8)]
    layer = DeformRoIPool(levels, output_size=3, width=4, aligned=True)
    for branch in cast(Any, layer.offset):
        nn.init.constant_(branch.shift[-1].bias, 1.0)  # a tenth of the sides
    meter = OffsetMeter(nn.ModuleList([layer]))
    meter.start()
    boxes = torch.tensor([[0.0, 0, 30, 40], [0, 0, 120, 160]])  # of p2 and p3
    layer([torch.zeros(1, 2, 64, 64), torch.zeros(1, 2, 32, 32)], boxes, torch.zeros(2).long())
    assert meter.stop()["0"]["mean_px"] == pytest.approx((0.1 * 50 / 4 + 0.1 * 200 / 8) / 2)


def test_meter_takes_no_notice_of_empty_passes() -> None:
    model = nn.Sequential(DeformConv2d(1, 1, 3, padding=1))
    meter = OffsetMeter(model)
    meter.start()
    model(torch.zeros(0, 1, 7, 7))
    assert meter.stop() == {}


def test_meter_takes_the_norm_of_the_gradients_of_the_branch() -> None:
    model = two_layers()
    model[1].offset.requires_grad_(False)
    meter = OffsetMeter(model)
    meter.start()
    model(torch.randn(1, 3, 8, 8)).square().sum().backward()
    meter.record_gradients()
    statistics = meter.stop()
    gradients = [p.grad.flatten() for p in cast(Any, model[0]).offset.parameters()]
    assert statistics["0"]["gradient_norm"] == pytest.approx(torch.cat(gradients).norm().item())
    assert "gradient_norm" not in statistics["1"]


def test_meter_knows_inputs_by_their_names() -> None:
    model, x = two_layers(), torch.randn(2, 3, 9, 8)
    meter, statistics = OffsetMeter(model), []
    for call in (lambda: model[0](x), lambda: model[0](x=x)):
        meter.start()
        call()
        statistics.append(meter.stop())
    assert statistics[0] == statistics[1]
    assert statistics[0].keys() == {"0"}


@pytest.mark.parametrize("end", [OffsetMeter.stop, OffsetMeter.cancel])
def test_meter_leaves_nothing_behind(end: Callable[[OffsetMeter], object]) -> None:
    compiled: Any
    model, compiled = two_layers(), []
    meter = OffsetMeter(model)
    meter.start()
    end(meter)
    assert not any(layer._forward_hooks for layer in model.modules())
    torch.compile(lambda x: x + 1, backend=lambda graph, _: compiled.append(graph) or graph.forward)(
        torch.ones(1)
    )
    assert compiled


def test_meter_sees_into_a_compiled_model_and_does_not_compile_it_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(DeformConv2d, "forward", lambda layer, x: layer.offset(x))  # compiles in no time
    model, x = nn.Sequential(DeformConv2d(3, 3, 3)), torch.randn(2, 3, 9, 8)
    compiled: list[object] = []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> object:
        compiled.append(graph)
        return graph.forward

    model.compile(backend=backend)
    meter = OffsetMeter(model)
    model(x)
    graphs = len(compiled)
    meter.start()
    model(x)
    assert meter.stop().keys() == {"0"}
    model(x)
    assert graphs == len(compiled) > 0


# --- the warnings ---


def watch(lr_multiplier: float = 1.0, *, frozen: bool = False) -> tuple[OffsetWatch, DeformConv2d]:
    """Over one layer, "a", in a run of 2000 steps."""
    layer = DeformConv2d(2, 2, 3).requires_grad_(not frozen)
    return OffsetWatch({"a": layer}, total_steps=2000, lr_multiplier=lr_multiplier), layer


def move(layer: DeformConv2d) -> None:
    nn.init.constant_(cast(torch.Tensor, layer.offset.bias), 0.1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"outside": 0.6}, r"leave the feature map at step 50: a \(60% of its samples\)"),
        (
            {"mean_px": 20.0},
            r"blow up at step 50: a \(20\.0 px on average, and without offsets it reaches 1\.5\)",
        ),
        ({"mean_px": float("inf")}, "are not finite at step 50"),
        ({"mean_px": float("nan")}, "are not finite at step 50"),
    ],
)
def test_offsets_that_blow_up_are_told_with_the_remedy(
    values: dict[str, float], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    watch()[0].check({"a": {**FINE, **values}}, step=50)
    assert re.search(message, caplog.text)
    assert "optimizer.offset_lr_multiplier=0.1 (it was 1)" in caplog.text
    assert "max_offset_px" in caplog.text


def test_remedy_that_is_set_already_is_not_advised(caplog: pytest.LogCaptureFixture) -> None:
    bounded = DeformConv2d(2, 2, 3, max_offset_px=8.0)
    OffsetWatch({"a": bounded}, total_steps=2000, lr_multiplier=0.0).check(
        {"a": {**FINE, "outside": 0.6}}, step=50
    )
    assert "offset_lr_multiplier=" not in caplog.text
    assert "lower deform.max_offset_px (it is 8)" in caplog.text


@pytest.mark.parametrize(
    ("lr_multiplier", "frozen", "message"),
    [
        (1.0, False, "gradient norm 0.1). Raise optimizer.offset_lr_multiplier (it is 1)"),
        (0.0, False, "optimizer.offset_lr_multiplier=0 keeps them"),
        (1.0, True, "lower model.backbone.frozen_stages"),
    ],
)
def test_offsets_that_stay_zero_are_told_with_the_cause(
    lr_multiplier: float, frozen: bool, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    watching, _ = watch(lr_multiplier, frozen=frozen)
    watching.check({"a": {**FINE, "mean_px": 0.0}}, step=199)
    assert not caplog.text, "a tenth of the run is 200 steps"
    watching.check({"a": {**FINE, "mean_px": 0.0}}, step=200)
    assert "Offsets do not move at step 200: a (0 px on average" in caplog.text
    assert message in caplog.text


def test_short_runs_are_given_100_steps(caplog: pytest.LogCaptureFixture) -> None:
    watching = OffsetWatch({"a": DeformConv2d(2, 2, 3)}, total_steps=500, lr_multiplier=1.0)
    watching.check({"a": FINE}, step=99)
    assert not caplog.text
    watching.check({"a": FINE}, step=100)
    assert "do not move at step 100" in caplog.text


@pytest.mark.parametrize(
    ("name", "fine", "too_much", "message"),
    [
        ("mean_px", 0.0101, 0.0099, "do not move"),
        ("mean_px", 14.9, 15.1, "blow up"),  # ten times the reach of a 3x3 kernel
        ("outside", 0.24, 0.26, "leave the feature map"),
    ],
)
def test_what_is_too_much(
    name: str, fine: float, too_much: float, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    watching, layer = watch()
    move(layer)
    watching.check({"a": {**FINE, name: fine}}, step=200)
    assert not caplog.text
    watching.check({"a": {**FINE, name: too_much}}, step=200)
    assert message in caplog.text


def test_offsets_that_stay_where_they_started_are_told(caplog: pytest.LogCaptureFixture) -> None:
    watch(0.0)[0].check({"a": FINE}, step=200)
    assert "do not move" in caplog.text


def test_frozen_offsets_that_were_loaded_are_as_meant(caplog: pytest.LogCaptureFixture) -> None:
    watch(frozen=True)[0].check({"a": FINE}, step=200)
    assert not caplog.text


def test_offsets_that_learn_are_no_matter(caplog: pytest.LogCaptureFixture) -> None:
    watching, layer = watch()
    move(layer)
    watching.check({"a": FINE}, step=2000)
    assert not caplog.text


def test_a_warning_comes_once_for_each_layer_and_cause(caplog: pytest.LogCaptureFixture) -> None:
    layers = {name: DeformConv2d(2, 2, 3) for name in "abc"}
    watching = OffsetWatch(layers, total_steps=2000, lr_multiplier=1.0)
    out, far = {**FINE, "outside": 0.6}, {**FINE, "mean_px": 20.0}
    watching.check({"a": out, "b": out, "c": FINE}, step=50)
    watching.check({"a": out, "b": far, "c": out}, step=100)
    watching.check({"a": out, "b": far, "c": out}, step=150)
    messages = [record.getMessage() for record in caplog.records]
    assert [text.partition(". ")[0] for text in messages] == [
        "Offsets leave the feature map at step 50: a (60% of its samples), b (60% of its samples)",
        "Offsets blow up at step 100: b (20.0 px on average, and without offsets it reaches 1.5)",
        "Offsets leave the feature map at step 100: c (60% of its samples)",
    ]


# --- a run ---


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def run(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two epochs of two steps of two batches in bfloat16, with an average; C3 is deformable but frozen."""
    return run_training(
        dataset,
        tmp_path_factory.mktemp("runs") / "run",
        "model.backbone.deform.stages=[3,4]",
        "model.backbone.deform.blocks=last",
        "model.backbone.frozen_stages=3",
        "data.batch_size=2",
        "training.accumulate_grad_batches=2",
        "training.precision=bf16-mixed",
        "training.ema_decay=0.9",
        "training.log_offsets_every_n_steps=3",
    )


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_epoch_has_the_statistics_of_each_layer_in_its_row(run: Path) -> None:
    frozen, trained = "offsets/C3.1/", "offsets/C4.1/"
    for row in rows(run):
        assert float(row[frozen + "mean_px"]) == 0
        assert frozen + "gradient_norm" not in row
        assert float(row[trained + "mean_px"]) > 0
        assert float(row[trained + "effective_dilation"]) == pytest.approx(1, abs=0.5)
        assert float(row[trained + "outside"]) <= 1
        assert float(row[trained + "modulation_mean"]) == pytest.approx(1, abs=0.2)
        assert float(row[trained + "modulation_entropy"]) == pytest.approx(1, abs=0.1)
        assert float(row[trained + "gradient_norm"]) > 0


def test_tensorboard_has_them_every_n_steps_and_at_the_end_of_epochs(run: Path) -> None:
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    logged = events.Scalars("offsets/C4.1/mean_px")
    assert [event.step for event in logged] == [2, 3, 4]


def test_the_report_shows_the_offsets(run: Path) -> None:
    report = (run / "report.html").read_text(encoding="utf-8")
    assert "Offsets of deformable layers" in report
    assert "<td>C4.1</td>" in report


@pytest.mark.slow
def test_measuring_changes_nothing_of_the_run(dataset: Path, tmp_path: Path) -> None:
    losses = []
    for every in (1, 100):
        run = run_training(
            dataset,
            tmp_path / str(every),
            "model.backbone.deform.stages=[4]",
            f"training.log_offsets_every_n_steps={every}",
            "training.max_epochs=1",
        )
        losses.append(rows(run)[0]["val/loss"])
    assert losses[0] == losses[1]


@pytest.mark.parametrize("every", [1, 50])
def test_offsets_that_are_not_finite_are_told_though_they_end_the_run(
    every: int,
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    reset = DeformConv2d.reset_parameters

    def broken(layer: DeformConv2d) -> None:
        reset(layer)
        nn.init.constant_(cast(torch.Tensor, layer.offset.bias), torch.nan)

    monkeypatch.setattr(DeformConv2d, "reset_parameters", broken)
    with pytest.raises(NonFiniteLossError):
        run_training(
            dataset,
            tmp_path / "run",
            "model.backbone.deform.stages=[4]",
            f"training.log_offsets_every_n_steps={every}",
        )
    assert "Offsets are not finite at step 1: C4.0 (nan px" in caplog.text


def test_nothing_stays_active_after_a_run_that_failed(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meters: list[OffsetMeter] = []
    start = OffsetMeter.start

    def spied(meter: OffsetMeter) -> None:
        meters.append(meter)
        start(meter)

    def fail(meter: OffsetMeter) -> None:
        raise RuntimeError("stop here")

    monkeypatch.setattr(OffsetMeter, "start", spied)
    monkeypatch.setattr(OffsetMeter, "record_gradients", fail)
    with pytest.raises(RuntimeError, match="stop here"):
        run_training(
            dataset,
            tmp_path / "run",
            "model.backbone.deform.stages=[4]",
            "training.log_offsets_every_n_steps=1",
        )
    assert [meter.is_active for meter in meters] == [False]

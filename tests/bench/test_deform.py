"""The layers that the operators are timed on, and what is said where they cannot be."""

from __future__ import annotations

import pytest
import torch
from bench import deform as benchmark_deform
from bench import timing as benchmark
from bench.deform import RESNET50, TINY, candidates

from detector.backbones.resnet import ResNet
from detector.layers.deform import DeformableStages, DeformConv2d
from detector.ops.deform_conv import triton


def test_the_layers_are_those_of_a_resnet() -> None:
    seen = []
    with torch.device("meta"):
        resnet = ResNet(50, deform=DeformableStages(stages=(3, 4, 5)))
    for module in resnet.modules():
        if isinstance(module, DeformConv2d):
            module.register_forward_pre_hook(
                lambda layer, inputs: seen.append((*inputs[0].shape[1:], layer.stride[0]))
            )
    resnet(torch.empty(1, 3, 800, 1344, device="meta"))
    timed = [layer for stage in RESNET50.values() for layer in stage]
    assert [(layer.channels, *layer.size, layer.stride) for layer in timed] == seen


@pytest.mark.parametrize("backward", [False, True])
def test_every_implementation_runs_the_layers(backward: bool) -> None:
    backends = candidates(TINY["C3"][1:], backward=backward, device="cpu", batch=1)
    assert {"plain conv", "torchvision", "triton"} <= set(backends)
    for run in backends.values():
        run()


def test_without_a_gpu_the_table_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert benchmark_deform.gpu_table(repeats=1) == "On a GPU: skipped, torch finds none."


def test_the_table_has_each_stage_in_both_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"plain conv": 0.1, "torchvision": 2.0, "triton": 0.25}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(
        benchmark_deform, "candidates", lambda layers, **arguments: dict.fromkeys(times, list)
    )
    monkeypatch.setattr(benchmark, "interleaved_medians", lambda *arguments, device: times)
    text = benchmark_deform.gpu_table(repeats=1)
    assert text.startswith("A GPU.")
    assert text.count("| C4 | 100 | 2000 | 250 | 0.05 | 0.12 |") == 2


def test_on_a_cpu_triton_is_not_timed_without_its_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detector.ops.deform_conv.triton_launch.INTERPRETED", False)
    assert triton.obstacle(torch.device("cpu")) is not None
    assert "triton" not in candidates(TINY["C3"], backward=False, device="cpu", batch=1)

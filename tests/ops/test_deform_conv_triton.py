"""Deformable convolution by Triton's kernels: in its interpreter, on a GPU with TRITON_INTERPRET=0."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from detector.layers.deform import DeformConv2d
from detector.ops.deform_conv import triton as backend
from detector.ops.deform_conv.dispatch import Backend, deform_conv2d
from tests.ops.deform_cases import CASES, Case

pytest.importorskip("triton")

from detector.ops.deform_conv import triton_launch

DEVICE = "cpu" if triton_launch.INTERPRETED else "cuda"
SMALL = Case(size=(3, 4), kernel=(1, 2), padding=(0, 1))  # the interpreter takes its time for each tap


def moved(arguments: list[Any]) -> list[Any]:
    """Leaves of the same numbers and strides where the kernels run."""
    return [None if t is None else t.detach().to(DEVICE).requires_grad_() for t in arguments]


def result_and_gradients(arguments: list[Any], case: Case, backend: Backend = "triton") -> list[Tensor]:
    y = deform_conv2d(*arguments, **case.geometry(), backend=backend)
    values = [t for t in arguments if t is not None]
    return [t.cpu() for t in (y, *torch.autograd.grad(y.sin().sum(), values))]


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


QUICK = {
    "small": SMALL,
    "small, v1, channels last": replace(SMALL, modulated=False, channels_last=True),
    "small, far outside": replace(SMALL, spread_px=30),
    "empty batch": CASES["empty batch"],
    "everything": CASES["everything"],
}
ALL = QUICK | CASES


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ALL]
)
def test_result_and_gradients_equal_torchvisions(name: str) -> None:
    case = ALL[name]
    expected = result_and_gradients(case.arguments(), case, "torchvision")
    torch.testing.assert_close(result_and_gradients(moved(case.arguments()), case), expected)


@pytest.mark.parametrize(
    "name", ["small, v1, channels last", "small, far outside", "empty batch", "everything"]
)
def test_deterministic_gradients_equal_torchvisions_and_add_nothing_atomically(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = ALL[name]
    expected = result_and_gradients(case.arguments(), case, "torchvision")
    monkeypatch.setattr(triton_launch.kernels, "scatter", None)
    with deterministic():
        torch.testing.assert_close(result_and_gradients(moved(case.arguments()), case), expected)


def test_deterministic_gradients_are_the_same_bits_each_time() -> None:
    case = Case(size=(6, 6), kernel=(1, 2), padding=(0, 1))
    with deterministic():
        actual = [result_and_gradients(moved(case.arguments(torch.float32)), case) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*actual, strict=True))


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.bfloat16, 6e-3), (torch.float16, 8e-4)])
def test_half_precision_differs_by_its_rounding_alone(
    dtype: torch.dtype, limit: float, ordered: bool
) -> None:
    """On a wide map, where float16 coordinates cost a tenth of the gradient of the offsets."""
    case = Case(batch=1, size=(2, 168), channels=(16, 8), kernel=(1, 2), padding=(0, 0))
    x, offset, weight, bias, mask = (t.detach() for t in case.arguments())
    x, weight, bias = (t.to(dtype) for t in (x, weight / 16, bias))
    exact = [t.double().requires_grad_() for t in (x, offset.float(), weight, bias, mask.float())]
    values = moved([x, offset.float(), weight, bias, mask.float()])
    with deterministic() if ordered else nullcontext():
        actual = result_and_gradients(values, case)
    assert [t.dtype for t in actual] == [dtype, dtype, torch.float32, dtype, dtype, torch.float32]
    for a, b in zip(actual, result_and_gradients(exact, case, "torchvision"), strict=True):
        assert (a.double() - b).norm() / b.norm() < limit


def test_autocast_keeps_features_in_its_dtype_and_coordinates_in_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen, sample = [], triton_launch.sample

    def spy(pixels: Tensor, sampling: triton_launch.Sampling) -> Tensor:
        assert sampling.mask is not None
        seen.extend([pixels.dtype, sampling.offset.dtype, sampling.mask.dtype])
        return sample(pixels, sampling)

    monkeypatch.setattr(triton_launch, "sample", spy)
    arguments = moved(SMALL.arguments(torch.float32))
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        y = deform_conv2d(*arguments, **SMALL.geometry(), backend="triton")
    assert y.dtype == torch.bfloat16
    assert seen == [torch.bfloat16, torch.float32, torch.float32]
    y.float().sum().backward()
    assert [t.grad.dtype for t in arguments] == 5 * [torch.float32]


def test_backward_within_autocast_keeps_its_precision() -> None:
    arguments = moved(SMALL.arguments(torch.float32))
    y = deform_conv2d(*arguments, **SMALL.geometry(), backend="triton")
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        actual = torch.autograd.grad(y.sum(), arguments)
    expected = torch.autograd.grad(
        deform_conv2d(*arguments, **SMALL.geometry(), backend="torchvision").sum(), arguments
    )
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_parts_of_the_batch_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(batch=3, size=(3, 4), kernel=(1, 2), padding=(0, 1), groups=2)
    whole = result_and_gradients(moved(case.arguments()), case)
    monkeypatch.setattr(backend, "_COLUMN_BYTES", 1)
    torch.testing.assert_close(result_and_gradients(moved(case.arguments()), case), whole)


def test_a_single_gradient_is_that_of_all() -> None:
    case = SMALL
    every = result_and_gradients(moved(case.arguments()), case)[1:]
    for wanted, expected in enumerate(every):
        arguments = [t.detach() for t in moved(case.arguments())]
        arguments[wanted].requires_grad_()
        y = deform_conv2d(*arguments, **SMALL.geometry(), backend="triton")
        (actual,) = torch.autograd.grad(y.sin().sum(), arguments[wanted])
        torch.testing.assert_close(actual.cpu(), expected)


def test_non_contiguous_tensors_are_read_by_their_strides() -> None:
    case = SMALL
    expected = result_and_gradients(case.arguments(), case, "torchvision")
    strided = [torch.stack([t, -t], dim=-1)[..., 0].detach() for t in moved(case.arguments())]
    assert not any(t.is_contiguous() for t in strided)
    actual = result_and_gradients([t.requires_grad_() for t in strided], case)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("channels_last", [False, True])
def test_keeps_the_memory_format_and_so_do_its_gradients(channels_last: bool) -> None:
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    arguments = moved(replace(SMALL, channels_last=channels_last).arguments())
    y = deform_conv2d(*arguments, **SMALL.geometry(), backend="triton")
    y.sum().backward()
    assert y.is_contiguous(memory_format=memory_format)
    for tensor in (arguments[0], arguments[2]):
        assert tensor.grad.is_contiguous(memory_format=memory_format)


def test_a_nan_offset_gives_nan_where_it_is_used_and_nowhere_else() -> None:
    arguments = [t.detach() for t in moved(SMALL.arguments(torch.float32))]
    arguments[1][0, 0, 2, 3] = math.nan
    y = deform_conv2d(*arguments, **SMALL.geometry(), backend="triton")
    wrong = y.isnan().nonzero()
    assert {tuple(place) for place in wrong[:, [0, 2, 3]].tolist()} == {(0, 2, 3)}


def test_what_is_outside_counts_nothing_even_beside_infinity() -> None:
    x = torch.full((1, 1, 4, 4), math.inf, device=DEVICE)
    offset = torch.zeros(1, 2, 4, 4, device=DEVICE)
    for dy in (-math.inf, -1e9, -5.0, 4.0, 1e9, math.inf):
        offset[0, 0] = dy
        y = deform_conv2d(x, offset, x.new_ones(1, 1, 1, 1), backend="triton")
        assert torch.equal(y, torch.zeros_like(y)), dy


@pytest.mark.slow  # torch checks much
def test_the_operators_are_what_torch_expects_of_them() -> None:
    """Schemas, gradients, fake kernels of the same shapes and strides, and tracing with symbols for sizes."""
    case = Case(batch=2, size=(3, 2), channels=(2, 4), kernel=(2, 1))
    arguments, geometry = moved(case.arguments(torch.float32)), ([1, 1], [1, 1], [1, 1], 1)
    torch.library.opcheck(torch.ops.detector.deform_conv2d, (*arguments, *geometry))
    x, offset, weight, _, mask = (None if t is None else t.detach() for t in arguments)
    grad = torch.randn(2, 4, *cast(Tensor, offset).shape[2:], device=DEVICE)
    wanted = 5 * [True]
    torch.library.opcheck(
        torch.ops.detector.deform_conv2d_backward, (grad, x, offset, weight, mask, *geometry, wanted)
    )


def test_export_records_one_operator() -> None:
    layer = DeformConv2d(2, 4, (1, 2), backend="triton").to(DEVICE)
    nn.init.normal_(layer.offset.weight)
    x = torch.randn(1, 2, 3, 4, device=DEVICE)
    exported = torch.export.export(layer, (x,))
    assert str(exported.graph).count("torch.ops.detector.deform_conv2d.default") == 1
    torch.testing.assert_close(exported.module()(x), layer(x))


def run(code: str, **environment: str) -> None:
    """In a process of its own: not interpreted, or without the checks of shapes, which no graph can hold."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_layer_compiles_to_one_graph() -> None:
    run(
        f"""
        import torch
        from detector.layers import DeformConv2d

        layer = DeformConv2d(2, 4, (1, 2), backend="triton").to("{DEVICE}")
        torch.nn.init.normal_(layer.offset.weight)
        compiled = torch.compile(layer, fullgraph=True)
        x = torch.randn(2, 2, 3, 4, device="{DEVICE}", requires_grad=True)
        results = []
        for function in (compiled, layer):
            y = function(x)
            results.append([y, *torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])])
        torch.testing.assert_close(*results)
        """
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "dtype",
    ["bfloat16", *(pytest.param(f"float{n}", marks=pytest.mark.nightly) for n in (16, 32, 64))],
)
def test_the_kernels_compile_for_an_h100(dtype: str, tmp_path: Path) -> None:
    """What the interpreter takes the compiler may refuse. Needs no GPU: all is done but the launches."""
    run(
        f"""
        import torch
        from triton.backends.compiler import GPUTarget
        from triton.runtime import driver, jit

        from detector.ops.deform_conv import triton_launch
        from detector.ops.deform_conv.dispatch import deform_conv2d

        class H100:
            def get_current_target(self):
                return GPUTarget("cuda", 90, 32)

            def get_current_device(self):
                return 0

            def get_current_stream(self, device):
                return 0

        compiled = set()

        def only_compile(kernel, grid):
            def launch(*arguments, **options):
                assert "cubin" in kernel.warmup(*arguments, grid=grid, **options).asm
                compiled.add(kernel.__name__)

            return launch

        driver.set_active(H100())
        jit.JITFunction.__getitem__ = only_compile
        triton_launch.INTERPRETED = True
        for channels, size, side, modulated in ((128, 8, 3, True), (5, 7, 3, False), (1, 1, 1, True)):
            x = torch.randn(2, channels, size, size, dtype=torch.{dtype}).requires_grad_()
            x = x.to(memory_format=torch.channels_last)
            precise = torch.promote_types(x.dtype, torch.float32)
            offset = torch.zeros(2, 2 * side**2, size, size, dtype=precise)
            mask = offset[:, : side**2] if modulated else None
            weight = x.new_zeros(4, channels, side, side)
            for deterministic in (False, True):
                torch.use_deterministic_algorithms(deterministic)
                y = deform_conv2d(
                    x, offset.requires_grad_(), weight, mask=mask, padding=side // 2, backend="triton"
                )
                y.sum().backward()
        assert compiled == {{"sample", "differentiate", "scatter", "list_uses", "sum_uses"}}, compiled
        """,
        TRITON_INTERPRET="0",
        TRITON_CACHE_DIR=str(tmp_path),
    )


def test_a_second_derivative_is_refused() -> None:
    arguments = moved(SMALL.arguments())
    y = deform_conv2d(*arguments, **SMALL.geometry(), backend="triton")
    (gradient,) = torch.autograd.grad(y.sin().sum(), arguments[0], create_graph=True)
    with pytest.raises(RuntimeError, match="backend triton can be differentiated once"):
        gradient.sum().backward()


def test_tensors_that_are_not_on_cuda_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_launch, "INTERPRETED", False)
    arguments = SMALL.arguments(torch.float32)
    with pytest.raises(ValueError, match=r"backend triton needs tensors on CUDA, but x is on cpu.*auto"):
        deform_conv2d(*arguments, **SMALL.geometry(), backend="triton")


def test_a_missing_triton_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "find_spec", lambda name: None)
    arguments = moved(SMALL.arguments(torch.float32))
    with pytest.raises(ValueError, match=r"needs the package triton, which is not installed.*auto"):
        deform_conv2d(*arguments, **SMALL.geometry(), backend="triton")


def test_coordinates_keep_their_digits_on_a_wide_map() -> None:
    arguments = Case(batch=1, size=(1, 4000), channels=(2, 2)).arguments(torch.float32)
    actual = deform_conv2d(*moved(arguments), padding=1, backend="triton").cpu()
    exact = deform_conv2d(*(a.double() for a in arguments), padding=1, backend="torchvision")
    assert (actual - exact).norm() < 3e-7 * exact.norm()

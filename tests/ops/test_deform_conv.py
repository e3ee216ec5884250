"""Deformable convolution against its definition, written as loops, and against torchvision's operator."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.export import Dim
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from detector.layers.deform import DeformConv2d
from detector.ops.deform_conv import gather
from detector.ops.deform_conv.dispatch import Backend, deform_conv2d
from detector.ops.deform_conv.geometry import Geometry
from tests.ops.deform_cases import CASES, Case

BACKENDS: tuple[Backend, ...] = ("gather", "torchvision")


def by_definition(
    case: Case, x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, mask: Tensor | None
) -> Tensor:
    """y(p) = bias + sum_k W_k m_k x(p * stride - padding + k * dilation + offset), one number at a time."""
    batch, out_channels, out_h, out_w = len(x), len(weight), *offset.shape[2:]
    taps, group_channels = math.prod(case.kernel), weight.shape[1]
    y = bias.detach().view(1, -1, 1, 1).repeat(batch, 1, out_h, out_w)
    x, offset, weight = x.detach(), offset.detach(), weight.detach()
    for n in range(batch):
        for i in range(out_h):
            for j in range(out_w):
                for c in range(x.shape[1]):
                    moved = c // (x.shape[1] // case.offset_groups) * taps
                    outputs = slice(
                        c // group_channels * (out_channels // case.groups),
                        (c // group_channels + 1) * (out_channels // case.groups),
                    )
                    for k in range(taps):
                        row, column = divmod(k, case.kernel[1])
                        dy, dx = offset[n, 2 * (moved + k) : 2 * (moved + k) + 2, i, j].tolist()
                        h = i * case.stride[0] - case.padding[0] + row * case.dilation[0] + dy
                        w = j * case.stride[1] - case.padding[1] + column * case.dilation[1] + dx
                        value = interpolated(x[n, c], h, w)
                        if mask is not None:
                            value *= mask[n, moved + k, i, j].item()
                        y[n, outputs, i, j] += weight[outputs, c % group_channels, row, column] * value
    return y


def interpolated(image: Tensor, h: float, w: float) -> float:
    height, width = image.shape
    if h <= -1 or w <= -1 or h >= height or w >= width:
        return 0.0
    total = 0.0
    for i in (math.floor(h), math.floor(h) + 1):
        for j in (math.floor(w), math.floor(w) + 1):
            if 0 <= i < height and 0 <= j < width:
                total += (1 - abs(h - i)) * (1 - abs(w - j)) * image[i, j].item()
    return total


SMALL = [name for name in CASES if name not in ("batch of 33", "channels last")]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", SMALL)
def test_follows_the_definition(name: str, backend: Backend) -> None:
    case = CASES[name]
    x, offset, weight, bias, mask = case.arguments()
    y = deform_conv2d(x, offset, weight, bias, mask, **case.geometry(), backend=backend)
    torch.testing.assert_close(y, by_definition(case, x, offset, weight, bias, mask))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_result_can_be_changed_in_place(backend: Backend, channels_last: bool) -> None:
    x, *others = Case(channels_last=channels_last).arguments()
    deform_conv2d(x, *others, **Case().geometry(), backend=backend).relu_().sum().backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("library", ["mkl", "onednn", None])
@pytest.mark.parametrize("name", CASES)
def test_gather_and_its_gradients_equal_torchvision(
    name: str, library: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detector.ops.cpu.products._FASTER", library)
    torch.testing.assert_close(*(values_and_gradients(CASES[name], backend) for backend in BACKENDS))


def values_and_gradients(case: Case, backend: Backend) -> list[Tensor]:
    arguments = case.arguments()
    y = deform_conv2d(*arguments, **case.geometry(), backend=backend)
    y.sin().sum().backward()
    return [y] + [t.grad for t in arguments if t is not None]


def test_non_contiguous_tensors_are_read_by_their_strides() -> None:
    case = Case()
    arguments = [t.detach() for t in case.arguments()]
    expected = deform_conv2d(*arguments, **case.geometry(), backend="torchvision")
    strided = [torch.stack([t, -t], dim=-1)[..., 0] for t in arguments]
    assert not any(t.is_contiguous() for t in strided)
    torch.testing.assert_close(deform_conv2d(*strided, **case.geometry(), backend="gather"), expected)


@pytest.mark.parametrize("name", ["v1", "everything", "channels last"])
def test_gather_passes_gradcheck(name: str) -> None:
    case = CASES[name]
    arguments = case.arguments()

    def function(*tensors: Tensor) -> Tensor:
        values = iter(tensors)
        full: list[Any] = [None if t is None else next(values) for t in arguments]
        return deform_conv2d(*full, **case.geometry(), backend="gather")

    assert torch.autograd.gradcheck(function, [t for t in arguments if t is not None], fast_mode=True)


@pytest.mark.parametrize("wanted", range(5))
def test_a_single_gradient_is_that_of_all(wanted: int) -> None:
    case = Case()
    every, single = case.arguments(), [t.detach() for t in case.arguments()]
    single[wanted].requires_grad_()
    for arguments in (every, single):
        deform_conv2d(*arguments, **case.geometry(), backend="gather").sin().sum().backward()
    torch.testing.assert_close(single[wanted].grad, every[wanted].grad)


def test_more_rows_than_int32_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as many: from one row fewer than there are on."""
    dtypes: Any
    case, dtypes = CASES["everything"], []
    bags = gather._bags
    monkeypatch.setattr(
        "detector.ops.deform_conv.gather._bags",
        lambda index, size: (dtypes.append(index.dtype), bags(index, size))[1],
    )
    expected = values_and_gradients(case, "gather")
    rows = case.batch * math.prod(case.size) * case.offset_groups
    for limit in (rows + 1, rows):
        monkeypatch.setattr("detector.ops.deform_conv.gather._INT32_ROWS", limit)
        torch.testing.assert_close(values_and_gradients(case, "gather"), expected)
    assert dtypes == 4 * [torch.int32] + 2 * [torch.int64]


def test_chunks_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    case, results = CASES["everything"], []
    for positions in (512, 16):
        monkeypatch.setattr("detector.ops.deform_conv.gather._MIN_POSITIONS", positions)
        monkeypatch.setattr("detector.ops.deform_conv.gather._COLUMN_BYTES", 0)
        arguments = case.arguments()
        y = deform_conv2d(*arguments, **case.geometry(), backend="gather")
        y.sin().sum().backward()
        results.append([y] + [t.grad for t in arguments])
    torch.testing.assert_close(*results)


def test_the_border_is_exact() -> None:
    # A sample at h = -1 or h = H is 0; a hair inside, the border pixel counts a hair.
    x = torch.ones(1, 1, 4, 4, dtype=torch.float64)
    weight = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    for backend in BACKENDS:
        for dy, expected in ((-1.0, 0.0), (-0.75, 0.25), (3.75, 0.25), (4.0, 0.0), (1e9, 0.0), (-1e9, 0.0)):
            offset = torch.zeros(1, 2, 4, 4, dtype=torch.float64)
            offset[0, 0] = dy
            y = deform_conv2d(x, offset, weight, backend=backend)
            assert y[0, 0, 0].tolist() == [expected] * 4, (backend, dy)


def test_a_nan_offset_gives_nan_where_it_is_used_and_nowhere_else() -> None:
    arguments = [t.detach() for t in Case().arguments(torch.float32)]
    arguments[1][0, 0, 2, 3] = math.nan
    y = deform_conv2d(*arguments, padding=1, backend="gather")
    wrong = y.isnan().nonzero()
    assert {tuple(place) for place in wrong[:, [0, 2, 3]].tolist()} == {(0, 2, 3)}


UNUSUAL = (math.nan, math.inf, -math.inf, 1e10, -1e10, 1e30, -1e30)
MAPS = [
    Case(size=(5, 6)),
    Case(size=(30, 40), modulated=False, padding=(0, 0)),
    Case(size=(20, 9), stride=(2, 1), padding=(3, 2), groups=2, offset_groups=2, channels=(8, 4)),
]


def require_offsets_to_be_survived(
    function: Callable[..., Tensor] = deform_conv2d,
    cases: Sequence[Case] = MAPS,
    unusual: Sequence[float] = UNUSUAL,
) -> None:
    """torchvision's backend has NaN where gather has, and everywhere the same numbers. Not one test each, for
    the operator itself reads where such an offset says, and that may end the process."""
    for case, value in itertools.product(cases, unusual):
        for share in (0.01, 1.0):
            actual, expected = (unusual_result(function, case, value, share, name) for name in BACKENDS)
            for name in actual:
                message = f"{case}, {value} in {share} of the offsets: {name}"
                torch.testing.assert_close(
                    actual[name], expected[name], equal_nan=True, rtol=1e-4, atol=1e-4, msg=message
                )
            if math.isnan(value) and share < 1:  # where all are NaN, their own gradient is 0
                assert all(tensor.isnan().any() for name, tensor in actual.items() if name != "bias"), case


def unusual_result(
    function: Callable[..., Tensor], case: Case, value: float, share: float, backend: Backend
) -> dict[str, Tensor]:
    arguments: list[Any] = [None if t is None else t.detach() for t in case.arguments(torch.float32)]
    there = torch.rand(arguments[1].shape, generator=torch.Generator().manual_seed(1)) < share
    arguments[1][there] = value
    inputs = [t.requires_grad_() for t in arguments if t is not None]
    y = function(*arguments, **case.geometry(), backend=backend)
    grads = torch.autograd.grad(y.sum(), inputs)
    names = [
        n for n, t in zip(("x", "offset", "weight", "bias", "mask"), arguments, strict=True) if t is not None
    ]
    actual = {"y": y.detach(), **dict(zip(names, grads, strict=True))}
    actual["x"] = actual["x"].sum((2, 3))  # which pixel is NaN is not said
    return actual


def run(code: str) -> None:
    """In a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True
    )
    assert done.returncode == 0, f"{done.returncode}: {done.stderr}"


def test_unusual_offsets_have_results_and_gradients_of_gather_by_torchvision() -> None:
    run("from tests.ops import test_deform_conv; test_deform_conv.require_offsets_to_be_survived()")


@pytest.mark.nightly
def test_unusual_offsets_are_survived_when_compiled() -> None:
    run("from tests.ops import test_deform_conv; test_deform_conv.require_compiled_to_survive()")


def require_compiled_to_survive() -> None:
    compiled = torch.compile(deform_conv2d, fullgraph=True, dynamic=False)

    def function(*arguments: Any, backend: Backend, **geometry: Any) -> Tensor:
        chosen = compiled if backend == "torchvision" else deform_conv2d
        return chosen(*arguments, **geometry, backend=backend)

    require_offsets_to_be_survived(
        function, [MAPS[0], replace(MAPS[0], modulated=False)], [math.nan, math.inf]
    )


@pytest.mark.parametrize("channels_last", [False, True])
def test_gather_keeps_the_memory_format_and_so_do_its_gradients(channels_last: bool) -> None:
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    arguments = Case(channels_last=channels_last).arguments()
    y = deform_conv2d(*arguments, padding=1, backend="gather")
    y.sum().backward()
    assert y.is_contiguous(memory_format=memory_format)
    assert arguments[0].grad.is_contiguous(memory_format=memory_format)


def test_gather_is_deterministic() -> None:
    gradients = []
    for _ in range(2):
        arguments = Case(size=(20, 20)).arguments(torch.float32)
        deform_conv2d(*arguments, padding=1, backend="gather").sin().sum().backward()
        gradients.append(arguments[0].grad)
    assert torch.equal(*gradients)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_computes_coordinates_in_float32(dtype: torch.dtype, backend: Backend) -> None:
    # At x = 1000.3 half precision rounds coordinates to whole pixels and worse.
    x = torch.zeros(1, 1, 1, 2048)
    x[..., ::2] = 1
    offset = torch.zeros(1, 2, 1, 2048)
    offset[0, 1] = 0.3
    y = deform_conv2d(x.to(dtype), offset, torch.ones(1, 1, 1, 1, dtype=dtype), backend=backend)
    assert y.dtype == dtype
    torch.testing.assert_close(
        y[0, 0, 0, 1000:1004].float(), torch.tensor([0.7, 0.3, 0.7, 0.3]), atol=4e-3, rtol=0
    )


def test_backward_of_gather_within_autocast_keeps_its_precision() -> None:
    """Triton's is tested beside its kernels; torchvision's operator casts inside."""
    torch.manual_seed(0)
    sizes = ((1, 4, 6, 5), (1, 18, 6, 5), (4, 4, 3, 3))
    x, offset, weight = (torch.randn(size).requires_grad_() for size in sizes)
    y = deform_conv2d(x, offset, weight, padding=1, backend="gather")
    expected = torch.autograd.grad(y.sum(), (x, offset, weight), retain_graph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = torch.autograd.grad(y.sum(), (x, offset, weight))
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_autocast_takes_mixed_dtypes_and_returns_its_own(backend: Backend) -> None:
    arguments = Case().arguments(torch.float32)
    expected = deform_conv2d(*arguments, padding=1)
    mixed = [arguments[0].detach().bfloat16().requires_grad_(), *arguments[1:]]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = deform_conv2d(*mixed, padding=1, backend=backend)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), expected, atol=0.15, rtol=0.02)
    y.float().sum().backward()
    assert [t.grad.dtype for t in mixed] == [torch.bfloat16] + 4 * [torch.float32]


def test_auto_is_gather_on_cpu() -> None:
    arguments = [t.detach() for t in Case().arguments(torch.float32)]
    calls = {b: deform_conv2d(*arguments, padding=1, backend=b) for b in ("auto", "gather")}
    assert torch.equal(calls["auto"], calls["gather"])


@pytest.mark.parametrize("backend", ["auto", "gather"])
@pytest.mark.parametrize("how", ["export", "trace"])
def test_what_is_recorded_is_torchvisions_operator(how: str, backend: Backend) -> None:
    class Module(torch.nn.Module):
        def forward(self, x: Tensor, offset: Tensor, weight: Tensor) -> Tensor:
            return deform_conv2d(x, offset, weight, padding=1, backend=backend)

    x, offset, weight = (t.detach() for t in Case().arguments(torch.float32)[:3])
    if how == "export":
        sides = {2: Dim.AUTO, 3: Dim.AUTO}
        recorded = torch.export.export(
            Module(), (x, offset, weight), dynamic_shapes={"x": sides, "offset": sides, "weight": None}
        )
        graph, module = str(recorded.graph), recorded.module()
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated, and shapes become constants
            module = torch.jit.trace(Module(), (x, offset, weight))
        graph = str(module.graph)
    assert "deform_conv2d" in graph
    assert "embedding_bag" not in graph
    torch.testing.assert_close(module(x, offset, weight), Module()(x, offset, weight))


@pytest.mark.parametrize("modulated", [True, False])
def test_zero_offset_is_a_plain_convolution(modulated: bool) -> None:
    case = Case(stride=(2, 1), groups=2, modulated=modulated)
    x, offset, weight, bias, mask = case.arguments()
    mask = None if mask is None else torch.ones_like(mask)
    y = deform_conv2d(x, torch.zeros_like(offset), weight, bias, mask, **case.geometry())
    torch.testing.assert_close(y, F.conv2d(x, weight, bias, **case.geometry()))


_X, _OFFSET, _WEIGHT = torch.zeros(2, 4, 7, 6), torch.zeros(2, 18, 7, 6), torch.zeros(6, 4, 3, 3)
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "x unbatched": ({"x": _X[0]}, r"x must have 4 dimensions, got shape \(4, 7, 6\)"),
    "weight flat": ({"weight": _WEIGHT.flatten()}, "weight must have 4 dimensions"),
    "integers": ({"x": _X.byte()}, "x must be floating point, got torch.uint8"),
    "dtype of offset": ({"offset": _OFFSET.double()}, r"offset is torch.float64 but x is torch.float32"),
    "dtype of weight": ({"weight": _WEIGHT.half()}, r"weight is torch.float16 but x is torch.float32"),
    "device": ({"mask": torch.zeros(2, 9, 7, 6, device="meta")}, "mask is on meta but x is on cpu"),
    "input channels": ({"x": torch.zeros(2, 5, 7, 6)}, r"x has 5 channels.*takes 4"),
    "groups": ({"groups": 3}, "takes 12"),
    "output channels": ({"weight": torch.zeros(5, 2, 3, 3), "groups": 2}, "5 output channels .* 2 groups"),
    "bias": ({"bias": torch.zeros(5)}, "bias has 5 entries for 6 output channels"),
    "offset channels": ({"offset": torch.zeros(2, 17, 7, 6)}, r"17 channels.*multiple of 18"),
    "offset groups": ({"offset": torch.zeros(2, 54, 7, 6)}, "4 input channels .* 3 offset groups"),
    "offset size": ({"offset": torch.zeros(2, 18, 7, 5)}, r"offset must have shape \(2, 18, 7, 6\), got"),
    "offset batch": ({"offset": torch.zeros(1, 18, 7, 6)}, r"offset must have shape \(2, 18, 7, 6\), got"),
    "mask": ({"mask": torch.zeros(2, 18, 7, 6)}, r"mask must have shape \(2, 9, 7, 6\), got \(2, 18, 7, 6\)"),
    "stride": ({"stride": 0}, r"stride=\(0, 0\)"),
    "padding": ({"padding": -1}, r"padding=\(-1, -1\)"),
    "too small": ({"dilation": 9}, r"\(7, 6\) is too small for kernel \(3, 3\), dilation \(9, 9\)"),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", WRONG)
def test_arguments_that_do_not_fit_are_named(name: str, backend: Backend) -> None:
    changes, message = WRONG[name]
    arguments: dict[str, Any] = {"x": _X, "offset": _OFFSET, "weight": _WEIGHT, "padding": 1} | changes
    with pytest.raises(ValueError, match=message):
        deform_conv2d(**arguments, backend=backend)


def test_coordinates_keep_their_digits_on_a_wide_map() -> None:
    """Added to a column of 4000, a shift in float32 would be off by up to 1e-4 pixels."""
    case = Case(batch=1, size=(1, 4000), channels=(2, 2))
    arguments = case.arguments(torch.float32)
    actual = deform_conv2d(*arguments, **case.geometry(), backend="gather")
    exact = deform_conv2d(*(a.double() for a in arguments), **case.geometry(), backend="gather")
    assert (actual - exact).norm() < 3e-7 * exact.norm()


@st.composite
def cases(draw: st.DrawFn) -> Case:
    def both(low: int, high: int) -> tuple[int, int]:
        return draw(st.integers(low, high)), draw(st.integers(low, high))

    groups, offset_groups = draw(st.sampled_from((1, 2, 3))), draw(st.sampled_from((1, 2, 3)))
    kernel, dilation, padding = both(1, 3), both(1, 2), both(0, 3)
    smallest = [max(1, d * (k - 1) + 1 - 2 * p) for k, d, p in zip(kernel, dilation, padding, strict=True)]
    return Case(
        batch=draw(st.integers(0, 3)),
        size=(smallest[0] + draw(st.integers(0, 5)), smallest[1] + draw(st.integers(0, 5))),
        channels=(
            math.lcm(groups, offset_groups) * draw(st.integers(1, 2)),
            groups * draw(st.integers(1, 3)),
        ),
        kernel=kernel,
        stride=both(1, 3),
        padding=padding,
        dilation=dilation,
        groups=groups,
        offset_groups=offset_groups,
        modulated=draw(st.booleans()),
        spread_px=draw(st.sampled_from((0.3, 2.0, 20.0))),
        channels_last=draw(st.booleans()),
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(cases())
def test_any_problem_has_torchvisions_values_and_gradients(case: Case) -> None:
    torch.testing.assert_close(*(values_and_gradients(case, backend) for backend in BACKENDS))


def test_gradient_checkpointing_changes_nothing() -> None:
    torch.manual_seed(0)
    layer = DeformConv2d(4, 6, 3, padding=1)
    torch.nn.init.normal_(layer.offset.weight, std=0.2)
    x = torch.randn(2, 4, 7, 6, requires_grad=True)
    actual, expected = (
        torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])
        for y in (checkpoint(layer, x, use_reentrant=False), layer(x))
    )
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def test_channels_last_input_is_read_in_place() -> None:
    x = torch.randn(2, 4, 7, 6).contiguous(memory_format=torch.channels_last)
    geometry = Geometry((3, 3), (1, 1), (1, 1), (1, 1), groups=1, offset_groups=2)
    assert gather._to_rows(x, geometry).data_ptr() == x.data_ptr()

"""Whether the operators and models compute on a device what they compute on the CPU.

Operators are compared with float64, models with float32. In these checks no GPU rounds factors of float32 to
TF32, as cuDNN's convolutions do by default: that costs 3e-4 in one convolution, 1.5e-3 in a model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import get_args

import torch
from torch import Tensor

from detector.backbones.resnet import ResNet
from detector.heads.faster_rcnn import FasterRCNNHead
from detector.heads.fcos import FCOSHead
from detector.layers.deform import DeformableStages
from detector.models.detector import Detector, build_detector
from detector.necks.fpn import FPN
from detector.ops.boxes import pairwise_iou
from detector.ops.deform_conv import triton
from detector.ops.deform_conv.dispatch import Backend, deform_conv2d
from detector.ops.nms import class_nms
from detector.ops.roi_align import pyramid_roi_align
from detector.profiling.noise import random_batch

from .timing import first_line, markdown_row

# Relative errors in the 2-norm that rounding explains.
_LIMITS = {torch.float32: 1e-4, torch.bfloat16: 3e-2}


@dataclass(frozen=True)
class Check:
    """One comparison: the largest relative error of results and gradients, and what is allowed.

    `skipped` says why there was none, `raised` what ended it.
    """

    name: str
    error: float
    limit: float
    skipped: str | None = None
    raised: str | None = None

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong, as far as it was looked at."""
        return self.skipped is not None or self.error <= self.limit  # false for NaN

    @property
    def verdict(self) -> str:
        if self.skipped is not None:
            return f"skipped: {self.skipped}"
        if self.raised is not None:
            return f"FAILED: {self.raised}"
        return "passed" if self.passed else "FAILED"


def checks(device: str) -> Iterator[Check]:
    """Every operator and both models on `device` ("cuda", "cpu"), each measured when it is asked for."""
    for backend in get_args(Backend):
        for dtype, limit in _LIMITS.items():
            name = f"deform_conv2d, {backend}, {str(dtype).removeprefix('torch.')}"
            reason = triton.obstacle(torch.device(device)) if backend == "triton" else None
            if reason is not None:
                yield Check(name, math.nan, limit, skipped=reason)
                continue
            error = partial(_deform_conv_error, device, backend, dtype)
            yield _checked(name, error, limit)
            if backend == "triton":
                yield _checked(f"{name}, in a fixed order", _in_fixed_order()(error), limit)
    yield _checked("RoIAlign on a pyramid", partial(_roi_align_error, device), 1e-4)
    yield _checked("pairwise IoU", partial(_iou_error, device), 1e-5)
    yield _checked("class NMS (share of other choices)", partial(_nms_error, device), 0.0)
    for name, make in (("FCOS", _fcos), ("Faster R-CNN", _faster_rcnn)):
        error = partial(_model_error, make, device)
        yield _checked(f"{name}, C4 and C5 deformable: outputs", error, 1e-3)


def _checked(name: str, measure: Callable[[], float], limit: float) -> Check:
    try:
        with full_float32():
            error = measure()
    except Exception as problem:  # whatever it is, the next check may pass
        return Check(name, math.nan, limit, raised=first_line(problem))
    return Check(name, error, limit)


CHECKS_HEAD = "\n".join(
    [markdown_row(["", "relative error", "allowed", ""]), markdown_row(["---", "---:", "---:", "---"])]
)


def check_row(check: Check) -> str:
    """Below `CHECKS_HEAD`."""
    return markdown_row([check.name, f"{check.error:.1e}", f"{check.limit:.0e}", check.verdict])


@contextmanager
def full_float32() -> Iterator[None]:
    """Inside, no product of float32 on a GPU is rounded to TF32, whatever the environment asked for."""
    matmul = torch.backends.cuda.matmul
    convolution = torch.backends.cudnn.conv  # type: ignore[attr-defined]  # of the class behind the module
    before = matmul.fp32_precision, convolution.fp32_precision
    matmul.fp32_precision = convolution.fp32_precision = "ieee"
    try:
        yield
    finally:
        matmul.fp32_precision, convolution.fp32_precision = before


@contextmanager
def _in_fixed_order() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)  # cuBLAS wants a variable set before the start
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def _error(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    pairs = [(a.detach().double().cpu(), b.detach().double()) for a, b in zip(actual, expected, strict=True)]
    return max(float((a - b).norm() / b.norm().clamp(min=1e-12)) for a, b in pairs)


def _deform_conv_error(device: str, backend: Backend, dtype: torch.dtype) -> float:
    """Coordinates stay float32 in half precision, as the layer gives them."""
    random = torch.Generator().manual_seed(0)
    x, weight = (torch.randn(*size, generator=random).to(dtype) for size in ((2, 32, 24, 20), (16, 32, 3, 3)))
    offset = torch.randn(2, 18, 24, 20, generator=random) * 2
    mask = torch.rand(2, 9, 24, 20, generator=random)
    grad = torch.randn(2, 16, 24, 20, generator=random).to(dtype)

    def run(to: str, chosen: Backend, types: tuple[torch.dtype, torch.dtype]) -> list[Tensor]:
        features, coordinates = types
        a, w = (t.to(to, features).requires_grad_() for t in (x, weight))
        o, m = (t.to(to, coordinates).requires_grad_() for t in (offset, mask))
        y = deform_conv2d(a, o, w, None, m, padding=1, backend=chosen)
        return [y, *torch.autograd.grad(y, (a, o, w, m), grad.to(to, y.dtype))]

    expected = run("cpu", "torchvision", (torch.float64, torch.float64))
    return _error(run(device, backend, (dtype, torch.float32)), expected)


def _roi_align_error(device: str) -> float:
    random = torch.Generator().manual_seed(0)
    features = [torch.randn(2, 8, 64 // s, 64 // s, generator=random) for s in (1, 2, 4, 8)]
    corner = torch.rand(40, 2, generator=random) * 150
    boxes = torch.cat([corner, corner + torch.rand(40, 2, generator=random) * 120 + 1], dim=1)
    image = torch.arange(40) % 2

    def run(to: str, dtype: torch.dtype) -> list[Tensor]:
        maps = [x.to(to, dtype).requires_grad_() for x in features]
        y = pyramid_roi_align(maps, (4, 8, 16, 32), boxes.to(to, dtype), image.to(to), output_size=7)
        return [y, *torch.autograd.grad(y.square().sum(), maps)]

    return _error(run(device, torch.float32), run("cpu", torch.float64))


def _iou_error(device: str) -> float:
    boxes = _boxes(50)
    return _error([pairwise_iou(boxes.to(device), boxes.to(device))], [pairwise_iou(boxes, boxes)])


def _nms_error(device: str) -> float:
    boxes = _boxes(500)
    scores = torch.randperm(500, generator=torch.Generator().manual_seed(1)) / 500
    kept = []
    for to in (device, "cpu"):
        labels = torch.arange(500, device=to) % 5
        keep = class_nms(boxes.to(to), scores=scores.to(to), labels=labels, iou_threshold=0.5, limit=500)
        kept.append(set(keep.tolist()))
    return len(kept[0] ^ kept[1]) / len(kept[1])


def _boxes(count: int) -> Tensor:
    random = torch.Generator().manual_seed(0)
    corner = torch.rand(count, 2, generator=random) * 50
    return torch.cat([corner, corner + 5 + torch.rand(count, 2, generator=random) * 30], dim=1)


def _model_error(make: Callable[[], Detector], device: str) -> float:
    """Of the raw outputs of the dense part, in evaluation mode."""
    model = make()
    batch = random_batch(num_classes=3, image_size=(64, 64), batch_size=2, count=3)
    with torch.no_grad():
        expected = _tensors(model(batch.images, batch.image_sizes))
        model, batch = model.to(device), batch.to(device)
        return _error(_tensors(model(batch.images, batch.image_sizes)), expected)


def _tensors(outputs: object) -> list[Tensor]:
    dense = getattr(outputs, "rpn", outputs)
    return [
        value for value in vars(dense).values() if isinstance(value, Tensor) and value.is_floating_point()
    ]


def _fcos() -> Detector:
    torch.manual_seed(0)
    backbone = ResNet(18, deform=DeformableStages(stages=(4, 5)))
    return build_detector(backbone=backbone, neck=FPN, head=FCOSHead, num_classes=3).eval()


def _faster_rcnn() -> Detector:
    torch.manual_seed(0)
    backbone = ResNet(18, deform=DeformableStages(stages=(4, 5)), out_stages=(2, 3, 4, 5))
    neck = partial(FPN, extra_levels="maxpool")
    return build_detector(backbone=backbone, neck=neck, head=FasterRCNNHead, num_classes=3).eval()

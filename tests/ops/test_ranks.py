"""What the ranks of a run compute together; played one after the other in this process."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from detector.models.detector import Detector
from detector.ops.ranks import all_gathered, mean_over_ranks, normalizer, num_ranks, total_over_ranks
from detector.structures import Batch
from tests.samples import make_batch, small_faster_rcnn, small_fcos, total

Losses = dict[str, Tensor]


class Ranks:
    """Ranks whose sums do not depend on earlier sums: a first pass of each finds what it gives to them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch
        self.contributions: list[list[Tensor]] = []

    def run(self, *ranks: Callable[[], Losses]) -> list[Losses]:
        for name, value in (("is_initialized", True), ("get_world_size", len(ranks))):
            self._patch.setattr(torch.distributed, name, lambda value=value: value)
        for rank in ranks:
            self.contributions.append([])
            self._patch.setattr(
                torch.distributed, "all_reduce", lambda x: self.contributions[-1].append(x.clone())
            )
            rank()
        assert len({len(contributions) for contributions in self.contributions}) == 1, (
            "every rank takes part in every collective"
        )
        totals = [torch.stack(values).sum(dim=0) for values in zip(*self.contributions, strict=True)]
        results = []
        for rank in ranks:
            left = iter(totals)
            self._patch.setattr(torch.distributed, "all_reduce", lambda x, left=left: x.copy_(next(left)))
            results.append(rank())
        self._patch.undo()
        return results


def frozen(make: Callable[[], Detector]) -> Detector:
    """In training, but for its batch norms, which know one rank alone."""
    torch.manual_seed(0)
    model = make().train()
    model.backbone.eval()
    return model


def loss_and_backward(model: Detector, batch: Batch) -> Losses:
    losses = model.loss(batch)
    total(losses).backward()
    return {name: value.detach() for name, value in losses.items()}


ONE: list[float]
MANY: list[list[float]]
ONE, MANY = [8.0, 8, 40, 40], [[4.0, 4, 30, 30], [30, 20, 60, 62], [0, 30, 25, 60], [33, 2, 60, 20]]
BOXES: dict[str, list[list[list[float]]]] = {
    "uneven": [[ONE], [], MANY, MANY[1:]],
    "a rank without boxes": [[], [], [ONE], MANY],
    "no boxes": [[], [], [], []],
}
MODELS: dict[str, Callable[[], Detector]] = {
    "fcos": small_fcos,
    "fcos, centerness weighted": partial(small_fcos, centerness_weighted_boxes=True),
    "faster_rcnn": small_faster_rcnn,
}


@pytest.mark.parametrize("boxes", BOXES)
@pytest.mark.parametrize("name", MODELS)
def test_two_ranks_learn_as_one_process_with_the_same_images(
    name: str, boxes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = make_batch(
        BOXES[boxes], [[k % 3 for k, _ in enumerate(b)] for b in BOXES[boxes]], sizes=[(64, 64)] * 4
    )
    model = frozen(MODELS[name])
    alone = loss_and_backward(model, batch)
    expected = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    ranks = Ranks(monkeypatch)
    halves = [partial(loss_and_backward, model, batch.select(rows)) for rows in (slice(0, 2), slice(2, 4))]
    model.zero_grad()
    losses = ranks.run(*(partial(fresh, model, half) for half in halves))
    for term, value in alone.items():
        mean = torch.stack([rank[f"{term}"] for rank in losses]).mean()
        torch.testing.assert_close(mean, value, rtol=1e-5, atol=1e-6)
    for parameter, gradient in expected.items():
        mean = torch.stack([rank[f"grad {parameter}"] for rank in losses]).mean(dim=0)
        torch.testing.assert_close(mean, gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max() + 1e-3))


def fresh(model: Detector, step: Callable[[], Losses]) -> Losses:
    """Losses and gradients of one rank's step."""
    model.zero_grad()
    losses = step()
    gradients = {f"grad {n}": p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return {**losses, **gradients}


@pytest.mark.parametrize("make", [small_fcos, small_faster_rcnn])
def test_a_validation_loss_waits_for_no_other_rank(
    make: Callable[[], Detector], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranks have different numbers of validation images."""
    model = make().eval()
    batch = make_batch([[ONE]], [[0]], sizes=[(64, 64)])
    ranks = Ranks(monkeypatch)
    ranks.run(lambda: model.loss(batch), dict)
    assert [*map(len, ranks.contributions)] == [0, 0]


def test_one_process_keeps_its_values() -> None:
    counts = torch.tensor(0.25)
    assert num_ranks() == 1
    assert total_over_ranks(counts) is counts
    assert mean_over_ranks(counts) == 0.25
    assert normalizer(counts, at_least=1.0, all_ranks=True) == 1
    assert normalizer(torch.tensor(3), at_least=1.0, all_ranks=True) == 3
    assert all_gathered("mine") == ["mine"]

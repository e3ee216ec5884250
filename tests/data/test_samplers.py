"""Which images form which batch."""

from typing import Any, cast

import numpy as np
import pytest

from detector.data.samplers import EvaluationBatchSampler, TrainBatchSampler


def make(num_images: int = 50, **options: Any) -> TrainBatchSampler:
    return TrainBatchSampler(num_images, **(cast(dict[str, Any], {"batch_size": 4, "seed": 3}) | options))


def test_an_epoch_is_a_pure_function_of_seed_and_epoch() -> None:
    fresh, used = make(), make()
    for epoch in range(3):
        used.set_epoch(epoch)
        list(used)
    fresh.set_epoch(1)
    used.set_epoch(1)
    assert list(fresh) == list(used)


def test_epochs_and_seeds_differ() -> None:
    assert not np.array_equal(make().batches(0), make().batches(1))
    assert not np.array_equal(make().batches(0), make(seed=4).batches(0))


def test_keys_carry_the_epoch() -> None:
    sampler = make()
    sampler.set_epoch(5)
    assert {epoch for batch in sampler for epoch, _ in batch} == {5}


def test_lightning_reaches_set_epoch() -> None:
    """It calls `dataloader.batch_sampler.sampler.set_epoch`."""
    sampler = make()
    sampler.sampler.set_epoch(2)
    assert next(iter(sampler))[0][0] == 2


def test_no_image_comes_twice_in_an_epoch() -> None:
    batches = make().batches(0)
    assert batches.shape == (12, 4)
    assert len(np.unique(batches)) == 48


def test_the_images_left_out_change_with_the_epoch() -> None:
    left_out = [frozenset(range(50)) - set(make().batches(e).ravel().tolist()) for e in range(10)]
    assert len(set(left_out)) > 1


@pytest.mark.parametrize("grouped", [False, True])
def test_ranks_share_an_epoch_without_overlap(grouped: bool) -> None:
    groups = np.arange(50) % 3 == 0 if grouped else None
    parts = [make(groups=groups, rank=r, world_size=3).batches(1) for r in range(3)]
    assert [p.shape for p in parts] == [(4, 4)] * 3
    assert len(np.unique(np.concatenate(parts))) == 48


def test_global_batches_do_not_depend_on_the_number_of_ranks() -> None:
    alone = make(batch_size=8).batches(0)
    shared = [make(batch_size=4, rank=r, world_size=2).batches(0) for r in range(2)]
    np.testing.assert_array_equal(np.concatenate(shared, axis=1), alone)


def test_groups_stay_together_but_for_the_rest() -> None:
    groups = np.arange(50) % 3 == 0  # 17 and 33: rests of 1 and 1
    batches = make(groups=groups).batches(0)
    mixed = [len(set(groups[b])) > 1 for b in batches]
    assert sum(mixed) <= 1
    assert len(batches) == len(make())


def test_grouped_batches_come_in_mixed_order() -> None:
    groups = np.arange(400) < 200
    kinds = groups[make(400, groups=groups).batches(0)[:, 0]]
    assert 20 < np.sum(kinds[1:] != kinds[:-1]) < 80


def test_fewer_images_than_a_batch_says_what_to_lower() -> None:
    with pytest.raises(ValueError, match=r"3 training images .* batch of 4.*data\.batch_size to at most 3"):
        make(3)
    with pytest.raises(ValueError, match=r"on each of 2 devices.*at most 3"):
        make(7, world_size=2)


@pytest.mark.parametrize(("num_images", "world_size"), [(10, 1), (10, 3), (2, 4), (12, 4), (17, 2)])
def test_evaluation_deals_out_the_batches_of_one_process(num_images: int, world_size: int) -> None:
    """Each image once; all ranks have as many batches, some of which may be empty."""
    alone = list(EvaluationBatchSampler(num_images, batch_size=3))
    assert [i for batch in alone for _, i in batch] == list(range(num_images))
    samplers = [
        EvaluationBatchSampler(num_images, batch_size=3, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    parts = [list(sampler) for sampler in samplers]
    assert [len(part) for part in parts] == [len(sampler) for sampler in samplers]
    turns = [batch for turn in zip(*parts, strict=True) for batch in turn]
    assert [batch for batch in turns if batch] == alone

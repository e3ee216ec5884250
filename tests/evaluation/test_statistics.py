"""Intervals of the difference of two models."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from detector.evaluation.coco import CocoEvaluator
from detector.evaluation.matching import IOUS, ClassMatches
from detector.evaluation.metrics import BY_CLASS
from detector.evaluation.replicates import Replicates
from detector.evaluation.statistics import (
    Comparison,
    Difference,
    Draws,
    ap_interval,
    compare,
    corrected_for_variants,
    draw,
    sign_flip_p,
)
from tests.evaluation.worlds import run_of, world

CLASSES = ("thing", "other")
WORLDS = {1: 500, 3: 200}  # more where one is cheap


def compared(
    truth: dict[str, Any], a: list[Any], b: list[Any], *, num_resamples: int = 100, seed: int = 0
) -> Comparison:
    evaluator = CocoEvaluator(truth)
    runs = [Replicates(evaluator.matched(results).classes) for results in (*a, *b)]
    seeds = range(len(a))
    draws = draw(runs, num_resamples=num_resamples, seed=seed)
    b_runs = [len(a) + s for s in seeds]
    return compare(draws, seeds, b_runs, class_names=evaluator.class_names, identical=a == b)


def test_differences_are_those_of_the_metrics() -> None:
    random = np.random.default_rng(0)
    truth = world(30, random)
    a, b = ([run_of(truth, random, skill=skill) for _ in range(2)] for skill in (0.5, 0.9))
    comparison = compared(truth, a, b)
    evaluator = CocoEvaluator(truth)
    scores = [[evaluator.evaluate(results) for results in variant] for variant in (a, b)]
    for name in (spec.name for spec in BY_CLASS):
        if name not in comparison.metrics:
            continue
        means = [np.mean([getattr(metrics, name) for metrics in variant]) for variant in scores]
        assert comparison.metrics[name].delta == pytest.approx(means[1] - means[0], abs=1e-12)
        assert (comparison.metrics[name].a, comparison.metrics[name].b) == pytest.approx(tuple(means))
    assert comparison.seed_deltas == pytest.approx([y.AP - x.AP for x, y in zip(*scores, strict=True)])
    assert comparison.classes["other"].b == pytest.approx(
        np.mean([m.per_class["other"]["AP"] for m in scores[1]])
    )
    assert "APl" not in comparison.metrics  # no large object


def test_a_large_difference_is_real_and_a_class_at_a_time() -> None:
    random = np.random.default_rng(0)
    truth = world(60, random)
    comparison = compared(truth, [run_of(truth, random, skill=0.4)], [run_of(truth, random, skill=0.95)])
    assert comparison.metrics["AP"].low > 0.1
    assert comparison.metrics["AP"].p_value < 1e-3
    assert all(one.p_value < 0.05 for one in comparison.classes.values())
    assert comparison.seeds_needed is None  # one seed tells nothing of the seeds
    assert comparison.metrics["AP"].seed_error == 0


def test_identical_predictions_differ_by_nothing() -> None:
    random = np.random.default_rng(0)
    truth = world(20, random)
    results = run_of(truth, random)
    comparison = compared(truth, [results], [results])
    assert comparison.identical
    assert (comparison.metrics["AP"].low, comparison.metrics["AP"].high) == (0, 0)
    assert comparison.metrics["AP"].p_value == 1
    assert not compared(truth, [results], [results[1:]]).identical


def test_a_class_in_few_images_has_no_interval() -> None:
    """Found by one and missed by the other wherever it is: every draw agrees, and tells nothing."""
    random = np.random.default_rng(0)
    truth = world(40, random)
    rare = [row for row in truth["annotations"] if row["category_id"] == 2][:1]
    truth["annotations"] = [row for row in truth["annotations"] if row["category_id"] == 1] + rare
    common = [row for row in run_of(truth, random) if row["category_id"] == 1]
    detection = {"image_id": rare[0]["image_id"], "category_id": 2, "bbox": rare[0]["bbox"], "score": 0.9}
    result = compared(truth, [common], [[*common, detection]])
    assert result.classes.keys() == {"thing"}
    assert result.metrics["AP"].p_value > 0


def test_the_same_seed_gives_the_same_interval() -> None:
    random = np.random.default_rng(0)
    truth = world(20, random)
    a, b = [run_of(truth, random)], [run_of(truth, random)]
    first, again, other = (compared(truth, a, b, seed=seed).metrics["AP"].low for seed in (0, 0, 1))
    assert first == again != other


def test_seeds_widen_the_interval_and_tell_how_many_are_needed() -> None:
    """Two seeds that disagree: their mean is known badly however many the images."""
    random = np.random.default_rng(0)
    truth = world(60, random)
    a = [run_of(truth, random, skill=0.6) for _ in range(2)]
    b = [run_of(truth, random, skill=skill) for skill in (0.65, 0.95)]
    comparison = compared(truth, a, b)
    alone = compared(truth, a[1:], b[1:])
    assert alone.metrics["AP"].leaves_out_zero
    assert not comparison.metrics["AP"].leaves_out_zero
    assert comparison.metrics["AP"].seed_error > 3 * comparison.metrics["AP"].image_error
    assert comparison.seeds_needed is not None
    assert comparison.seeds_needed > 2


def test_the_interval_of_one_model_is_that_of_its_draws() -> None:
    random = np.random.default_rng(0)
    truth = world(60, random)
    evaluator, results = CocoEvaluator(truth), run_of(truth, random)
    matched = evaluator.matched(results)
    interval = ap_interval(matched, num_resamples=200)
    assert interval is not None
    assert interval.value == pytest.approx(evaluator.evaluate(results).AP)
    draws = draw([Replicates(matched.classes)], num_resamples=200).replicated["AP"].mean(axis=-1)
    assert 0.9 < np.mean((interval.low < draws) & (draws < interval.high)) < 0.99
    truth["annotations"] = [row for row in truth["annotations"] if row["image_id"] < 4]
    assert ap_interval(CocoEvaluator(truth).matched(results)) is None


def test_the_metrics_of_one_area_do_not_change_without_the_others() -> None:
    random = np.random.default_rng(1)
    truth = world(20, random)
    matched = CocoEvaluator(truth).matched(run_of(truth, random))
    weights = random.integers(0, 3, size=20).astype(np.float64)
    complete, alone = (
        Replicates(matched.classes).metrics(weights),
        Replicates(matched.classes, areas=("all",)).metrics(weights),
    )
    assert alone.keys() == {"AP", "AP50", "AP75", "AR100"}
    for name, values in alone.items():
        np.testing.assert_array_equal(values, complete[name])


def test_no_number_of_seeds_is_needed_for_nothing() -> None:
    """Two seeds of models that find next to nothing, and of models that differ by nothing."""
    for a, b in (((0.0, 0.004), (0.001, 0.005)), ((0.5, 0.6), (0.5003, 0.6003))):
        observed = {name: np.array([*a, *b])[:, None] for name in (spec.name for spec in BY_CLASS)}
        noise = 1e-5 * np.random.default_rng(0).standard_normal((50, 4, 1))
        replicated = {name: values + noise for name, values in observed.items()}
        images = dict.fromkeys(("all", "small", "medium", "large"), 50)
        draws = Draws(observed, replicated, 50, np.array([50]), images)
        assert compare(draws, [0, 1], [2, 3], class_names=["thing"]).seeds_needed is None


def test_sign_flips() -> None:
    assert sign_flip_p(np.array([0.1, 0.2, 0.1])) == 2 / 8
    assert sign_flip_p(np.array([0.1, -0.1])) == 1
    assert sign_flip_p(np.array([0.3])) == 1
    assert sign_flip_p(np.full(20, 0.1)) < 1e-3


def test_p_values_of_classes_are_corrected_for_their_number() -> None:
    """Holm: the smallest of two p-values doubles."""
    random = np.random.default_rng(3)
    truth = world(40, random)
    a, b = [run_of(truth, random, skill=0.6)], [run_of(truth, random, skill=0.7)]
    comparison = compared(truth, a, b)
    both = sorted(comparison.classes.values(), key=lambda one: one.p_value)
    evaluator = CocoEvaluator(truth)
    draws = draw([Replicates(evaluator.matched(r).classes) for r in (*a, *b)], num_resamples=100)
    alone = {
        name: compare(_only(draws, k), [0], [1], class_names=[name]).classes[name].p_value
        for k, name in enumerate(CLASSES)
    }
    assert both[0].p_value == pytest.approx(min(1, 2 * min(alone.values())))
    assert both[1].p_value == pytest.approx(max(both[0].p_value, max(alone.values())))


def _only(draws: Any, k: int) -> Any:
    from dataclasses import replace

    return replace(
        draws,
        observed={name: v[:, k : k + 1] for name, v in draws.observed.items()},
        replicated={name: v[:, :, k : k + 1] for name, v in draws.replicated.items()},
        images_of_class=draws.images_of_class[k : k + 1],
    )


def matched_run(objects: np.ndarray, random: np.random.Generator, *, luck: float) -> Replicates:
    """A run of a detector on images with so many objects of one class and no size."""
    skill = 0.7 + luck * random.standard_normal()
    image, score, matched = [], [], []
    for number, count in enumerate(objects):
        hits, false = random.binomial(count, skill), random.binomial(count, 0.4)
        quality = np.append(random.uniform(0.5, 1, hits), np.zeros(false))
        image += [number] * (hits + false)
        score.append(np.append(random.beta(4, 2, hits), random.beta(2, 4, false)))
        matched.append(quality >= IOUS[:, None])
    order = np.argsort(-np.concatenate(score), kind="stable")
    of_all = np.concatenate(matched, axis=1)[:, order]
    return Replicates(
        [
            ClassMatches(
                rows=order,
                images=np.array(image)[order],
                scores=np.concatenate(score)[order],
                matched=np.stack([of_all, *[np.zeros_like(of_all)] * 3]),
                ignored=np.zeros((4, *of_all.shape), dtype=bool),
                objects=np.stack([objects, *[np.zeros_like(objects)] * 3]),
                matched_object=np.full(len(order), -1),
                overlaps=np.zeros(len(order)),
            )
        ]
    )


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.parametrize("seeds", [1, 3])
def test_under_the_null_the_interval_covers_zero_95_times_of_100(seeds: int) -> None:
    """Two halves of the runs of one detector; with one seed, no run may be luckier as a whole, for that is
    what the interval of one seed leaves out."""
    covered, worlds, luck = 0, WORLDS[seeds], 0.0 if seeds == 1 else 0.05
    for number in range(worlds):
        random = np.random.default_rng(number)
        objects = random.integers(1, 4, size=150)
        runs = [matched_run(objects, random, luck=luck) for _ in range(2 * seeds)]
        draws = draw(runs, num_resamples=60, seed=number)
        comparison = compare(draws, range(seeds), range(seeds, 2 * seeds), class_names=["thing"])
        covered += not comparison.metrics["AP"].leaves_out_zero
    assert 0.93 <= covered / worlds <= 0.97


def variant_with(p_value: float) -> Comparison:
    ap = Difference(0.5, 0.52, 0.02, 0.001, 0.039, p_value, 0.01, 0.0)
    return Comparison({"AP": ap}, {}, 1, (0.02,), 1.0, None, 50, identical=False, verdict_p=p_value)


def test_a_verdict_on_one_of_many_variants_takes_more() -> None:
    assert variant_with(0.04).is_real
    comparisons = corrected_for_variants(
        {"x": variant_with(0.04), "y": variant_with(0.004), "z": variant_with(0.5)}
    )
    assert [comparisons[variant].verdict_p for variant in "xyz"] == pytest.approx([0.08, 0.012, 0.5])
    assert [comparisons[variant].is_real for variant in "xyz"] == [False, True, False]


def test_a_variant_without_ap_does_not_count() -> None:
    bare = replace(variant_with(0.5), metrics={}, verdict_p=1.0)
    comparisons = corrected_for_variants({"x": variant_with(0.04), "y": bare})
    assert comparisons["x"].is_real
    assert not comparisons["y"].is_real

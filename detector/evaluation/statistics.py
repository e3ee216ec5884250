"""Tests of whether two models differ: a paired bootstrap over images, seeds as a second source of noise."""

# B bootstrap replicates, V runs (a model trained with a seed), K classes, S seeds

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from detector.evaluation.matching import Matched
from detector.evaluation.metrics import BY_CLASS, MONITORED, MetricSpec
from detector.evaluation.replicates import Replicates

_CONFIDENCE = 0.95
_FEWEST_IMAGES = 5  # with objects: fewer can give no interval


@dataclass(frozen=True)
class Draws:
    """The metrics of V runs, by name and class.

    `observed` is (V, K); `replicated` (B, V, K) has images drawn with replacement, the same images for every
    run. NaN: the class has no object. `images_of_class` (K) and `images_of_area` count the images with
    objects of the class or area: no others carry information about it.
    """

    observed: Mapping[str, np.ndarray]
    replicated: Mapping[str, np.ndarray]
    num_images: int
    images_of_class: np.ndarray
    images_of_area: Mapping[str, int]


@dataclass(frozen=True)
class Interval:
    """A metric of one run with its 95 % interval over images.

    It covers other images of the same kind, not other seeds.
    """

    value: float
    low: float
    high: float
    num_images: int
    num_resamples: int


@dataclass(frozen=True)
class Difference:
    """A metric of two models, as means over seeds, and their difference `delta` = b - a.

    `low` and `high` bound its 95 % interval. `p_value` is two-sided. `image_error` and `seed_error` are the
    parts of the standard error.
    """

    a: float
    b: float
    delta: float
    low: float
    high: float
    p_value: float
    image_error: float
    seed_error: float

    @property
    def leaves_out_zero(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0

    @property
    def is_nothing(self) -> bool:
        """Whether the difference prints as 0.000."""
        return abs(self.delta) < 0.0005

    @property
    def detects_nothing(self) -> bool:
        """Whether both models have an AP below 0.01."""
        return max(self.a, self.b) < 0.01


@dataclass(frozen=True)
class Comparison:
    """The comparison of model b with model a, trained with the same seeds, evaluated on the same images.

    `metrics` and `classes` (AP of each, with p-values corrected by Holm's method for their number) lack what
    is undefined for want of objects or rests on fewer than 5 images. `seed_deltas` are the differences of AP
    seed by seed, `sign_flip_p` the share of their sign patterns whose mean is at least as far from zero.
    `seeds_needed` is how many would show a difference like this one, None where no number of seeds would: the
    images are too few, or there is no difference to show. `num_classes` includes the classes without an
    interval. `verdict_p` is the p-value of `decided_by`, AP unless another metric decides, corrected for the
    `num_variants` compared with the same model; the differences by seed and `seeds_needed` are its, too.
    """

    metrics: Mapping[str, Difference]
    classes: Mapping[str, Difference]
    num_seeds: int
    seed_deltas: tuple[float, ...]
    sign_flip_p: float
    seeds_needed: int | None
    num_images: int
    identical: bool
    num_variants: int = 1
    verdict_p: float = 1.0
    num_classes: int = 0
    decided_by: MetricSpec = MONITORED

    @property
    def decisive(self) -> Difference | None:
        """The difference that decides; None where it is undefined."""
        return self.metrics.get(self.decided_by.name)

    @property
    def is_real(self) -> bool:
        """Whether the models differ, with a 5 % chance of error over all variants."""
        return self.decisive is not None and self.verdict_p < 1 - _CONFIDENCE

    @property
    def is_better(self) -> bool:
        """Whether the difference that decides is in favor of model b."""
        return self.decisive is not None and (self.decisive.delta > 0) == self.decided_by.higher_is_better


def draw(runs: Sequence[Replicates], *, num_resamples: int = 1000, seed: int = 0) -> Draws:
    """Compute the metrics of runs on the same images, as observed and under `num_resamples` draws of them."""
    count = runs[0].num_images
    assert all(run.num_images == count for run in runs), "the runs were evaluated on the same images"
    random = np.random.default_rng(seed)
    weights: list[np.ndarray] = [np.ones(count)]
    weights += [
        np.bincount(random.integers(count, size=count), minlength=count) for _ in range(num_resamples)
    ]

    def metrics_of_all(weight: np.ndarray) -> list[dict[str, np.ndarray]]:
        return [run.metrics(weight.astype(np.float64)) for run in runs]

    with ThreadPoolExecutor(os.cpu_count()) as threads:  # numpy releases the GIL
        metrics_by_draw = list(threads.map(metrics_of_all, weights))
    values = {
        name: np.array([[one[name] for one in row] for row in metrics_by_draw])
        for name in metrics_by_draw[0][0]
    }
    return Draws(
        observed={name: value[0] for name, value in values.items()},
        replicated={name: value[1:] for name, value in values.items()},
        num_images=count,
        images_of_class=runs[0].images_with_objects()[0],
        images_of_area=dict(zip(runs[0].areas, runs[0].images_with_objects()[1].tolist(), strict=True)),
    )


def ap_interval(matched: Matched, *, num_resamples: int = 300) -> Interval | None:
    """Estimate the interval of AP; None where fewer than 5 images hold objects, or nothing is found.

    The default of `num_resamples` gives its width to 4 %.
    """
    draws = draw([Replicates(matched.classes, areas=("all",))], num_resamples=num_resamples)
    images = draws.images_of_area["all"]
    if images < _FEWEST_IMAGES:
        return None
    value = float(_mean_of_defined(draws.observed["AP"])[0])
    error = float(np.nanstd(_mean_of_defined(draws.replicated["AP"]), ddof=1))
    if error == 0:  # all draws agree, which says nothing about the spread
        return None
    half = float(stats.t.ppf(0.5 + _CONFIDENCE / 2, images - 1)) * error
    return Interval(value, max(0.0, value - half), min(1.0, value + half), draws.num_images, num_resamples)


def run_metrics(draws: Draws, run: int) -> dict[str, float | None]:
    """Return the metrics of one run as observed; None where there are no objects for it."""
    means = {name: float(_mean_of_defined(values[run])) for name, values in draws.observed.items()}
    return {name: None if math.isnan(mean) else mean for name, mean in means.items()}


def compare(
    draws: Draws,
    a: Sequence[int],
    b: Sequence[int],
    *,
    class_names: Sequence[str],
    specs: Sequence[MetricSpec] = BY_CLASS,
    decided_by: MetricSpec = MONITORED,
    identical: bool = False,
) -> Comparison:
    """Compare model b with model a, seed by seed.

    `a` and `b` are indices of runs, one per seed. `specs` describe metrics, of which the drawn ones are
    compared; `decided_by` is one of these. `identical` says that the models predict the same.
    """
    assert len(a) == len(b) > 0, "each seed trains both models"
    a, b = list(a), list(b)
    metrics = {
        spec.name: _difference(
            _mean_of_defined(draws.observed[spec.name]),
            _mean_of_defined(draws.replicated[spec.name]),
            a,
            b,
            images=draws.images_of_area[spec.area],
        )
        for spec in specs
        if spec.name in draws.observed
    }
    ap, replicated = draws.observed["AP"], draws.replicated["AP"]
    classes = {
        name: _difference(ap[:, k], replicated[:, :, k], a, b, images=int(draws.images_of_class[k]))
        for k, name in enumerate(class_names)
    }
    deciding = draws.observed[decided_by.name]
    deltas = _mean_of_defined(deciding[b]) - _mean_of_defined(deciding[a])
    return Comparison(
        metrics=_defined(metrics),
        classes=_holm(_defined(classes)),
        num_seeds=len(a),
        seed_deltas=() if np.isnan(deltas).any() else tuple(float(delta) for delta in deltas),
        sign_flip_p=1.0 if np.isnan(deltas).any() else sign_flip_p(deltas),
        seeds_needed=_seeds_needed(metrics[decided_by.name], num_seeds=len(a)),
        num_images=draws.num_images,
        identical=identical,
        verdict_p=decisive.p_value if (decisive := metrics[decided_by.name]) else 1.0,
        decided_by=decided_by,
        num_classes=len(class_names),
    )


def corrected_for_variants(comparisons: Mapping[str, Comparison]) -> dict[str, Comparison]:
    """Correct the comparisons of several models with the same one for their number.

    The more there are, the likelier one is to differ by chance.
    """
    decisive = _holm(_defined({variant: one.decisive for variant, one in comparisons.items()}))
    return {
        variant: replace(comparison, num_variants=len(decisive), verdict_p=decisive[variant].p_value)
        if variant in decisive
        else comparison
        for variant, comparison in comparisons.items()
    }


def sign_flip_p(deltas: np.ndarray) -> float:
    """Return the share of the 2^S sign patterns of the differences whose mean is at least as far from zero.

    With few seeds it cannot be small: 0.25 at best with three.
    """
    if len(deltas) > 16:  # more patterns than anyone needs
        signs = np.random.default_rng(0).choice([-1, 1], (2**16, len(deltas)))
    else:
        signs = 1 - 2 * (np.arange(2 ** len(deltas))[:, None] >> np.arange(len(deltas)) & 1)
    means = np.abs(signs @ deltas)
    return float(np.mean(means >= abs(deltas.sum()) - 1e-12))


def _difference(
    observed: np.ndarray, replicated: np.ndarray, a: list[int], b: list[int], *, images: int
) -> Difference | None:
    """Estimate the difference in a metric (V) with replicates (B, V) on `images` images with objects.

    Returns None where the metric is undefined, or the images are too few for an interval. Images and seeds
    are crossed: the variance of the mean difference is that over images plus that over seeds less what both
    contain, the noise of a seed on an image (two-way clustering, Cameron et al. 2011). Degrees of freedom are
    Satterthwaite's, since few seeds or few images estimate their variance poorly.
    """
    per_seed = observed[b] - observed[a]
    if np.isnan(per_seed).any() or images < _FEWEST_IMAGES:
        return None
    delta, seeds = float(per_seed.mean()), len(a)
    deltas = replicated[:, b] - replicated[:, a]
    deltas = deltas[~np.isnan(deltas).any(axis=1)]  # draws without any object are undefined
    if len(deltas) < 2:
        return None
    of_images, of_seeds = float(deltas.mean(axis=1).var(ddof=1)), 0.0
    if seeds > 1:
        of_seeds = float(per_seed.var(ddof=1)) / seeds
        both = (float(deltas.var(axis=0, ddof=1).mean()) - of_images) / (seeds - 1)
        of_images = max(0.0, of_images - max(0.0, both))
    error = math.sqrt(of_images + of_seeds)
    if error == 0 and delta != 0:
        return None
    freedom = _freedom(of_images, images, of_seeds, seeds)
    half = float(stats.t.ppf(0.5 + _CONFIDENCE / 2, freedom)) * error
    return Difference(
        a=float(observed[a].mean()),
        b=float(observed[b].mean()),
        delta=delta,
        low=delta - half,
        high=delta + half,
        p_value=float(2 * stats.t.sf(abs(delta) / error, freedom)) if error else float(delta == 0),
        image_error=math.sqrt(of_images),
        seed_error=math.sqrt(of_seeds),
    )


def _freedom(of_images: float, images: int, of_seeds: float, seeds: int) -> float:
    """Return Satterthwaite's degrees of freedom for the sum of two variances."""
    parts = of_images**2 / (images - 1) + (of_seeds**2 / (seeds - 1) if seeds > 1 else 0.0)
    return (of_images + of_seeds) ** 2 / parts if parts else images - 1.0


def _seeds_needed(ap: Difference | None, *, num_seeds: int) -> int | None:
    """Return the least number of seeds whose interval would exclude zero if the difference is as observed."""
    if ap is None or ap.is_nothing or ap.detects_nothing or num_seeds == 1:
        return None
    of_one = ap.seed_error**2 * num_seeds
    for seeds in range(2, 1001):
        variance = ap.image_error**2 + of_one / seeds
        freedom = (seeds - 1) * (variance / (of_one / seeds)) ** 2 if of_one else math.inf
        if stats.t.ppf(0.5 + _CONFIDENCE / 2, freedom) * math.sqrt(variance) < abs(ap.delta):
            return seeds
    return None


def _mean_of_defined(values: np.ndarray) -> np.ndarray:
    """Average over the classes, the last axis; NaN where none is defined."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=-1)
    sums = np.where(defined, values, 0.0).sum(axis=-1)
    return np.where(count > 0, sums / np.maximum(count, 1), np.nan)


def _defined(differences: Mapping[str, Difference | None]) -> dict[str, Difference]:
    return {name: difference for name, difference in differences.items() if difference is not None}


def _holm(differences: dict[str, Difference]) -> dict[str, Difference]:
    """Correct the p-values for the number of differences (Holm 1979)."""
    largest, corrected = 0.0, {}
    ranked = sorted(differences.items(), key=lambda entry: entry[1].p_value)
    for rank, (name, difference) in enumerate(ranked):
        largest = max(largest, min(1.0, (len(ranked) - rank) * difference.p_value))
        corrected[name] = replace(difference, p_value=largest)
    return {name: corrected[name] for name in differences}

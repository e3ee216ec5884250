"""The analysis of one subject: intervals, errors, and the images that changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from detector.comparing.subjects import Subject
from detector.evaluation.coco import CocoEvaluator
from detector.evaluation.metrics import MONITORED, MetricSpec
from detector.evaluation.replicates import replicates_of
from detector.evaluation.statistics import (
    Comparison,
    Draws,
    compare,
    corrected_for_variants,
    draw,
    run_metrics,
)
from detector.evaluation.tasks import NOUNS
from detector.reports.gallery import Changes, ModelImages, changes
from detector.reports.study import Condition
from detector.runs.report import analyzed

_MAX_IMAGES = 48  # gained images in a report, and as many lost ones
_MAX_IMAGES_OF_A_PAIR = 8


@dataclass(frozen=True)
class Models:
    """The detections of one run of each variant; `runs` says which. The first variant is the baseline."""

    subject: Subject
    images: Mapping[str, ModelImages]
    runs: str


def compared(subject: Subject, *, num_resamples: int) -> tuple[Condition, Models]:
    """Compare each variant with the first, using the seeds that both have.

    Error analyses are of one seed, one that all variants share if possible.
    """
    evaluator, decided_by = subject.evaluator, subject.decided_by
    keys, runs, errors, detections, names = [], [], {}, {}, {}
    for variant, by_seed in subject.results.items():
        shared_seeds = [seed for seed in by_seed if all(seed in r for r in subject.results.values())]
        shown = [*shared_seeds, *by_seed][0]
        names[variant] = subject.run_name(variant, shown)
        for seed, results in by_seed.items():
            matched = evaluator.matched(results, source=f"{variant}, seed {seed}")
            keys.append((variant, seed))
            runs.append(replicates_of(matched, evaluator))
            if seed == shown:
                shapes = [(other.rows(results), other.truth) for other in subject.others]
                errors[variant], detections[variant] = analyzed(matched, shapes=shapes)
    draws = draw(runs, num_resamples=num_resamples)
    comparisons = _with_first(subject, evaluator, draws, keys, decided_by=decided_by)
    metrics: dict[str, dict[int, Mapping[str, float | None]]] = {variant: {} for variant in subject.results}
    for number, (variant, seed) in enumerate(keys):
        metrics[variant][seed] = run_metrics(draws, number)
    condition = Condition(
        name=subject.name,
        baseline=next(iter(subject.results)),
        comparisons=corrected_for_variants(comparisons),
        notes=tuple(dict.fromkeys((*subject.notes, *evaluator.notes, *_notes_of_others(subject)))),
        curves=subject.curves,
        sizes=subject.sizes,
        latencies=subject.latencies,
        metrics=metrics,
        errors=errors,
        class_names=evaluator.class_names,
        shown_runs={variant: name for variant, name in names.items() if name},
        is_trained=subject.is_trained,
        metric=subject.metric,
        task=evaluator.task,
        others={
            other.task: _by_other_task(subject, other, num_resamples=num_resamples)
            for other in subject.others
        },
    )
    return condition, Models(subject, detections, condition.errors_of)


def _notes_of_others(subject: Subject) -> list[str]:
    known = {*subject.notes, *subject.evaluator.notes}
    return [
        f"{NOUNS[other.task]}: {note}"
        for other in subject.others
        for note in other.notes
        if note not in known
    ]


def _by_other_task(
    subject: Subject, evaluator: CocoEvaluator, *, num_resamples: int
) -> dict[str, Comparison]:
    """Compare each variant with the first by a task that decides nothing."""
    runs = {
        (variant, seed): replicates_of(
            evaluator.matched(results, source=f"{variant}, seed {seed}"), evaluator
        )
        for variant, by_seed in subject.results.items()
        for seed, results in by_seed.items()
    }
    draws = draw([*runs.values()], num_resamples=num_resamples)
    return corrected_for_variants(_with_first(subject, evaluator, draws, [*runs]))


def _with_first(
    subject: Subject,
    evaluator: CocoEvaluator,
    draws: Draws,
    keys: Sequence[tuple[str, int]],
    *,
    decided_by: MetricSpec = MONITORED,
) -> dict[str, Comparison]:
    """Compare each variant with the first; `keys` are the variant and the seed of each run of `draws`."""
    first, *others = subject.results
    comparisons = {}
    for variant in others:
        seeds = [seed for seed in subject.results[first] if seed in subject.results[variant]]
        a, b = ([keys.index((name, seed)) for seed in seeds] for name in (first, variant))
        identical = all(subject.results[variant][seed] == subject.results[first][seed] for seed in seeds)
        comparisons[variant] = compare(
            draws,
            a,
            b,
            class_names=evaluator.class_names,
            specs=evaluator.specs,
            decided_by=decided_by,
            identical=identical,
        )
    return comparisons


def changed_images(models: Models, *, pairs: int) -> list[Changes]:
    """Return the changed images of each variant, fewer if the report has many `pairs` of variants.

    The list is empty if images cannot be read.
    """
    subject = models.subject
    if subject.read_image is None:
        return []
    (first, before), *others = models.images.items()
    count = max(1, min(_MAX_IMAGES_OF_A_PAIR, _MAX_IMAGES // pairs))
    return [
        changes(
            {first: before, variant: after},
            condition=subject.name,
            runs=models.runs,
            read=subject.read_image,
            count=count,
        )
        for variant, after in others
    ]

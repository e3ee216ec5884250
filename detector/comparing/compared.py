"""The analysis of one subject: intervals, errors, and the images that changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from detector.comparing.subjects import Subject
from detector.evaluation.replicates import Replicates
from detector.evaluation.statistics import compare, corrected_for_arms, draw, run_metrics
from detector.reports.gallery import Changes, ModelImages, changes
from detector.reports.study import Point
from detector.runs.report import analysed

_PICTURED = 48  # gained images in a report, and as many lost ones
_PICTURED_OF_A_PAIR = 8


@dataclass(frozen=True)
class Models:
    """The detections of one run of each arm; `runs` says which. The first arm is the baseline."""

    subject: Subject
    images: Mapping[str, ModelImages]
    runs: str


def compared(subject: Subject, *, replicates: int) -> tuple[Point, Models]:
    """Compare each arm with the first, using the seeds that both have.

    Error analyses are of one seed, one that all arms share if possible.
    """
    evaluator = subject.evaluator
    first, *others = subject.results
    keys, runs, errors, found, names = [], [], {}, {}, {}
    for arm, by_seed in subject.results.items():
        of_all = [seed for seed in by_seed if all(seed in r for r in subject.results.values())]
        shown = [*of_all, *by_seed][0]
        names[arm] = subject.run_name(arm, shown)
        for seed, results in by_seed.items():
            matched = evaluator.matched(results, source=f"{arm}, seed {seed}")
            keys.append((arm, seed))
            runs.append(Replicates(matched.classes))
            if seed == shown:
                errors[arm], found[arm] = analysed(matched)
    draws = draw(runs, replicates=replicates)
    comparisons = {}
    for arm in others:
        seeds = [seed for seed in subject.results[first] if seed in subject.results[arm]]
        a, b = ([keys.index((name, seed)) for seed in seeds] for name in (first, arm))
        identical = all(subject.results[arm][seed] == subject.results[first][seed] for seed in seeds)
        comparisons[arm] = compare(draws, a, b, class_names=evaluator.class_names, identical=identical)
    metrics: dict[str, dict[int, Mapping[str, float | None]]] = {arm: {} for arm in subject.results}
    for number, (arm, seed) in enumerate(keys):
        metrics[arm][seed] = run_metrics(draws, number)
    point = Point(
        name=subject.name,
        baseline=first,
        comparisons=corrected_for_arms(comparisons),
        notes=tuple(dict.fromkeys((*subject.notes, *evaluator.notes))),
        curves=subject.curves,
        sizes=subject.sizes,
        latencies=subject.latencies,
        metrics=metrics,
        errors=errors,
        class_names=evaluator.class_names,
        shown_runs={arm: name for arm, name in names.items() if name},
        is_trained=subject.is_trained,
    )
    return point, Models(subject, found, point.errors_of)


def changed_images(models: Models, *, pairs: int) -> list[Changes]:
    """Return the changed images of each arm, fewer if the report has many `pairs` of arms.

    The list is empty if images cannot be read.
    """
    subject = models.subject
    if subject.picture is None:
        return []
    (first, before), *others = models.images.items()
    count = max(1, min(_PICTURED_OF_A_PAIR, _PICTURED // pairs))
    return [
        changes(
            {first: before, arm: after},
            point=subject.name,
            runs=models.runs,
            read=subject.picture,
            count=count,
        )
        for arm, after in others
    ]

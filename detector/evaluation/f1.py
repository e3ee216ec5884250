"""F1 by score threshold, at IoU 0.5: the mean over the classes with objects."""

# D detections (of a class)

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detector.evaluation.matching import ClassMatches, Matched


@dataclass(frozen=True)
class Counts:
    """The cumulative counts of a class with `objects` objects, over the detections that count, best first.

    Among the first 0, 1, 2 ... detections, `hits` is the number that match an object, `misplaced` the sum
    of 1 - IoU of these.
    """

    scores: np.ndarray
    hits: np.ndarray
    misplaced: np.ndarray
    objects: int

    @classmethod
    def of(cls, matches: ClassMatches) -> Counts:
        kept = ~matches.ignored[0, 0]
        hit = matches.matched[0, 0, kept]
        return cls(
            scores=matches.scores[kept],
            hits=np.append(0, np.cumsum(hit)),
            misplaced=np.append(0.0, np.cumsum(np.where(hit, 1 - matches.overlaps[kept], 0.0))),
            objects=int(matches.objects[0].sum()),
        )


def best_f1_threshold(matched: Matched) -> float | None:
    """Return the `best_score` of an `ErrorAnalysis`.

    None if no detection matches an object, or if the score is no threshold: less than 0 or more than 1.
    """
    scores, f1 = f1_by_score(matched)
    best = float(scores[int(f1.argmax())])
    return best if f1.any() and 0 <= best <= 1 else None


def f1_by_score(matched: Matched) -> tuple[np.ndarray, np.ndarray]:
    """Return score thresholds, and the mean F1 of the classes at each; zeros without objects."""
    detected = matched.rows.scores
    lowest, highest = (detected.min(), detected.max()) if len(detected) else (0.0, 1.0)
    scores = np.linspace(min(0.0, lowest), max(1.0, highest), 101)
    rows = [f1_of_class(counts, scores) for counts in map(Counts.of, matched.classes) if counts.objects]
    return scores, np.mean(rows, axis=0) if rows else np.zeros(len(scores))


def f1_of_class(counts: Counts, scores: np.ndarray) -> np.ndarray:
    num_detections = np.searchsorted(-counts.scores, -scores, side="right")
    return np.asarray(2 * counts.hits[num_detections] / (num_detections + counts.objects))

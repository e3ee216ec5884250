"""Upper bounds of the metrics where images hold more objects than COCO counts detections."""

# K classes with objects, N images

from __future__ import annotations

import numpy as np

from detector.coco.ground_truth import GroundTruth
from detector.evaluation.matching import LIMIT

_RECALLS = np.linspace(0.0, 1.0, 101)


def ceiling_notes(truth: GroundTruth, limit: int = LIMIT) -> tuple[str, ...]:
    """Return a note on the AP and AR100 of perfect results, where these are below 1."""
    objects = ~truth.ignored
    if truth.annotations.object_count <= limit:
        return ()
    pairs, counts = np.unique(
        np.stack([truth.categories[objects], truth.images[objects]]), axis=1, return_counts=True
    )
    crowded = counts > limit
    if not crowded.any():
        return ()
    classes, of_class = np.unique(pairs[0], return_inverse=True)
    countable, total = (np.bincount(of_class, n) for n in (np.minimum(counts, limit), counts))
    recall = countable / total
    ap = np.searchsorted(_RECALLS, recall, side="right") / len(_RECALLS)
    recall_name = "AR100" if limit == LIMIT else "AR"
    images, most = len(np.unique(pairs[1, crowded])), int(counts.argmax())
    return (
        f"{images} of {truth.num_images} images hold more than {limit} objects of a class, up to "
        f'{counts[most]} of "{truth.class_names[pairs[0, most] - 1]}": COCO counts {limit} detections of an '
        f"image and class, so perfect results would have AP {ap.mean():.3f} and {recall_name} "
        f"{recall.mean():.3f} ({np.count_nonzero(recall < 1)} of {len(classes)} classes are capped).",
    )

"""Detection latency of trained arms, measured in turns on the same images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import yaml

from detector.checkpoint import Checkpoint, load_checkpoint
from detector.comparing.subjects import Subject
from detector.data.collate import collate
from detector.data.dataset import Sample
from detector.predictor import Predictor
from detector.profiling.latency import Latency, measure_latencies
from detector.run_folder import RunFolder
from detector.runs.parts import find_accelerator
from detector.runs.validation import folder_of, open_validation

Measured = tuple[dict[str, list[Latency]], list[str]]


def with_latencies(subjects: Sequence[Subject], *, accelerator: str) -> list[Subject]:
    """Return the subjects with the latencies of their arms, if they have runs.

    Latency is measured for one image and for a batch of the first arm's validation batch size. Subjects whose
    arms have the same models are measured once. A note explains an arm whose best checkpoint is unreadable.
    """
    known: dict[str, Measured] = {}
    timed = []
    for subject in subjects:
        if not subject.folders:
            timed.append(subject)
            continue
        models = json.dumps({arm: _what_decides(folder) for arm, folder in subject.folders.items()})
        if models not in known:
            known[models] = _measure(subject.folders, accelerator)
            subject = replace(subject, notes=(*subject.notes, *known[models][1]))
        timed.append(replace(subject, latencies=known[models][0]))
    return timed


def _what_decides(folder: Path) -> list[Any]:
    """Return the options that decide the speed of a model. Weights matter too, through their detections."""
    config = RunFolder(folder).read_config()
    data, training = config["data"], config["training"]
    return [
        config["model"],
        *(data[key] for key in ("image_size", "val_batch_size")),
        *(training[key] for key in ("precision", "channels_last")),
    ]


def _measure(folders: Mapping[str, Path], accelerator: str) -> Measured:
    try:
        return _measured(folders, find_accelerator(accelerator))
    except (OSError, RuntimeError, ValueError) as error:  # no memory for a large batch, an unreadable image
        return {}, [f"Latency could not be measured: {error}"]


def _measured(folders: Mapping[str, Path], kind: str) -> Measured:
    checkpoints: dict[str, Checkpoint] = {}
    notes = []
    for arm, folder in folders.items():
        try:
            checkpoints[arm] = load_checkpoint(RunFolder(folder).best)
        except ValueError as error:
            notes.append(f"The latency of {arm} is not known: {error}")
    if not checkpoints:
        return {}, notes
    first = next(iter(checkpoints.values()))
    samples = {arm: _samples_for(checkpoint, like=first) for arm, checkpoint in checkpoints.items()}
    detectors = {arm: Predictor(checkpoint, device=kind) for arm, checkpoint in checkpoints.items()}
    found: dict[str, list[Latency]] = {arm: [] for arm in checkpoints}
    for size in sorted({1, min(map(len, samples.values()))}):
        print(f"Measuring how long {', '.join(checkpoints)} take to detect in batches of {size}", flush=True)
        calls = {
            arm: partial(detector.detect, detector.prepared(collate(samples[arm][:size])))
            for arm, detector in detectors.items()
        }
        for arm, latency in measure_latencies(calls, batch_size=size, device=kind).items():
            found[arm].append(latency)
    return found, notes


def _samples_for(checkpoint: Checkpoint, *, like: Checkpoint) -> list[Sample]:
    """Return the first validation images, resized for this checkpoint, as many as a batch of `like` has."""
    data, count = yaml.safe_dump(checkpoint.config["data"]), like.config["data"]["val_batch_size"]
    return _first_samples(data, checkpoint.class_names, count, like.path)


@cache
def _first_samples(data_config: str, class_names: tuple[str, ...], count: int, source: Path) -> list[Sample]:
    """Read the first validation images. Cached, as arms share their data."""
    config = yaml.safe_load(data_config)
    data = open_validation(config, class_names=class_names, source=source, generate_into=folder_of(config))
    return [data.val_set[0, index] for index in range(min(count, len(data.val_set)))]

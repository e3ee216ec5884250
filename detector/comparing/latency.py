"""Detection latency of trained variants, measured in turns on the same images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
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
from detector.runs.accelerator import find_accelerator
from detector.runs.validation import open_validation

Measured = tuple[dict[str, list[Latency]], list[str]]


def with_latencies(subjects: Sequence[Subject], *, accelerator: str, generate_into: Path) -> list[Subject]:
    """Return the subjects with the latencies of their variants, if they have runs.

    Latency is measured for one image and for a batch of the first variant's validation batch size. Subjects
    whose variants have the same models are measured once. Generated data that is gone is generated anew in
    `generate_into`. A note explains a variant whose best checkpoint is unreadable.
    """
    measured: dict[str, Measured] = {}
    with_latency = []
    for subject in subjects:
        if not subject.folders:
            with_latency.append(subject)
            continue
        models = json.dumps({variant: _speed_options(folder) for variant, folder in subject.folders.items()})
        if models not in measured:
            measured[models] = _measure(subject.folders, accelerator, generate_into)
            subject = replace(subject, notes=(*subject.notes, *measured[models][1]))
        with_latency.append(replace(subject, latencies=measured[models][0]))
    return with_latency


def _speed_options(folder: Path) -> list[Any]:
    """Return the options that decide the speed of a model. Weights matter too, through their detections."""
    config = RunFolder(folder).read_config()
    data, training = config["data"], config["training"]
    return [
        config["model"],
        *(data[key] for key in ("image_size", "val_batch_size")),
        *(training[key] for key in ("precision", "channels_last")),
    ]


def _measure(folders: Mapping[str, Path], accelerator: str, generate_into: Path) -> Measured:
    try:
        return _measure_checkpoints(folders, find_accelerator(accelerator), generate_into)
    except (OSError, RuntimeError, ValueError) as error:  # no memory for a large batch, an unreadable image
        return {}, [f"Latency could not be measured: {error}"]


def _measure_checkpoints(folders: Mapping[str, Path], kind: str, generate_into: Path) -> Measured:
    checkpoints: dict[str, Checkpoint] = {}
    notes = []
    for variant, folder in folders.items():
        try:
            checkpoints[variant] = load_checkpoint(RunFolder(folder).best)
        except ValueError as error:
            notes.append(f"The latency of {variant} is not known: {error}")
    if not checkpoints:
        return {}, notes
    first = next(iter(checkpoints.values()))
    read = _SampleReader(first.config["data"]["val_batch_size"], generate_into)
    samples = {variant: read(checkpoint) for variant, checkpoint in checkpoints.items()}
    detectors = {variant: Predictor(checkpoint, device=kind) for variant, checkpoint in checkpoints.items()}
    latencies: dict[str, list[Latency]] = {variant: [] for variant in checkpoints}
    for size in sorted({1, min(map(len, samples.values()))}):
        print(f"Measuring how long {', '.join(checkpoints)} take to detect in batches of {size}", flush=True)
        calls = {
            variant: partial(detector.detect, detector.prepared(collate(samples[variant][:size])))
            for variant, detector in detectors.items()
        }
        for variant, latency in measure_latencies(calls, batch_size=size, device=kind).items():
            latencies[variant].append(latency)
    return latencies, notes


class _SampleReader:
    """A reader of the first `count` validation images of checkpoints, which mostly share their data."""

    def __init__(self, count: int, generate_into: Path) -> None:
        self._count, self._generate_into = count, generate_into
        self._samples: dict[str, list[Sample]] = {}

    def __call__(self, checkpoint: Checkpoint) -> list[Sample]:
        """Return the images, resized for this checkpoint."""
        config = checkpoint.config["data"]
        key = yaml.safe_dump([config, list(checkpoint.class_names)])
        if key not in self._samples:
            val_set = open_validation(
                config,
                class_names=checkpoint.class_names,
                source=checkpoint.path,
                generate_into=self._generate_into,
            ).val_set
            self._samples[key] = [val_set[0, index] for index in range(min(self._count, len(val_set)))]
        return self._samples[key]

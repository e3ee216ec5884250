"""Runs that are finished, without what it takes to train them."""

from __future__ import annotations

import json
from pathlib import Path

from detector.cli.jobs import context_of
from detector.run_folder import RunFolder
from tests.evaluation.problems import perfect_results
from tests.training.tiny import tiny_config


def write_run(
    folder: Path, dataset: Path, *overrides: str, images: int | None = None, ap: float = 0.1
) -> Path:
    """What a comparison reads of a run of all its epochs, which finds everything in the first `images`."""
    files, config = RunFolder(folder), context_of(tiny_config(dataset, folder, *overrides)).config
    files.write_record(config=config, overrides=overrides, environment={})
    files.write_epochs(
        [
            {"epoch": epoch, "images_seen": 8 * epoch, "seconds": 1.0, "images_per_second": 8.0, "val/AP": ap}
            for epoch in range(1, config["training"]["max_epochs"] + 1)
        ]
    )
    truth = json.loads((dataset / "val.json").read_text())
    ids = {image["id"] for image in truth["images"][:images]}
    results = [result for result in perfect_results(truth) if result["image_id"] in ids]
    files.predictions.write_text(json.dumps(results))
    return folder

"""The size of a configured model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
import yaml

from detector.coco.annotations import Category
from detector.config.build import build
from detector.data.keypoint_schemas import keypoint_schemas
from detector.factory import without_weights
from detector.profiling.activations import activation_bytes
from detector.profiling.flops import count_flops
from detector.reports.study import ModelSize
from detector.runs.parts import build_model


def model_size(config: Mapping[str, Any], categories: Sequence[Category]) -> ModelSize:
    """Measure the model of a training configuration at its image size, for the classes of its data.

    Equal models are built once.
    """
    min_size, max_size = (config["data"]["image_size"][side] for side in ("min_size", "max_size"))
    min_size = min_size if isinstance(min_size, int) else max(min_size)  # training draws one of several
    return _model_size(yaml.safe_dump(config["model"]), tuple(categories), (min_size, max_size))


@cache
def _model_size(
    model_config: str, categories: tuple[Category, ...], image_size: tuple[int, int]
) -> ModelSize:
    """Measure a model. Cached, as runs of a comparison share models and a training step takes seconds."""
    make = build(yaml.safe_load(model_config))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # activations depend on the proposals of the model
        schemas = keypoint_schemas(categories)
        model = build_model(without_weights(make), len(categories), keypoint_schemas=schemas)
    flops = count_flops(model, image_size=image_size)
    return ModelSize(
        parameters=sum(p.numel() for p in model.parameters()),
        matrix_flops=flops.matrix,
        sampling_flops=flops.sampling,
        activation_bytes=activation_bytes(model, image_size=image_size),
    )

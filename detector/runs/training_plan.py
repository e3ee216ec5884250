"""The plan of a training, which it prints before it begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detector.data.datamodule import DetectionDataModule
from detector.data.dataset import CocoDataset
from detector.runs.console import echo
from detector.runs.options import TrainOptions
from detector.runs.parts import weights_note
from detector.training.module import DetectionModule
from detector.training.optimization import scaled_lr
from detector.training.trainer import TrainingOptions


def print_plan(module: DetectionModule, *, options: TrainOptions, model: Mapping[str, Any]) -> None:
    training, data = options.training, options.data
    trainable = sum(p.numel() for p in module.model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in module.model.parameters())
    length, optimization = module.length, module.optimization
    lr = scaled_lr(optimization, global_batch_size=length.images_per_step)
    names = ", ".join(data.class_names[:10]) + (", ..." if data.num_classes > 10 else "")
    echo(f"data: {contents(data.train_set, 'training')}, {contents(data.val_set, 'validation')}")
    echo(f"classes: {data.num_classes} ({names})")
    echo(f"model: {total / 1e6:.1f} M parameters, {trainable / 1e6:.1f} M of them trained")
    if training.resume is None and (note := weights_note([model], data)):
        echo(f"note: {note}")
    echo(f"run: {length.epochs} epochs of {length.steps_per_epoch} steps of {length.images_per_step} images")
    echo(
        f"learning rate: {lr:g} = optimizer.lr {optimization.lr:g} x {length.images_per_step} images a step "
        f"/ optimizer.reference_batch_size {optimization.reference_batch_size}"
    )
    for note in module.lr_scheduler.notes(
        total_steps=length.total_steps, steps_per_epoch=length.steps_per_epoch
    ):
        echo(f"note: {note}")
    if limits := limits_of(training, data):
        echo(f"note: epochs are shortened, for trials: {limits}")
    echo(f"output: {options.output_dir}")


def contents(dataset: CocoDataset, split: str) -> str:
    """Describe a split by its numbers of images, objects and crowds."""
    objects, crowds = dataset.annotations.object_count, dataset.annotations.crowd_count
    counted = [
        f"{count} {noun}{'s' * (count != 1)}" for count, noun in ((objects, "object"), (crowds, "crowd"))
    ]
    return f"{len(dataset)} {split} images with {' and '.join(counted)}"


def limits_of(options: TrainingOptions, data: DetectionDataModule) -> str:
    """Describe the limits that leave out batches; return "" if none does."""
    limits = {
        "limit_train_batches": (options.limit_train_batches, len(data.train_dataloader())),
        "limit_val_batches": (options.limit_val_batches, len(data.val_dataloader())),
    }
    return ", ".join(
        f"training.{name}={limit} of {batches} batches"
        for name, (limit, batches) in limits.items()
        if limit is not None and limit < batches
    )

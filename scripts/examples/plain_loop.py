"""Train a detector in a plain PyTorch loop around `Detector.loss`: python plain_loop.py DATA_FOLDER."""

import sys
from functools import partial

import torch
from torch.utils.data import DataLoader

from detector.backbones import ResNet
from detector.data import CocoDataset, WarpedShapes, read_coco
from detector.data.collate import collate
from detector.evaluation import CocoEvaluator
from detector.evaluation.results import detections_to_results
from detector.heads import FCOSHead
from detector.models import Detector, build_detector
from detector.necks import FPN


def train(model: Detector, dataset: CocoDataset, *, epochs: int, lr: float = 1e-3) -> list[float]:
    """Train with AdamW and return the loss of every step."""
    loader = DataLoader(dataset, batch_size=16, shuffle=True, drop_last=True, collate_fn=collate)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * len(loader))
    history: list[float] = []
    model.train()
    for epoch in range(epochs):
        for batch in loader:
            losses = model.loss(batch)  # by name; the total is their sum
            total = torch.stack([*losses.values()]).sum()
            optimizer.zero_grad()
            total.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            optimizer.step()
            schedule.step()
            history.append(total.item())
        print(f"epoch {epoch + 1}/{epochs}: loss {sum(history[-len(loader) :]) / len(loader):.3f}")
    return history


@torch.inference_mode()
def average_precision(model: Detector, dataset: CocoDataset) -> float:
    """Return COCO's AP, of detections in pixels of the original images."""
    results, ids = [], [category.id for category in dataset.annotations.categories]
    model.eval()
    for batch in DataLoader(dataset, batch_size=32, collate_fn=collate):
        columns = [column.tolist() for column in (batch.indices, batch.image_sizes, batch.original_sizes)]
        for index, size, original, detections in zip(*columns, model.predict(batch), strict=True):
            detections = detections.resized(from_size=tuple(size), to_size=tuple(original))
            results += detections_to_results(detections, image_id=dataset.image_id(index), category_ids=ids)
    return CocoEvaluator(dataset.ground_truth()).evaluate(results).AP


if __name__ == "__main__":
    root = WarpedShapes(num_train=2000, num_val=200).generate(sys.argv[1])
    splits = [read_coco(root / f"{split}.json", root / "images") for split in ("train", "val")]
    train_set, val_set = (CocoDataset(split, image_size=64) for split in splits)
    neck, head = partial(FPN, out_channels=64, extra_levels="none"), partial(FCOSHead, num_convs=2)
    detector = build_detector(backbone=ResNet(18, norm="batch"), neck=neck, head=head, num_classes=8)
    train(detector, train_set, epochs=5)
    print(f"AP {average_precision(detector, val_set):.3f}")

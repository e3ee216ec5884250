"""The examples run: a loop in plain PyTorch, and the notebooks."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch

from detector.backbones.resnet import ResNet
from detector.coco.reader import read_coco
from detector.data.dataset import CocoDataset
from detector.heads.fcos import FCOSHead
from detector.models.detector import build_detector
from detector.necks.fpn import FPN
from tests.training.tiny import SIZE, write_dataset

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))


def test_plain_loop_learns_and_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    from examples import plain_loop

    assert len(Path(plain_loop.__file__).read_text(encoding="utf-8").splitlines()) <= 60
    root = write_dataset(tmp_path / "data", train_images=16)
    train_set, val_set = (
        CocoDataset(read_coco(root / f"{split}.json", root / "images"), image_size=SIZE)
        for split in ("train", "val")
    )
    torch.manual_seed(0)
    neck, head = partial(FPN, out_channels=16, extra_levels="none"), partial(FCOSHead, num_convs=1)
    model = build_detector(
        backbone=ResNet(18, out_stages=(3,), norm="batch"), neck=neck, head=head, num_classes=2
    )
    history = plain_loop.train(model, train_set, epochs=12, lr=5e-3)
    assert len(history) == 12
    assert history[-1] < 0.8 * history[0]
    assert -1 < plain_loop.average_precision(model, val_set) <= 1


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_kept_without_outputs(notebook: Path) -> None:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient", reason="comes with the dev extra")
    nbformat = pytest.importorskip("nbformat", reason="comes with the dev extra")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("MPLBACKEND", raising=False)  # a notebook draws into its cells
    content = nbformat.read(notebook, as_version=4)
    nbclient.NotebookClient(content, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()
    shown = [output for cell in content.cells for output in cell.get("outputs", [])]
    assert any("image/png" in output.get("data", {}) for output in shown)
    assert sum("<table>" in output.get("data", {}).get("text/html", "") for output in shown) >= 1

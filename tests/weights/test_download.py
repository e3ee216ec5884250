"""Weights by name: downloaded once, and whole."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from detector.weights.published import read_weights


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where downloads are kept."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch" / "hub" / "checkpoints"


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Of a server that has one file, named by its hash as torchvision's are."""
    torch.save({"weight": torch.arange(3)}, tmp_path / "x.pth")
    digest = hashlib.sha256((tmp_path / "x.pth").read_bytes()).hexdigest()
    return (tmp_path / "x.pth").rename(tmp_path / f"net-{digest[:8]}.pth").as_uri()


def read(url: str) -> dict[str, torch.Tensor]:
    return read_weights("NET", option="model.weights", published={"NET": url}).state


def test_a_named_file_is_downloaded_once(hub: Path, url: str, tmp_path: Path) -> None:
    assert read(url)["weight"].tolist() == [0, 1, 2]
    next(tmp_path.glob("net-*.pth")).unlink()
    assert read(url)["weight"].tolist() == [0, 1, 2]
    assert [path.name for path in hub.iterdir()] == [Path(url).name]


def test_a_damaged_download_is_an_error_and_not_kept(hub: Path, url: str, tmp_path: Path) -> None:
    next(tmp_path.glob("net-*.pth")).write_bytes(b"half a file")
    with pytest.raises(ValueError, match=r"model\.weights=NET: the download is damaged"):
        read(url)
    assert list(hub.iterdir()) == []


def test_a_kept_file_that_is_damaged_is_an_error(hub: Path, url: str) -> None:
    read(url)
    (hub / Path(url).name).write_bytes(b"other weights")
    with pytest.raises(ValueError, match=r"is damaged: its SHA-256 does not start with .*Delete it"):
        read(url)


def test_without_network_the_error_names_the_file_and_folder(hub: Path, url: str, tmp_path: Path) -> None:
    next(tmp_path.glob("net-*.pth")).unlink()
    with pytest.raises(ValueError, match=r"could not download .*put that file into .*checkpoints"):
        read(url)

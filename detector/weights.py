"""State dicts by a torchvision name or from a local file, with errors that say what to do."""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_FILE_ENDINGS = {".pt", ".pth", ".tar", ".ckpt", ".pkl"}


@dataclass(frozen=True)
class StoredWeights:
    """The tensors of a state dict, and in a checkpoint of ours the configuration of its model."""

    state: dict[str, Tensor]
    config: Mapping[str, Any] = field(default_factory=dict)


def read_weights(weights: str, *, option: str, published: Mapping[str, str]) -> StoredWeights:
    """What a file holds.

    `weights` is the path of a file, or a name in `published`, whose URL is downloaded to torch's hub folder
    and checked by hash, also when it lies there already. `option` is what the user set, for messages. Raises
    ValueError for an unknown name, a failed download, and a file that is missing, cut off, of the old tar
    format or no state dict.
    """
    path = Path(weights).expanduser()
    looks_like_path = path.suffix in _FILE_ENDINGS or "/" in weights
    if looks_like_path or path.is_file():
        return _read_file(path, option)
    if weights not in published:
        raise ValueError(
            f"{option}={weights}: neither a file nor published weights for this model. "
            f"Expected one of {', '.join(published)}, or the path of a .pth file."
        )
    return _read_file(_download(published[weights], f"{option}={weights}", option), option)


def _download(url: str, given: str, option: str) -> Path:
    """The file in torch's hub folder, downloaded if need be. Its name ends with the start of its hash."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    found = re.search(r"-([0-9a-f]{8,})\.", path.name)
    digest = found[1] if found else ""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), hash_prefix=digest or None)
        except OSError as error:
            raise ValueError(
                f"{given}: could not download {url} ({error}). Without a network, put that file into "
                f"{path.parent}, or name a local file: {option}=/path/to/{path.name}"
            ) from error
        except RuntimeError as error:  # torch.hub's "invalid hash value"
            raise ValueError(f"{given}: the download is damaged ({error}). Try again.") from error
    with path.open("rb") as file:
        if not hashlib.file_digest(file, "sha256").hexdigest().startswith(digest):
            raise ValueError(
                f"{given}: {path} is damaged: its SHA-256 does not start with {digest}. Delete it."
            )
    return path


def _read_file(path: Path, option: str) -> StoredWeights:
    if not path.is_file():
        raise ValueError(f"{option}: no such file: {path}. Give a file, or a torchvision weight name.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        raise ValueError(f"{option}: cannot read {path}: {_why_unreadable(path, error)}") from error
    prefix, config = "module.", {}
    if isinstance(content, dict) and isinstance(content.get("detector"), dict):  # a checkpoint of ours
        prefix = content["detector"].get("weights", prefix)  # those that were evaluated
        config = content["detector"].get("config", {}).get("model", {})
    for key in ("state_dict", "model"):  # how ours and others wrap it
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = isinstance(content, dict) and {k: v for k, v in content.items() if isinstance(v, Tensor)}
    if not tensors:
        raise ValueError(
            f"{option}: {path} holds {type(content).__name__}, expected a dict of parameter "
            "names and tensors. Save it with torch.save(model.state_dict(), path)."
        )
    inside = {k: v for k, v in tensors.items() if k.startswith(prefix)} or tensors
    return StoredWeights({k.removeprefix(prefix): v for k, v in inside.items()}, config)


def _why_unreadable(path: Path, error: Exception) -> str:
    if path.stat().st_size == 0:
        return "the file is empty. Copy or download it again."
    with path.open("rb") as file:
        start = file.read(2)
    if start == b"PK":
        return "it is cut off or damaged (a zip archive without its end). Copy or download it again."
    if "tar" in str(error) or start not in (b"\x80\x02", b"\x80\x03", b"\x80\x04"):
        return (
            "it is not a file of torch.save, or of its old tar format, which cannot be loaded safely. Load "
            "it once with the torch that wrote it and save it again: "
            "torch.save(torch.load(path, weights_only=False), new_path)."
        )
    return (
        f"{error}. If it holds more than tensors, save its state dict alone: "
        "torch.save(model.state_dict(), path)."
    )

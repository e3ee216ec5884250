"""Reading of state dicts by torchvision name or from a local file, with errors that say what to do."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import torch

from detector.weights.files import FILE_ENDINGS, StoredWeights, read_file


def read_weights(weights: str, *, option: str, published: Mapping[str, str]) -> StoredWeights:
    """Read weights from a local file or by published name.

    `weights` is the path of a file, or a name in `published`, whose URL is downloaded to torch's hub folder
    unless present, and always checked by hash. `option` is the user's option, for messages.

    Raises:
        ValueError: the name is unknown, the download failed, or the file is missing, truncated, of the old
            tar format or not a state dict.
    """
    path = Path(weights).expanduser()
    looks_like_path = path.suffix in FILE_ENDINGS or "/" in weights
    if looks_like_path or path.is_file():
        return read_file(path, option)
    if weights not in published:
        raise ValueError(
            f"{option}={weights}: neither a file nor published weights for this model. "
            f"Expected one of {', '.join(published)}, or the path of a .pth file."
        )
    return read_file(_download(published[weights], f"{option}={weights}", option), option)


def _download(url: str, source: str, option: str) -> Path:
    """Return the file in torch's hub folder, downloaded if needed; its name ends with its hash's start."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    match = re.search(r"-([0-9a-f]{8,})\.", path.name)
    digest = match[1] if match else ""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), hash_prefix=digest or None)
        except OSError as error:
            raise ValueError(
                f"{source}: could not download {url} ({error}). Without a network, put that file into "
                f"{path.parent}, or name a local file: {option}=/path/to/{path.name}"
            ) from error
        except RuntimeError as error:  # torch.hub's "invalid hash value"
            raise ValueError(f"{source}: the download is damaged ({error}). Try again.") from error
    with path.open("rb") as file:
        if not hashlib.file_digest(file, "sha256").hexdigest().startswith(digest):
            raise ValueError(
                f"{source}: {path} is damaged: its SHA-256 does not start with {digest}. Delete it."
            )
    return path

"""Reading of weight files of any program, without running code in them."""

from __future__ import annotations

import logging
import pickle
import tarfile
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detector.weights.archives import damage_of, is_whole_archive
from detector.weights.restricted import RefusedError, RestrictedPickle
from detector.weights.safetensors import is_safetensors, read_safetensors
from detector.weights.state import find_state

_log = logging.getLogger(__name__)

FILE_ENDINGS = {
    ".bin",
    ".ckpt",
    ".pdparams",
    ".pickle",
    ".pkl",
    ".pt",
    ".pth",
    ".safetensors",
    ".tar",
}
_MAGIC_OF_OLD_TORCH = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_OTHER_FORMATS = (
    (b"\x89HDF", "a file of HDF5 (Keras)"),
    (b"<", "a page of HTML or XML, as a failed download leaves it"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself. Fetch it with git lfs pull"),
    (b"\x1f\x8b", "compressed (gzip). Unpack it first"),
)
_SAVE_ALONE = (
    "Where its model can be built, save its tensors alone: torch.save(model.state_dict(), NEW_FILE)."
)


@dataclass(frozen=True)
class StoredWeights:
    """The tensors of a state dict, with a checkpoint's model configuration and class names.

    The configuration is known for our checkpoints, the names, in the order of their labels, for ours and
    MMDetection's.
    """

    state: dict[str, Tensor]
    config: Mapping[str, Any] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()


def read_file(path: Path, option: str) -> StoredWeights:
    """Read the weights in a file of torch, safetensors, Paddle or Detectron2.

    Raises:
        ValueError: the file is missing, damaged or of another format, has no tensors, or refers to objects
            that cannot be loaded safely. The message begins with `option`.
    """
    if path.is_dir():
        inside = sorted(p.name for p in path.iterdir() if p.suffix in FILE_ENDINGS)[:5]
        hint = f"Give one of its files: {', '.join(inside)}." if inside else "Give a file."
        raise ValueError(f"{option}: {path} is a folder. {hint}")
    if not path.is_file():
        raise ValueError(f"{option}: no such file: {path}. Give a file, or a torchvision weight name.")
    try:
        content = _content(path)
    except ValueError as error:
        raise ValueError(f"{option}: cannot read {path}: {error}") from error
    return _stored(content, path, option)


def _stored(content: object, path: Path, option: str) -> StoredWeights:
    stored = find_state(content)
    if stored is None:
        holds = f"no tensors but {_described(content)}"
        raise ValueError(
            f"{option}: {path} holds {holds}, expected a dict of parameter names and tensors. Save it with "
            "torch.save(model.state_dict(), path)."
        )
    if stored.others:
        _log.warning(
            "%s: %s of %s is taken. It also holds %s.",
            option,
            ".".join(stored.keys),
            path,
            ", ".join(stored.others),
        )
    state = stored.state
    ours = content.get("detector") if isinstance(content, dict) else None
    if not isinstance(ours, dict):
        return StoredWeights(state, class_names=_names(_mmdetection_names(content)))
    prefix = ours.get("weights")  # prefix of the weights that were evaluated
    if isinstance(prefix, str):
        inside = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        state = inside or state
    config = ours.get("config")
    model = config.get("model") if isinstance(config, dict) else None
    return StoredWeights(state, model if isinstance(model, dict) else {}, _names(ours.get("class_names")))


def _mmdetection_names(content: object) -> object:
    """Return the training classes recorded in a checkpoint of MMDetection 2 or 3."""
    meta = content.get("meta") if isinstance(content, dict) else None
    data = meta.get("dataset_meta", meta) if isinstance(meta, dict) else None
    return data.get("classes", data.get("CLASSES")) if isinstance(data, dict) else None


def _names(value: object) -> tuple[str, ...]:
    is_list = isinstance(value, list | tuple) and all(isinstance(name, str) for name in value)
    return tuple(value) if is_list else ()  # type: ignore[arg-type]


def _described(content: object) -> str:
    if isinstance(content, dict):
        return f"{type(content).__name__} of {', '.join(map(repr, list(content)[:5])) or 'nothing'}"
    return type(content).__name__


def _content(path: Path) -> object:
    """Return the content of the file; raise ValueError with the reason if it cannot be read."""
    size = path.stat().st_size
    if size == 0:
        raise ValueError("the file is empty. Copy or download it again.")
    with path.open("rb") as file:
        start = file.read(64)
    if start.startswith(b"PK"):
        _require_whole_archive(path)
        return _of_torch(path)
    if is_safetensors(path):
        return read_safetensors(path)
    if _MAGIC_OF_OLD_TORCH in start:
        return _of_torch(path)
    if start[:1] == b"\x80":
        return _of_pickle(path)
    for beginning, description in _OTHER_FORMATS:
        if start.startswith(beginning):
            raise ValueError(f"it is {description}.")
    if tarfile.is_tarfile(path):
        raise ValueError(
            "it is of torch's old tar format, which cannot be loaded safely. Load it once with the torch "
            "that wrote it, and save its tensors anew: torch.save(model.state_dict(), NEW_FILE)."
        )
    raise ValueError(
        "it is not a file of torch.save, safetensors or Paddle. Give one, or a torchvision weight name."
    )


def _require_whole_archive(path: Path) -> None:
    if not zipfile.is_zipfile(path):
        raise ValueError(f"it is cut off or damaged (a zip archive without its end). {_way_on(path)}")
    if damage := damage_of(path):
        raise ValueError(f"it is damaged: {damage}. {_way_on(path)}")
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    inside = {name.partition("/")[2] or name for name in names}
    if "constants.pkl" in inside:
        raise ValueError(
            "it is a TorchScript archive, which holds code. Save its tensors alone: "
            "torch.save(torch.jit.load(PATH).state_dict(), NEW_FILE)."
        )
    if "data.pkl" not in inside:
        raise ValueError(f"it is a zip archive of {', '.join(names[:3])}, not one of torch.save.")


def _way_on(path: Path) -> str:
    """Name the other checkpoint of a run where that is whole."""
    others = [path.with_name(name) for name in ("best.ckpt", "last.ckpt") if path.name != name]
    intact = [other for other in others if path.suffix == ".ckpt" and is_whole_archive(other)]
    return f"Use {intact[0]}, which is whole." if intact else "Copy or download it again."


def _of_torch(path: Path) -> object:
    """Load a file by torch's safe loader, or, if it has other objects, by ours, which skips them."""
    try:
        return _silently(torch.load, path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        pass  # it holds more than tensors, or is damaged: the next attempt decides
    except Exception as error:  # a damaged file raises anything
        raise ValueError(_unreadable("it is damaged", error)) from error
    restricted = RestrictedPickle()
    try:
        content = _silently(torch.load, path, map_location="cpu", pickle_module=restricted)
    except RefusedError as error:
        raise ValueError(_refused(error)) from error
    except Exception as error:  # RuntimeError from torch if only tensors are allowed, anything from pickles
        raise ValueError(_unreadable("its pickle cannot be read", error, restricted)) from error
    _warn_of_placeholders(path, restricted)
    return content


def _of_pickle(path: Path) -> object:
    """Load a pickle of arrays, as Paddle and Detectron2 write them."""
    restricted = RestrictedPickle()
    try:
        with path.open("rb") as file:
            content = _silently(restricted.load, file)
    except RefusedError as error:
        raise ValueError(_refused(error)) from error
    except Exception as error:  # a damaged pickle raises anything
        raise ValueError(_unreadable("its pickle cannot be read", error, restricted)) from error
    _warn_of_placeholders(path, restricted)
    return content


def _silently(load: Any, *args: Any, **options: Any) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the pickle's protocol, and types that torch deprecates
        return load(*args, **options)


def _warn_of_placeholders(path: Path, restricted: RestrictedPickle) -> None:
    if restricted.placeholders:
        _log.warning(
            "%s holds more than tensors, of which nothing is used: %s", path, _listed(restricted.placeholders)
        )


def _listed(names: Mapping[str, None]) -> str:
    ordered = sorted(names, key=lambda name: (name.startswith(("builtins.", "copyreg.", "numpy.")), name))
    return ", ".join(ordered[:5]) + (f" and {len(ordered) - 5} more" if len(ordered) > 5 else "")


def _refused(error: RefusedError) -> str:
    return (
        f"it names {error}, which no weights need and which could run code: it is not loaded. {_SAVE_ALONE}"
    )


def _unreadable(problem: str, error: Exception, restricted: RestrictedPickle | None = None) -> str:
    inside = (
        f" It holds {_listed(restricted.placeholders)}." if restricted and restricted.placeholders else ""
    )
    reason = _first_line(error)
    again = _SAVE_ALONE if inside else "Copy or download it again."
    return f"{problem}{f' ({reason})' if reason else ''}.{inside} {again}"


def _first_line(error: Exception) -> str:
    """Return the first line of an error, or its type if that has torch's advice to load unsafely."""
    first = (str(error).strip().splitlines() or [""])[0].rstrip(". ")
    return type(error).__name__ if "weights_only" in first or not first else first[:200]

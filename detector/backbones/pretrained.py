"""ImageNet weights for backbones: a torchvision weight name, or a local file."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path

import torch
import torchvision
from torch import Tensor, nn

log = logging.getLogger(__name__)


def load_backbone_weights(backbone: nn.Module, weights: str, *, architecture: str) -> None:
    """Loads ImageNet weights into a backbone with torchvision's parameter names, and logs what did not take
    part.

    `weights` is a torchvision name such as "IMAGENET1K_V1" (downloaded to torch's hub folder and checked by
    hash) or the path of a file holding a state dict. Offset branches keep their initialisation. Raises
    ValueError for a file that is missing, cut off, of the old tar format, or of another architecture.
    """
    path = Path(weights).expanduser()
    looks_like_path = path.suffix in {".pt", ".pth", ".tar", ".ckpt"} or "/" in weights
    state = _read_file(path) if looks_like_path or path.is_file() else _download(weights, architecture)
    _load(backbone, state, source=weights, architecture=architecture)


def _download(name: str, architecture: str) -> dict[str, Tensor]:
    known = torchvision.models.get_model_weights(architecture)
    member = name.rsplit(".", 1)[-1]  # both IMAGENET1K_V1 and ResNet18_Weights.IMAGENET1K_V1
    if name not in known.__members__ and name not in {str(w) for w in known}:
        raise ValueError(
            f"model.backbone.weights={name}: neither a file nor torchvision weights of {architecture}. "
            f"Expected one of {', '.join(known.__members__)}, or the path of a .pth file."
        )
    entry = known[member]
    try:
        return dict(entry.get_state_dict(progress=True, check_hash=True))
    except OSError as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise ValueError(
            f"model.backbone.weights={name}: could not download {entry.url} ({error}). Without a "
            f"network, put that file into {folder}, or name a local file: "
            f"model.backbone.weights=/path/to/{Path(entry.url).name}"
        ) from error
    except RuntimeError as error:  # torch.hub's "invalid hash value"
        raise ValueError(
            f"model.backbone.weights={name}: the download is damaged ({error}). Try again."
        ) from error


def _read_file(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ValueError(
            f"model.backbone.weights: no such file: {path}. Give a file, or a torchvision weight name."
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        raise ValueError(
            f"model.backbone.weights: cannot read {path}: {_why_unreadable(path, error)}"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    tensors = isinstance(content, dict) and {k: v for k, v in content.items() if isinstance(v, Tensor)}
    if not tensors:
        raise ValueError(
            f"model.backbone.weights: {path} holds {type(content).__name__}, expected a dict of parameter "
            "names and tensors. Save it with torch.save(model.state_dict(), path)."
        )
    return {k.removeprefix("module."): v for k, v in tensors.items()}


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


def _load(backbone: nn.Module, state: dict[str, Tensor], *, source: str, architecture: str) -> None:
    own = backbone.state_dict()
    wrong_shape = [k for k, v in state.items() if k in own and own[k].shape != v.shape]
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    lacking = [k for k in missing if ".offset." not in k]
    if wrong_shape or any(k.endswith("conv1.weight") or k.endswith("conv2.weight") for k in lacking):
        first = wrong_shape[0] if wrong_shape else lacking[0]
        came = tuple(state[first].shape) if first in state else "nothing"
        raise ValueError(
            f"model.backbone.weights={source}: not the weights of a {architecture}: {len(lacking)} of "
            f"{len(own)} entries are missing and {len(wrong_shape)} have another shape; {first}: expected "
            f"{tuple(own[first].shape)}, got {came}. Choose the model/backbone that the file was made for."
        )
    not_ours = ("fc.weight", "fc.bias")  # the ImageNet classifier
    unused = [
        k for k in state if k not in own and k not in not_ours and not k.endswith("num_batches_tracked")
    ]
    backbone.load_state_dict({k: v for k, v in state.items() if k in own}, strict=False)
    offsets = len(missing) - len(lacking)
    log.info("loaded %s into %s: %d of %d entries", source, architecture, len(own) - len(missing), len(own))
    if offsets:
        log.info("%d offset-branch entries are new and keep their initialisation", offsets)
    if lacking:
        log.warning(
            "%d entries are not in %s and keep their initialisation: %s", len(lacking), source, _some(lacking)
        )
    if unused:
        log.warning("%d entries of %s are not used: %s", len(unused), source, _some(unused))


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")

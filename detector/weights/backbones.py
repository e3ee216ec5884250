"""Loading of ImageNet weights into backbones, by torchvision weight name or from a local file."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torchvision
from torch import Tensor, nn

from detector.layers.deformable import Deformable, replaced_convolutions
from detector.weights.backbone_names import has_offsets_of_others, to_torchvision
from detector.weights.files import StoredWeights
from detector.weights.fit import first_names, require_usable
from detector.weights.published import read_weights
from detector.weights.state import without_prefix

log = logging.getLogger(__name__)


def load_backbone_weights(backbone: nn.Module, weights: str, *, architecture: str) -> None:
    """Load ImageNet weights into a backbone with torchvision's parameter names, and log what is not loaded.

    `weights` is a torchvision name such as "IMAGENET1K_V1" (downloaded to torch's hub folder and checked by
    hash) or the path of a file: a state dict of a ResNet of torchvision, timm, Hugging Face, Paddle,
    PaddleDetection or MMDetection, or a detector around one. Offset branches missing from it keep
    their initialization.

    Raises:
        ValueError: the file cannot be read, is of another architecture, or has masks of another function.
    """
    is_listed = architecture in torchvision.models.list_models()  # not every ResNeXt is
    known = torchvision.models.get_model_weights(architecture) if is_listed else ()
    published = {name: entry.url for entry in known for name in (entry.name, str(entry))}
    stored = read_weights(weights, option="model.backbone.weights", published=published)
    own = backbone.state_dict()
    state, prefix = without_prefix(to_torchvision(stored.state), own.__contains__)
    if prefix:
        log.info("%s: the %d entries that begin with %s are taken", weights, len(state), prefix)
    _require_same_modulation(backbone, stored, state, source=weights)
    _load(backbone, state, source=weights, architecture=architecture)


def _require_same_modulation(
    backbone: nn.Module, stored: StoredWeights, state: dict[str, Tensor], *, source: str
) -> None:
    """Raise ValueError if masks were trained with another function, which would otherwise go unnoticed."""
    trained = "sigmoid" if has_offsets_of_others(stored.state) else _modulation(stored.config)
    for name, layer in backbone.named_modules():
        has_mask = isinstance(layer, Deformable) and layer.modulation in ("sigmoid", "doubled_sigmoid")
        if trained and has_mask and f"{name}.offset.weight" in state and layer.modulation != trained:
            raise ValueError(
                f"model.backbone.weights={source}: {name} was trained with a mask of {trained}, here it has "
                f"{layer.modulation}. Set model.backbone.deform.modulation={trained}"
            )


def _modulation(config: Mapping[str, Any]) -> str | None:
    """Return the modulation of the backbone in a checkpoint of ours; None for other files."""
    backbone = config.get("backbone")
    deform = backbone.get("deform") if isinstance(backbone, Mapping) else None
    if not isinstance(deform, Mapping):
        return None
    return str(deform.get("modulation") or "doubled_sigmoid")


def _load(backbone: nn.Module, state: dict[str, Tensor], *, source: str, architecture: str) -> None:
    own = backbone.state_dict()
    wrong_shape = [k for k, v in state.items() if k in own and own[k].shape != v.shape]
    replaced = replaced_convolutions(backbone, state)
    new_prefixes = tuple(f"{name}." for name in replaced)
    missing = [k for k in own if k not in state and not k.endswith("num_batches_tracked")]
    lacking = [k for k in missing if ".offset." not in k and not k.startswith(new_prefixes)]
    if wrong_shape or any(k.endswith("conv1.weight") or k.endswith("conv2.weight") for k in lacking):
        first = wrong_shape[0] if wrong_shape else lacking[0]
        actual = tuple(state[first].shape) if first in state else "nothing"
        raise ValueError(
            f"model.backbone.weights={source}: not the weights of a {architecture}: {len(lacking)} of "
            f"{len(own)} entries are missing and {len(wrong_shape)} have another shape; {first}: expected "
            f"{tuple(own[first].shape)}, got {actual}. Choose the model/backbone that the file was made for."
        )
    require_usable(state, own, source=f"model.backbone.weights={source}")
    classifier = ("fc.weight", "fc.bias")  # the ImageNet classifier
    unused = [
        k
        for k in state
        if k not in own
        and not k.startswith((*classifier, *new_prefixes))
        and not k.endswith("num_batches_tracked")
    ]
    backbone.load_state_dict({k: v for k, v in state.items() if k in own}, strict=False)
    offsets = sum(not k.startswith(new_prefixes) for k in missing) - len(lacking)
    log.info("loaded %s into %s: %d of %d entries", source, architecture, len(own) - len(missing), len(own))
    if offsets:
        log.info("%d offset-branch entries are new and keep their initialization", offsets)
    if replaced:
        log.warning(
            "%d convolutions of %s are deformable and depth-wise here, which cannot take their weights, and "
            "start anew: %s",
            len(replaced),
            source,
            first_names(replaced),
        )
    if lacking:
        log.warning(
            "%d entries are not in %s and keep their initialization: %s",
            len(lacking),
            source,
            first_names(lacking),
        )
    if unused:
        log.warning("%d entries of %s are not used: %s", len(unused), source, first_names(unused))

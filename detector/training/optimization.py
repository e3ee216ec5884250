"""Optimizers, their parameter groups, and the learning rate scaled to the batch size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from detector.layers.deformable import offset_parameters
from detector.option_types import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt


@dataclass(frozen=True, kw_only=True)
class SGD:
    """Stochastic gradient descent with momentum.

    `lr` is for `reference_batch_size` images per step and is scaled linearly to the actual batch size (Goyal
    et al. 2017). `weight_decay` applies to weights only; `decay_norm_and_bias` extends it to all parameters.
    `bias_lr_multiplier` is for biases of convolutions and linear layers, `offset_lr_multiplier` for the
    branches that predict the offsets of deformable layers.
    """

    lr: PositiveFloat
    reference_batch_size: PositiveInt = 16
    momentum: Fraction = 0.9
    nesterov: bool = False
    weight_decay: NonNegativeFloat = 1e-4
    decay_norm_and_bias: bool = False
    bias_lr_multiplier: PositiveFloat = 1.0
    offset_lr_multiplier: NonNegativeFloat = 1.0

    def __post_init__(self) -> None:
        if self.nesterov and self.momentum == 0:
            raise ValueError(
                "nesterov=true needs a momentum above 0, got momentum=0. Set optimizer.momentum=0.9."
            )

    def build(self, model: nn.Module, *, global_batch_size: PositiveInt) -> torch.optim.SGD:
        """Build the optimizer of all trainable parameters; `global_batch_size` is in images per step."""
        groups = _groups(self, model, global_batch_size)
        return torch.optim.SGD(groups, momentum=self.momentum, nesterov=self.nesterov)


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """Adam with decoupled weight decay. Options shared with `SGD` mean the same, linear scaling included."""

    lr: PositiveFloat
    reference_batch_size: PositiveInt = 16
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    weight_decay: NonNegativeFloat = 0.05
    decay_norm_and_bias: bool = False
    bias_lr_multiplier: PositiveFloat = 1.0
    offset_lr_multiplier: NonNegativeFloat = 1.0

    def __post_init__(self) -> None:
        if max(self.betas) >= 1:
            raise ValueError(f"optimizer.betas: expected numbers from 0 to below 1, got {list(self.betas)}.")

    def build(self, model: nn.Module, *, global_batch_size: PositiveInt) -> torch.optim.AdamW:
        """Build the optimizer of all trainable parameters; `global_batch_size` is in images per step."""
        groups = _groups(self, model, global_batch_size)
        return torch.optim.AdamW(groups, betas=(self.betas[0], self.betas[1]))


Optimization = SGD | AdamW


def scaled_lr(optimization: Optimization, *, global_batch_size: int) -> float:
    """Return the learning rate for the actual batch size."""
    return optimization.lr * global_batch_size / optimization.reference_batch_size


def _groups(optimization: Optimization, model: nn.Module, global_batch_size: int) -> list[dict[str, Any]]:
    return parameter_groups(
        model,
        lr=scaled_lr(optimization, global_batch_size=global_batch_size),
        weight_decay=optimization.weight_decay,
        decay_norm_and_bias=optimization.decay_norm_and_bias,
        bias_lr_multiplier=optimization.bias_lr_multiplier,
        offset_lr_multiplier=optimization.offset_lr_multiplier,
    )


def parameter_groups(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    decay_norm_and_bias: bool = False,
    bias_lr_multiplier: float = 1.0,
    offset_lr_multiplier: float = 1.0,
) -> list[dict[str, Any]]:
    """Return parameter groups with their own `lr` and `weight_decay`.

    Each trainable parameter of the model is in exactly one group. Scalars and vectors (norms, biases, learned
    scales) are not decayed, unless `decay_norm_and_bias` is set. Groups are named, e.g. "offset.weight", and
    keep the order of the model's parameters, so that an optimizer state fits a rebuilt model.
    """
    offsets = {*map(id, offset_parameters(model))}
    norms = _norm_parameters(model)
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_offset, is_weight = id(parameter) in offsets, parameter.ndim > 1
        is_bias = name.endswith("bias") and id(parameter) not in norms
        kind = "weight" if is_weight else "bias" if is_bias else "norm"
        multiplier = offset_lr_multiplier if is_offset else bias_lr_multiplier if is_bias else 1.0
        group = groups.setdefault(
            f"offset.{kind}" if is_offset else kind,
            {
                "lr": lr * multiplier,
                "weight_decay": weight_decay if is_weight or decay_norm_and_bias else 0.0,
                "params": [],
            },
        )
        group["params"].append(parameter)
    if not groups:
        raise ValueError("The model has no trainable parameter. Lower model.backbone.frozen_stages.")
    return [{"name": name, **group} for name, group in groups.items()]


def _norm_parameters(model: nn.Module) -> set[int]:
    kinds = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
    layers = (module for module in model.modules() if isinstance(module, kinds))
    return {id(parameter) for layer in layers for parameter in layer.parameters()}

"""Optimisers and their parameter groups."""

from __future__ import annotations

from typing import Any, Literal

from torch import nn, optim

_NEVER_DECAYED = ("relative_position_bias_table", "absolute_pos_embed", "pos_embed")
"""Position embeddings have two or more axes, but weight decay is not meant for them (Swin paper, section A2)."""

_FUSED = ("cpu", "cuda")
"""Devices that PyTorch has fused optimisers for, of those that aegl trains on."""


def parameter_groups(model: nn.Module, *, weight_decay: float, norm_decay: bool) -> list[dict[str, Any]]:
    """Trainable parameters, those with and those without weight decay; frozen parameters are left out.

    Args:
        model: the model.
        weight_decay: weight decay of the first group.
        norm_decay: whether norm layers, biases and position embeddings are decayed as well.
    """
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_plain = parameter.ndim <= 1 or name.endswith(_NEVER_DECAYED)
            (plain if is_plain and not norm_decay else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def build_optimizer(
    model: nn.Module,
    *,
    name: Literal["sgd", "adamw"],
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    norm_decay: bool,
) -> optim.Optimizer:
    """SGD or AdamW over the model's trainable parameters.

    Args:
        model: the model, on its final device.
        name: ``sgd`` or ``adamw``.
        lr: peak learning rate; the schedule multiplies it.
        momentum: momentum of SGD, first beta of AdamW.
        nesterov: Nesterov momentum (SGD only).
        weight_decay: weight decay (decoupled for AdamW).
        norm_decay: see :func:`parameter_groups`.
    """
    groups = parameter_groups(model, weight_decay=weight_decay, norm_decay=norm_decay)
    # One pass over each weight, a third of the time on a CPU; a GPU can also be told by it to leave a step out.
    fused = all(parameter.device.type in _FUSED for group in groups for parameter in group["params"]) or None
    if name == "sgd":
        return optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov and momentum > 0, fused=fused)
    return optim.AdamW(groups, lr=lr, betas=(momentum, 0.999), fused=fused)


def set_lr(optimizer: optim.Optimizer, lr: float) -> None:
    """Give every parameter group the learning rate ``lr``."""
    for group in optimizer.param_groups:
        group["lr"] = lr

"""The optimiser and its schedule: timm's optimisers over groups with their own weight decay and learning rate."""

from __future__ import annotations

import math
from typing import Any

import torch
from timm.optim import create_optimizer_v2
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from gcnet.rewrites import inserted
from gcnet.tasks.parts import Optimisation


def parameter_groups(model: nn.Module, optimisation: Optimisation) -> list[dict[str, Any]]:
    """Up to four groups: the model's and the inserted blocks' weights, each with and without weight decay.

    Vectors and scalars (biases, the scales of norms) and what the model names in `no_weight_decay()` do not decay.
    """
    blocks = tuple(f"{name}." for name in inserted(model))
    exempt = set(getattr(model, "no_weight_decay", set)())
    found: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and not name.endswith(".bias") and name not in exempt
            in_block = bool(blocks) and name.startswith(blocks)
            found.setdefault((in_block, decays), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": optimisation.lr * (optimisation.block_lr if in_block else 1.0),
            "weight_decay": optimisation.weight_decay if decays else 0.0,
            "name": ("blocks" if in_block else "model") + ("" if decays else ", no decay"),
        }
        for (in_block, decays), parameters in sorted(found.items(), key=lambda item: item[0])
    ]


def build_optimiser(
    model: nn.Module, optimisation: Optimisation, *, steps: int, epochs: int
) -> tuple[torch.optim.Optimizer, LRScheduler]:
    """The optimiser and the schedule for `steps` steps in all, which is advanced once per step."""
    groups = parameter_groups(model, optimisation)
    optimizer = create_optimizer_v2(
        groups, opt=optimisation.optimizer, lr=optimisation.lr, weight_decay=0.0, momentum=0.9, filter_bias_and_bn=False
    )
    if optimisation.schedule == "one_cycle":
        return optimizer, OneCycleLR(optimizer, [group["lr"] for group in groups], total_steps=max(steps, 1))
    warmup = min(optimisation.warmup_steps or round(optimisation.warmup_epochs * steps / epochs), steps // 2)
    return optimizer, LambdaLR(optimizer, lambda step: factor(step, optimisation.schedule, warmup, steps))


def factor(step: int, schedule: str, warmup: int, steps: int) -> float:
    """The learning rate of a step (from 0) as a share of the highest one.

    Example:
        >>> [round(factor(step, "cosine", 2, 6), 3) for step in range(6)]
        [0.333, 0.667, 1.0, 0.854, 0.5, 0.146]
        >>> [round(factor(step, "steps", 0, 12), 3) for step in (7, 8, 10, 11)]
        [1.0, 0.1, 0.1, 0.01]
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule == "constant":
        return 1.0
    if schedule == "steps":
        return 0.1 ** ((12 * step >= 8 * steps) + (12 * step >= 11 * steps))
    return (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup)))) / 2

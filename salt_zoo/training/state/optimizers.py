"""Optimizers and the learning-rate schedule of one role."""

from __future__ import annotations

import math

import torch
from torch import nn

from salt_zoo.config.training import OptimizerConfig, ScheduleConfig
from salt_zoo.core.networks.lora import trainable
from salt_zoo.training.state.eight_bit import make_adamw8bit
from salt_zoo.training.state.memoryless_adamw import MemorylessAdamW


def make_optimizers(
    network: nn.Module, config: OptimizerConfig, learning_rate: float
) -> list[torch.optim.Optimizer]:
    """AdamW for all that is trained, with moments of 32 or 8 bits, or Muon for the matrices of the
    blocks and AdamW for the rest.

    Of a LoRA the adapters are trained.
    """
    rate = config.learning_rate or learning_rate
    matrices: list[nn.Parameter] = []
    if config.name == "muon":
        matrices = [p for name, p in trainable(network) if "blocks." in name and p.ndim == 2]
    taken = {id(p) for p in matrices}
    rest = [p for _, p in trainable(network) if id(p) not in taken]
    optimizers: list[torch.optim.Optimizer] = []
    if rest:
        make = make_adamw8bit if config.name == "adamw8bit" else _adamw
        optimizers.append(make(rest, rate, config))
    if matrices:
        optimizers.append(
            torch.optim.Muon(
                matrices, lr=config.matrix_learning_rate, weight_decay=config.weight_decay
            )
        )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["base_lr"] = float(group["lr"])
    return optimizers


def _adamw(
    parameters: list[nn.Parameter], rate: float, config: OptimizerConfig
) -> torch.optim.Optimizer:
    """AdamW, without a first moment where it would be the gradient, and fused on CUDA."""
    beta1, beta2 = config.betas
    if beta1 == 0:
        return MemorylessAdamW(parameters, rate, beta2, config.weight_decay)
    return torch.optim.AdamW(
        parameters,
        lr=rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=True if parameters[0].is_cuda else None,
    )


def set_rates(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """Every group's learning rate is its base rate times `factor`."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            rate = group["base_lr"] * factor
            if isinstance(group["lr"], torch.Tensor):  # torchao's, which compiled code reads
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate


def schedule_factor(step: int, updates: int, config: ScheduleConfig) -> float:
    """The factor on the learning rates in update `step` of `updates`; a pure function, so that a
    resumed run needs no scheduler state."""
    warm = min(1.0, (step + 1) / (config.warmup + 1))
    begin = config.decay_from * updates
    if step < begin or begin >= updates:
        return warm
    progress = (step - begin) / (updates - begin)
    return warm * (config.final + (1 - config.final) * 0.5 * (1 + math.cos(math.pi * progress)))

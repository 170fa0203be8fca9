"""What turns gradients into a good network: learning-rate schedule, weight average, and the two optimisers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn


def learning_rate_factor(images: int, total: int, warmup: int, decay: float) -> float:
    """Fraction of the peak rate: linear warm-up, constant, then a half cosine to zero over the last part.

    Args:
        images: seen so far.
        total: planned.
        warmup: images of warm-up.
        decay: fraction of ``total`` that the decay takes: 1 is a plain cosine, 0 a constant rate.
    """
    rise = min(1.0, (images + 1) / warmup) if warmup else 1.0
    begin = total * (1 - decay)
    if images <= begin:
        return rise
    return rise * 0.5 * (1 + math.cos(math.pi * min(1.0, (images - begin) / (total - begin))))


def power_exponent(relative_width: float) -> float:
    """Exponent gamma of the power-function average whose standard deviation is this fraction of the run.

    sigma_rel = (gamma + 1)^½ (gamma + 2)^-1 (gamma + 3)^-½; Karras et al. 2024, arXiv 2312.02696, Eq. 123.

    Raises:
        ValueError: outside (0, 0.28), where no positive exponent exists.
    """
    if not 0 < relative_width < 0.28:
        raise ValueError(f"ema: found relative width {relative_width:g}, expected a number between 0 and 0.28")
    low, high = 0.0, 1e6
    for _ in range(100):
        gamma = 0.5 * (low + high)
        if math.sqrt(gamma + 1) / (gamma + 2) / math.sqrt(gamma + 3) > relative_width:
            low = gamma
        else:
            high = gamma
    return 0.5 * (low + high)


class WeightAverage:
    r"""Power-function average of parameters over the run.

    After step t the average is sum_i w_i theta_i with w_i ~ i^gamma (to first order), by the recursion
    average += (1 - beta_t)(theta - average), beta_t = (1 - 1/t)^(gamma + 1): beta_1 = 0, so no initial weights linger.
    (Karras et al. 2024, arXiv 2312.02696, §3.1.)

    Args:
        parameters: averaged, in this order.
        relative_width: standard deviation of the average's window in units of the run's length.
    """

    def __init__(self, parameters: Iterable[Tensor], relative_width: float = 0.05) -> None:
        self.exponent = power_exponent(relative_width)
        self.average = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def update(self, parameters: Iterable[Tensor], step: int) -> None:
        """Take in the parameters after step ``step`` = 1, 2, …"""
        weight = 1 - (1 - 1 / step) ** (self.exponent + 1)
        torch._foreach_lerp_(self.average, [parameter.detach() for parameter in parameters], weight)

    @torch.no_grad()
    def swap(self, parameters: Iterable[Tensor]) -> None:
        """Exchange averages and parameters; calling it twice changes nothing."""
        for average, parameter in zip(self.average, parameters, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(average)
            average.copy_(kept)


class Muon(torch.optim.Optimizer):
    r"""Momentum orthogonalised by Newton-Schulz for weight matrices and kernels, AdamW for everything else.

    For a weight W (out, in * kernel) with Nesterov momentum M: W -= lr (0.2 sqrt(max(out, in)) O(M) + weight_decay W),
    where O replaces the singular values of M by about 1. The scale makes the update's rms that of AdamW, so that one
    learning rate serves both (Jordan et al. 2024, "Muon"; Liu et al. 2025, arXiv 2502.16982).

    Args:
        matrices: parameters of at least two dimensions.
        others: biases, norms, first and last layers.
        lr: learning rate.
        momentum: of the matrices.
        betas: of AdamW.
        weight_decay: decoupled, of the matrices.
    """

    def __init__(
        self,
        matrices: Sequence[nn.Parameter],
        others: Sequence[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        groups = [
            {"params": list(matrices), "orthogonal": True, "weight_decay": weight_decay},
            {"params": list(others), "orthogonal": False, "weight_decay": 0.0},
        ]
        super().__init__([g for g in groups if g["params"]], {"lr": lr, "momentum": momentum, "betas": betas})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state: dict[str, Tensor] = self.state[parameter]
                if group["orthogonal"]:
                    update = _orthogonal_update(parameter.grad, state, group["momentum"])
                else:
                    update = _adam_update(parameter.grad, state, *group["betas"])
                parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=group["lr"])


def _orthogonal_update(gradient: Tensor, state: dict[str, Tensor], momentum: float) -> Tensor:
    average = state.setdefault("momentum", torch.zeros_like(gradient))
    average.lerp_(gradient, 1 - momentum)
    matrix = gradient.lerp(average, momentum).flatten(1)
    return (orthogonalised(matrix) * (0.2 * math.sqrt(max(matrix.shape)))).view_as(gradient)


def _adam_update(gradient: Tensor, state: dict[str, Tensor], first: float, second: float) -> Tensor:
    if not state:
        state["step"] = torch.zeros(())
        state["mean"], state["square"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
    state["step"] += 1
    step = float(state["step"])
    mean = state["mean"].lerp_(gradient, 1 - first) / (1 - first**step)
    square = state["square"].lerp_(gradient.square(), 1 - second) / (1 - second**step)
    update: Tensor = mean / (square.sqrt() + 1e-8)
    return update


def orthogonalised(matrix: Tensor, iterations: int = 5) -> Tensor:
    """A matrix with the same singular vectors and singular values near 1 (0.7 to 1.2), by a quintic iteration.

    Args:
        matrix: shape (rows, columns).
        iterations: of x -> a x + b x³ + c x⁵ on the singular values.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = x.T if matrix.shape[0] > matrix.shape[1] else x
    return result

"""Explicit time stepping for models that are a tendency."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

Tendency = Callable[[Tensor], Tensor]


def runge_kutta_4(tendency: Tendency, x: Tensor, dt: float) -> Tensor:
    """One classical fourth-order Runge–Kutta step."""
    k1 = tendency(x)
    k2 = tendency(x + 0.5 * dt * k1)
    k3 = tendency(x + 0.5 * dt * k2)
    k4 = tendency(x + dt * k3)
    return x + (dt / 6) * (k1 + 2 * k2 + 2 * k3 + k4)


def advance(tendency: Tendency, x: Tensor, time: float, longest: float) -> Tensor:
    """Equal Runge–Kutta steps of at most ``longest`` that add up to ``time``.

    Raises:
        ValueError: for a time that is not positive.
    """
    if not time > 0:
        raise ValueError(f"forecast time: found {time:g}, expected a positive one")
    steps = math.ceil(time / longest * (1 - 1e-9))
    for _ in range(steps):
        x = runge_kutta_4(tendency, x, time / steps)
    return x

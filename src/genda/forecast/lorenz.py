"""The models of Lorenz (1963) and Lorenz (1996), in torch: differentiable, any number of members at once.

References:
    Lorenz 1963, J. Atmos. Sci. 20, 130; Lorenz 1996, Predictability: a problem partly solved, ECMWF seminar.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genda.forecast.integrate import advance


@dataclass(frozen=True)
class Lorenz63:
    """Three variables, kept as three channels: states (..., 3, 1, 1).

    Attributes:
        sigma, rho, beta: Prandtl number, relative Rayleigh number, geometry.
        longest: largest Runge–Kutta step.
    """

    sigma: float = 10.0
    rho: float = 28.0
    beta: float = 8.0 / 3.0
    longest: float = 0.01

    @property
    def shape(self) -> tuple[int, int, int]:
        return (3, 1, 1)

    def tendency(self, state: Tensor) -> Tensor:
        x, y, z = state.unbind(dim=-3)
        return torch.stack([self.sigma * (y - x), x * (self.rho - z) - y, x * y - self.beta * z], dim=-3)

    def step(self, state: Tensor, dt: float) -> Tensor:
        return advance(self.tendency, state, dt, self.longest)


@dataclass(frozen=True)
class Lorenz96:
    """A ring of ``size`` variables along one latitude: states (..., 1, 1, size).

    dx_i/dt = (x_{i+1} - x_{i-2}) x_{i-1} - x_i + F; the advection conserves Σ x².

    Attributes:
        size: number of variables, at least 4.
        forcing: F.
        longest: largest Runge–Kutta step.
    """

    size: int = 40
    forcing: float = 8.0
    longest: float = 0.05

    def __post_init__(self) -> None:
        if self.size < 4:
            raise ValueError(f"Lorenz-96: found {self.size} variables, expected at least 4")

    @property
    def shape(self) -> tuple[int, int, int]:
        return (1, 1, self.size)

    def tendency(self, state: Tensor) -> Tensor:
        ahead, behind, two_behind = (torch.roll(state, shift, dims=-1) for shift in (-1, 1, 2))
        return (ahead - two_behind) * behind - state + self.forcing

    def step(self, state: Tensor, dt: float) -> Tensor:
        return advance(self.tendency, state, dt, self.longest)

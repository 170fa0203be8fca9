r"""Two-layer quasi-geostrophic turbulence on a doubly periodic β-plane (the Phillips model), spectral, in torch.

With equal layers, deformation wavenumber k_d and an imposed shear U_1 = U, U_2 = -U, the potential vorticity of eddies is

    q_1 = ∇²ψ_1 + k_d²/2 (ψ_2 - ψ_1),        q_2 = ∇²ψ_2 + k_d²/2 (ψ_1 - ψ_2)
    ∂q_i/∂t + J(ψ_i, q_i) + U_i ∂q_i/∂x + Q_i ∂ψ_i/∂x = -r ∇²ψ_2 δ_{i2}
    Q_1 = β + k_d² U,        Q_2 = β - k_d² U

Products are taken on the grid and truncated at two thirds of the wavenumbers (no aliasing, so that the advection conserves
energy and enstrophy); the shortest waves kept are damped by an exponential filter after every step. Lengths are in units of the
domain over 2π, times in units of its eddies' turnover.

References:
    Phillips 1954, Tellus 6, 273; Vallis 2017, Atmospheric and Oceanic Fluid Dynamics, section 9.6;
    Arbic and Flierl 2004, J. Phys. Oceanogr. 34, 2257 (filter).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from genda.forecast.integrate import runge_kutta_4


@dataclass(frozen=True)
class QuasiGeostrophic:
    """States are potential vorticity (..., 2, size, size), real.

    Attributes:
        size: points along each side, even.
        deformation: k_d.
        shear: U.
        beta: β.
        drag: r.
        longest: largest time step.
        filtered: whether the shortest waves are damped.
    """

    size: int = 64
    deformation: float = 8.0
    shear: float = 0.2
    beta: float = 6.0
    drag: float = 0.5
    longest: float = 0.01
    filtered: bool = True

    def __post_init__(self) -> None:
        if self.size < 8 or self.size % 2:
            raise ValueError(f"quasi-geostrophic: found size {self.size}, expected an even number of at least 8")

    @property
    def shape(self) -> tuple[int, int, int]:
        return (2, self.size, self.size)

    def step(self, state: Tensor, dt: float) -> Tensor:
        if not dt > 0:
            raise ValueError(f"forecast time: found {dt:g}, expected a positive one")
        steps = math.ceil(dt / self.longest * (1 - 1e-9))
        waves = torch.fft.rfft2(state) * self._kept.to(state)
        for _ in range(steps):
            waves = runge_kutta_4(self.tendency, waves, dt / steps)
            if self.filtered:
                waves = waves * self._filter.to(state)
        later: Tensor = torch.fft.irfft2(waves, s=(self.size, self.size))
        return later

    def tendency(self, waves: Tensor) -> Tensor:
        """∂q/∂t in wavenumbers, (..., 2, size, size // 2 + 1) complex."""
        psi = self.streamfunction(waves)
        kx, ky = (k.to(waves.real) for k in self._wavenumbers)
        shear = torch.tensor([self.shear, -self.shear], dtype=kx.dtype, device=kx.device).view(2, 1, 1)
        gradient = self.beta + self.deformation**2 * shear
        linear = -1j * kx * (shear * waves + gradient * psi)
        bottom = torch.tensor([0.0, self.drag], dtype=kx.dtype, device=kx.device).view(2, 1, 1)
        return linear + self.advection(psi, waves) + bottom * (kx**2 + ky**2) * psi

    def advection(self, psi: Tensor, waves: Tensor) -> Tensor:
        """-J(ψ, q) without aliasing."""
        kx, ky = (k.to(waves.real) for k in self._wavenumbers)
        u, v, q = (
            torch.fft.irfft2(field, s=(self.size, self.size)) for field in (-1j * ky * psi, 1j * kx * psi, waves)
        )
        flux: Tensor = 1j * kx * torch.fft.rfft2(u * q) + 1j * ky * torch.fft.rfft2(v * q)
        return -(flux * self._kept.to(waves.real))

    def streamfunction(self, waves: Tensor) -> Tensor:
        """ψ of q: the barotropic and the baroclinic mode invert one by one."""
        kx, ky = (k.to(waves.real) for k in self._wavenumbers)
        square = kx**2 + ky**2
        upper, lower = waves.unbind(dim=-3)
        safe = torch.where(square == 0, 1.0, square)
        barotropic = -(upper + lower) / 2 / safe * (square != 0)
        baroclinic = -(upper - lower) / 2 / (square + self.deformation**2)
        return torch.stack([barotropic + baroclinic, barotropic - baroclinic], dim=-3)

    @cached_property
    def _wavenumbers(self) -> tuple[Tensor, Tensor]:
        n = self.size
        kx = torch.fft.rfftfreq(n, 1 / n, dtype=torch.float64)
        ky = torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)
        return kx.view(1, -1), ky.view(-1, 1)

    @cached_property
    def _kept(self) -> Tensor:
        kx, ky = self._wavenumbers
        limit = self.size / 3
        return ((kx.abs() < limit) & (ky.abs() < limit)).double()

    @cached_property
    def _filter(self) -> Tensor:
        kx, ky = self._wavenumbers
        relative = (kx**2 + ky**2).sqrt() / (self.size / 3)
        damping = torch.exp(-23.6 * (relative - 0.65).clamp(min=0) ** 4 / 0.35**4)
        return damping * self._kept

r"""A zonal Gaussian joined by the localised covariance of the day's ensemble: the base of increments that knows the flow.

    P = β_s C + β_e ρ ∘ A Aᵀ / (N-1)

C is that of :class:`genda.diffusion.zonal_gaussian.ZonalGaussian`, A the deviations of N members, ρ a taper of distance between
points, ∘ the product of matrix elements. With ρ ≈ L Lᵀ by its leading eigenvectors l_q the second part has the root

    Z = √(β_e / (N-1)) [a_k ∘ l_q],        (fields) × (N q)

a thousand columns, so that with B = σ² (β_s C + σ²)^{-1}, which is exact, Woodbury's identity gives the denoiser

    W = P (P + σ²)^{-1} = (1 - B) + B Z (σ² + Zᵀ B Z)^{-1} Zᵀ B

and cov(x | x_t) = σ² W. The middle matrix depends on σ alone and is factorised once a level. Z itself is never written out: like ρ,
l_q acts on points and not on channels, so that products with Z need one plane a member.

References:
    Hamill and Snyder 2000, Mon. Wea. Rev. 128, 2905 (hybrid); Buehner 2005, Q. J. R. Meteorol. Soc. 131, 1013 (the root of a
    localised covariance by leading eigenvectors of the taper).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from genda.diffusion.denoiser import per_sample
from genda.diffusion.noise import MemberNoise
from genda.diffusion.zonal_gaussian import ZonalGaussian

KEPT = 4
"""Levels whose middle matrix is kept: second-order steps ask for each level several times in a row."""


@dataclass(frozen=True)
class EnsembleBase:
    """What the covariance of an ensemble adds to a zonal Gaussian.

    Attributes:
        taper: L, shape (lat · lon, q); :meth:`genda.methods.localisation.Localisation.root` has it.
        static_weight, ensemble_weight: β_s and β_e.
        correction: share of a network's correction of the zonal Gaussian that is kept.
    """

    taper: Tensor
    static_weight: float
    ensemble_weight: float
    correction: float

    def __post_init__(self) -> None:
        if not (0 <= self.static_weight < math.inf and 0 <= self.ensemble_weight < math.inf):
            found = f"found weights {self.static_weight:g}, {self.ensemble_weight:g}"
            raise ValueError(f"ensemble base: {found}, expected finite ones of 0 or more")
        if not 0 <= self.correction <= 1:
            raise ValueError(f"ensemble base: found a correction of {self.correction:g}, expected a share from 0 to 1")

    def joined(self, zonal: nn.Module, deviations: Tensor) -> HybridGaussian:
        """The Gaussian of a day, with ``deviations`` A of its members, shape (member, channel, lat, lon).

        Raises:
            ValueError: for another Gaussian than a zonal one, a single member, or a taper of other points.
        """
        if not isinstance(zonal, ZonalGaussian):
            raise ValueError(f"ensemble base: found {type(zonal).__name__}, expected a zonal Gaussian")
        if len(deviations) < 2:
            raise ValueError(f"ensemble base: found {len(deviations)} member, expected at least 2")
        points = zonal.shape[1] * zonal.shape[2]
        if len(self.taper) != points:
            raise ValueError(f"ensemble base: found a taper of {len(self.taper)} points, expected {points}")
        taper = (self.ensemble_weight / (len(deviations) - 1)) ** 0.5 * self.taper.to(deviations)
        return HybridGaussian(zonal, self.static_weight, deviations, taper)


class HybridGaussian(nn.Module):
    """N(0, β_s C + Z Zᵀ) on fields (channel, lat, lon), Z the fields a_k ∘ l_q.

    Args:
        zonal: has C.
        static_weight: β_s.
        deviations: a_k, shape (member, channel, lat, lon).
        taper: l_q, all further factors included, shape (lat · lon, q).
    """

    deviations: Tensor
    taper: Tensor
    _coordinates: Tensor
    _products: Tensor

    def __init__(self, zonal: ZonalGaussian, static_weight: float, deviations: Tensor, taper: Tensor) -> None:
        super().__init__()
        self._zonal, self._static = zonal, zonal.scaled(static_weight)
        self.register_buffer("deviations", deviations)
        self.register_buffer("taper", taper)
        planes = taper.T.view(-1, 1, *zonal.shape[1:])
        coordinates = torch.cat([zonal.coordinates(a * planes) for a in deviations])
        self.register_buffer("_coordinates", coordinates, persistent=False)
        self.register_buffer("_products", self._dot_products(), persistent=False)
        self._factor = lru_cache(maxsize=KEPT)(self._factorised)

    def forward(self, x_t: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        noise = sigma.to(x_t).reshape(-1, 1) ** 2
        static = self._static.filtered(x_t, lambda c: c / (c + noise))
        weights = self._weights(x_t - static)
        levels = sigma.to(x_t.device).reshape(-1).expand(len(x_t))
        for level in set(levels.tolist()):
            own = levels == level
            solved = torch.cholesky_solve(weights[own].double().T, self._factor(level)).T
            weights[own] = solved.to(weights)
        added = self._combined(weights)
        estimate: Tensor = static + added - self._static.filtered(added, lambda c: c / (c + noise))
        return estimate

    def conditional_covariance(self, v: Tensor, sigma: Tensor) -> Tensor:
        """cov(x | x_t) @ v for ``v`` (batch, channel, lat, lon) and ``sigma`` () or (batch,)."""
        product: Tensor = per_sample(sigma.to(v), v) ** 2 * self(v, sigma)
        return product

    def prior_covariance(self, v: Tensor) -> Tensor:
        """P @ v."""
        return self._static.prior_covariance(v) + self._combined(self._weights(v))

    def sample(self, noise: MemberNoise) -> Tensor:
        """Draws of N(0, P), one for each member of the noise, (members, channel, lat, lon)."""
        return self._static.sample(noise) + self._combined(noise.normal((len(self._coordinates),), self.taper))

    def error_std(self, sigma: Tensor) -> Tensor:
        """That of C alone: in its units a network that corrects the zonal Gaussian has been trained to give errors."""
        return self._zonal.error_std(sigma)

    def local_covariance(self, sigma: Tensor) -> Tensor:
        """About cov(x | x_t) between the channels of one point, (lat, channel, channel): that of C alone."""
        return self._zonal.local_covariance(sigma)

    def _factorised(self, level: float) -> Tensor:
        """The Cholesky factor of σ² + Zᵀ B Z; double, for at low noise B takes away nearly all of Zᵀ Z."""
        noise = level**2
        middle = self._static.between(lambda c: noise / (c + noise), self._coordinates.double(), self._products)
        middle.diagonal().add_(noise)
        lower, failed = torch.linalg.cholesky_ex(middle)
        if int(failed):
            found = f"found its matrix at level {level:g} not positive definite to round-off"
            raise FloatingPointError(f"ensemble base: {found}, expected finite members that differ")
        result: Tensor = lower
        return result

    def _weights(self, v: Tensor) -> Tensor:
        """Zᵀ v for fields (batch, channel, lat, lon), shape (batch, N q)."""
        planes = torch.einsum("kcp,bcp->bkp", self.deviations.to(v).flatten(2), v.flatten(2))
        return (planes @ self.taper.to(v)).flatten(1)

    def _combined(self, weights: Tensor) -> Tensor:
        """Z w, (batch, N q) to (batch, channel, lat, lon)."""
        deviations = self.deviations.to(weights)
        planes = weights.view(len(weights), len(deviations), -1) @ self.taper.to(weights).T
        return torch.einsum("kcp,bkp->bcp", deviations.flatten(2), planes).view(-1, *deviations.shape[1:])

    def _dot_products(self) -> Tensor:
        """Zᵀ Z, shape (N q, N q)."""
        taper, flat = self.taper.double(), self.deviations.double().flatten(2)
        rows = [torch.einsum("pq,jp,pr->qjr", taper, (flat * a).sum(dim=1), taper).flatten(1) for a in flat]
        return torch.cat(rows)

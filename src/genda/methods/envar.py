r"""Ensemble-variational analysis: the Kalman update with a localised ensemble covariance, a static one, or a sum of both.

    P = β_s B + β_e ρ ∘ A Aᵀ / (N-1)

A the deviations of the background members, ρ the taper of distance, ∘ the product of matrix elements. ρ acts on points and
not on channels, so that a product with P needs one taper of one plane per member,

    (ρ ∘ A Aᵀ) v = Σ_k a_k ∘ ρ (Σ_c a_k ∘ v).

Every member is updated with its own perturbed observations; their mean gets the unperturbed ones.

References:
    Hamill and Snyder 2000, Mon. Wea. Rev. 128, 2905 (hybrid); Lorenc 2003, Q. J. R. Meteorol. Soc. 129, 3183;
    Buehner 2005, 131, 1013.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genda.guidance.observation_space import StateCovariance, increment
from genda.methods.ensemble_kalman import inflate
from genda.methods.localisation import Localisation
from genda.problem import Problem


@dataclass(frozen=True)
class EnVar:
    """The method.

    Attributes:
        localisation: taper of the ensemble covariance.
        static: B; None for the ensemble alone.
        static_weight, ensemble_weight: β_s and β_e.
        inflation: factor on the deviations of the analysis.
        iterations: of conjugate gradients, at most, where they are needed.
        tolerance: relative residual at which they stop.
    """

    localisation: Localisation
    static: StateCovariance | None = None
    static_weight: float = 0.5
    ensemble_weight: float = 0.5
    inflation: float = 1.0
    iterations: int = 100
    tolerance: float = 1e-4

    @torch.no_grad()
    def analyse(self, problem: Problem, members: int, generator: torch.Generator) -> Tensor:
        background = problem.background_members(type(self).__name__)
        source, mean, count = problem.stacked, background.mean(dim=0), len(background)
        white = torch.randn(count, len(source.values), generator=generator, dtype=background.dtype)
        noise = source.covariance.scale(white)
        noise = (noise - noise.mean(dim=0)).to(background)
        misfit = source.misfit(background) + noise
        hybrid = HybridCovariance(
            background - mean, self.localisation, self.ensemble_weight, self.static, self.static_weight
        )
        change = increment(hybrid, source, background, misfit, self.iterations, self.tolerance)
        return inflate(background + change, self.inflation)


@dataclass(frozen=True)
class HybridCovariance:
    """P = β_s B + β_e ρ ∘ A Aᵀ / (N-1).

    Attributes:
        deviations: A, shape (member, channel, lat, lon).
        localisation: ρ.
        weight: β_e.
        static, static_weight: B and β_s.
    """

    deviations: Tensor
    localisation: Localisation
    weight: float = 1.0
    static: StateCovariance | None = None
    static_weight: float = 0.0

    def covariance(self, x: Tensor) -> Tensor:
        flat = self.deviations.flatten(2)
        planes = torch.einsum("kcp,bcp->kbp", flat, x.flatten(2))
        tapered = self.localisation.between_points(planes.reshape(-1, 1, 1, planes.shape[-1])).view(planes.shape)
        result = self._scale * torch.einsum("kcp,kbp->bcp", flat, tapered).view(x.shape)
        return result if self.static is None else result + self.static_weight * self.static.covariance(x)

    def elements(self, index: Tensor) -> Tensor:
        points = self.localisation.between_points.matrix
        point = (index % points.shape[0]).numpy()
        taper = torch.as_tensor(points[point][:, point].toarray())
        values = self.deviations.flatten(1)[:, index]
        result = self._scale * taper.to(values) * (values.T @ values)
        return result if self.static is None else result + self.static_weight * self.static.elements(index)

    @property
    def _scale(self) -> float:
        return self.weight / (len(self.deviations) - 1)

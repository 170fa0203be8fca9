r"""Ensemble-variational analysis: the Kalman update with a localised ensemble covariance, a static one, or a sum of both.

    P = β_s B + β_e ρ ∘ A Aᵀ / (N-1)

A the deviations of the background members, ρ the taper of distance, ∘ the product of matrix elements. ρ acts on points and
not on channels, so that a product with P needs one taper of one plane per member,

    (ρ ∘ A Aᵀ) v = Σ_k a_k ∘ ρ (Σ_c a_k ∘ v).

Every member is updated with its own perturbed observations; their mean gets the unperturbed ones. The dual (observation
space) form is solved by conjugate gradients; for linear operators it has the same answer as the control-variable form.

References:
    Hamill and Snyder 2000, Mon. Wea. Rev. 128, 2905 (hybrid); Lorenc 2003, Q. J. R. Meteorol. Soc. 129, 3183;
    Buehner 2005, 131, 1013.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from genda.guidance.gaussian import kalman_increment
from genda.methods.ensemble_kalman import inflate
from genda.methods.localisation import Localisation
from genda.observations.operators import LinearOperator
from genda.problem import Problem


@dataclass(frozen=True)
class EnVar:
    """The method.

    Attributes:
        localisation: taper of the ensemble covariance.
        static: product of B with fields (batch, channel, lat, lon); None for the ensemble alone.
        static_weight, ensemble_weight: β_s and β_e.
        inflation: factor on the deviations of the analysis.
        iterations: of conjugate gradients, at most.
        tolerance: relative residual at which they stop.
    """

    localisation: Localisation
    static: Callable[[Tensor], Tensor] | None = None
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
        product = self._covariance(background - mean)
        increment = kalman_increment(product, source, background, misfit, self.iterations, self.tolerance)
        return inflate(background + increment, self.inflation)

    def _covariance(self, deviations: Tensor) -> Callable[[Tensor], Tensor]:
        """P as a product with fields."""
        flat = deviations.flatten(2)
        weight = self.ensemble_weight / (len(deviations) - 1)

        def product(v: Tensor) -> Tensor:
            planes = torch.einsum("kcp,bcp->kbp", flat, v.flatten(2))
            tapered = self._taper(planes.reshape(-1, 1, 1, planes.shape[-1])).view(planes.shape)
            result = weight * torch.einsum("kcp,kbp->bcp", flat, tapered).view(v.shape)
            return result if self.static is None else result + self.static_weight * self.static(v)

        return product

    @cached_property
    def _taper(self) -> LinearOperator:
        points = self.localisation.coordinates
        return LinearOperator(self.localisation.tapers(points, points), (1, 1, len(points)))

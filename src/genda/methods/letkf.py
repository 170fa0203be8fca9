r"""The local ensemble transform Kalman filter: an ETKF of its own at every point, with observations weighed by distance.

At point p the precision of observation o is ρ_po / r_o, so that

    Y_pᵀ R_p^{-1} Y_p = Σ_o ρ_po y_o y_oᵀ / r_o

is linear in the tapers: observations at one place (a column) are summed into one N × N matrix first, then one sparse product
gives the matrices of all points and one batched eigendecomposition their weights. Points are taken in blocks that bound memory.

Reference: Hunt et al. 2007, Physica D 230, 112.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from genda.methods.ensemble_kalman import inflate, rotated, transform_weights
from genda.methods.localisation import Localisation
from genda.problem import Problem


@dataclass(frozen=True)
class LETKF:
    """The method.

    Attributes:
        localisation: taper and coordinates of the points.
        inflation: factor on the deviations of the analysis.
        rotate: mix them at random.
        block: points at a time.
    """

    localisation: Localisation
    inflation: float = 1.0
    rotate: bool = False
    block: int = 8192

    @torch.no_grad()
    def analyse(self, problem: Problem, members: int, generator: torch.Generator) -> Tensor:
        background = problem.background_members(type(self).__name__)
        source, count = problem.stacked, len(background)
        images = source.operator(background)
        spread = images - images.mean(dim=0)
        scaled = source.covariance.inverse(spread)
        innovation = source.values.to(images) - images.mean(dim=0)

        radius = self.localisation.radius
        positions = self.localisation.positions(source)
        places, place_of = np.unique((positions / radius).round(10), axis=0, return_inverse=True)
        places = places * radius
        summed = sp.csr_array(
            (np.ones(len(place_of)), (place_of.ravel(), np.arange(len(place_of)))), shape=(len(places), len(place_of))
        )
        outer = np.einsum("ko,jo->okj", spread.numpy(), scaled.numpy()).reshape(len(place_of), -1)
        precision, pull = summed @ outer, summed @ (scaled * innovation).T.numpy()

        mean = background.mean(dim=0)
        deviations = (background - mean).flatten(2)
        analysis = torch.empty_like(deviations)
        points = self.localisation.coordinates
        for first in range(0, len(points), self.block):
            part = slice(first, first + self.block)
            tapers = self.localisation.tapers(points[part], places)
            weights = transform_weights(
                torch.as_tensor(tapers @ precision).to(background).view(-1, count, count),
                torch.as_tensor(tapers @ pull).to(background),
            )
            analysis[..., part] = torch.einsum("pkj,kcp->jcp", weights, deviations[..., part])
        result = mean + analysis.view(background.shape)
        if self.rotate:
            result = rotated(result, generator)
        return inflate(result, self.inflation)

r"""The local ensemble transform Kalman filter: an ETKF of its own at every point, with observations weighed by distance.

At point p the precision of observation o is ρ_po / r_o, so that

    Y_pᵀ R_p^{-1} Y_p = Σ_o ρ_po y_o y_oᵀ / r_o

is linear in the tapers: observations at one place (a column) are summed into one N × N matrix first, then one sparse product
gives the matrices of all points and one batched eigendecomposition their weights. Points are taken in blocks that bound memory,
each with the observations within reach.

Reference: Hunt et al. 2007, Physica D 230, 112.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
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
        prior_inflation: factor on the deviations of the background.
    """

    localisation: Localisation
    inflation: float = 1.0
    rotate: bool = False
    block: int = 8192
    prior_inflation: float = 1.0

    @torch.no_grad()
    def analyse(self, problem: Problem, members: int, generator: torch.Generator) -> Tensor:
        background = inflate(problem.background_members(type(self).__name__), self.prior_inflation)
        source, count = problem.stacked, len(background)
        images = source.operator(background)
        spread = images - images.mean(dim=0)
        scaled = source.covariance.inverse(spread)
        innovation = source.values.to(images) - images.mean(dim=0)

        radius, points = self.localisation.radius, self.localisation.coordinates
        positions = self.localisation.positions(source)
        places, place_of = np.unique((positions / radius).round(10), axis=0, return_inverse=True)
        order = np.argsort(place_of, kind="stable")
        starts = np.searchsorted(place_of[order], np.arange(len(places) + 1))
        spread, scaled, innovation = (t[..., order] for t in (spread, scaled, innovation))
        tree = cKDTree(places * radius)

        mean = background.mean(dim=0)
        deviations = (background - mean).flatten(2)
        analysis = torch.empty_like(deviations)
        for first in range(0, len(points), self.block):
            part = slice(first, first + self.block)
            tapers = self.localisation.tapers(points[part], tree)
            near = np.unique(tapers.indices).astype(np.intp)
            rows, ends = _ranges(starts, near)
            pieces = (
                torch.einsum("ko,jo->okj", spread[:, rows], scaled[:, rows]).flatten(1),
                (scaled * innovation)[:, rows].T,
            )
            precision, pull = (
                torch.as_tensor(tapers[:, near] @ np.add.reduceat(piece.numpy(), ends, axis=0)).to(background)
                if len(near)
                else background.new_zeros(tapers.shape[0], piece.shape[1])
                for piece in pieces
            )
            weights = transform_weights(precision.view(-1, count, count), pull)
            analysis[..., part] = torch.einsum("pkj,kcp->jcp", weights, deviations[..., part])
        result = mean + analysis.view(background.shape)
        if self.rotate:
            result = rotated(result, generator)
        return inflate(result, self.inflation)


def _ranges(starts: NDArray[np.intp], chosen: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows of the chosen groups one after the other, and where each group begins among them."""
    counts = starts[chosen + 1] - starts[chosen]
    ends = np.concatenate([[0], np.cumsum(counts)])
    rows = np.arange(ends[-1]) + np.repeat(starts[chosen] - ends[:-1], counts)
    return rows, ends[:-1]

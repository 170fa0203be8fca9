r"""A preconditioner for observations of whole columns: what is observed at one point, with what the Gaussian says of that point.

    (H C_t Hᵀ + R)^{-1} ≈ [h_p C_t(p) h_pᵀ + R_p]^{-1} for every point p

Channels of a point are tied far more closely to each other than points are, and observations of small error far more closely
than those of large: without this conjugate gradients spend their iterations on what a small dense solve knows. Memory grows with
the number of observations, not with its square.

Reference: block Jacobi, Saad 2003, Iterative Methods for Sparse Linear Systems, section 4.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

LARGEST = 512
"""Observations of a block at most: those of a point beyond them begin another."""


class WithinPoints:
    """An approximate (H C_t Hᵀ + R)^{-1} at any noise level.

    Args:
        rows: H', shape (m, channel · lat · lon). Each row is taken as if all it reads lay at the point it reads most of.
        shape: of a field, (channel, lat, lon).
        variance: of the observations' errors, shape (m,).
        local: C_t between the channels of a point, () to (lat, channel, channel).
    """

    def __init__(
        self, rows: sp.csr_array, shape: tuple[int, int, int], variance: Tensor, local: Callable[[Tensor], Tensor]
    ) -> None:
        channels, nlat, nlon = shape
        entries = sp.coo_array(rows)
        point = entries.col % (nlat * nlon)
        weight = sp.coo_array((abs(entries.data), (entries.row, point)), shape=(rows.shape[0], nlat * nlon))
        main = np.asarray(sp.csr_array(weight).argmax(axis=1)).ravel()
        folded = (entries.data, (entries.row, entries.col // (nlat * nlon)))
        self._at_point = torch.as_tensor(sp.coo_array(folded, shape=(rows.shape[0], channels)).toarray())
        order = np.argsort(main, kind="stable")
        cuts = np.flatnonzero(np.diff(main[order])) + 1
        groups = [group for group in np.split(order, cuts) if len(group)]
        blocks = [part for group in groups for part in np.array_split(group, -(-len(group) // LARGEST))]
        self._members = [torch.as_tensor(members) for members in _alike(blocks)]
        self._latitude = [torch.as_tensor(main[members[:, 0].numpy()] // nlon) for members in self._members]
        self._variance, self._local = variance, local

    def near(self, level: float) -> Callable[[Tensor], Tensor]:
        """At one level, (batch, m) to the same."""
        local = self._local(self._variance.new_tensor(level)).double()
        inverses = [self._inverse(local, *each) for each in zip(self._members, self._latitude, strict=True)]

        def apply(v: Tensor) -> Tensor:
            found = torch.zeros_like(v)
            for members, inverse in zip(self._members, inverses, strict=True):
                chosen = members.to(v.device)
                there = chosen >= 0
                parts = v[:, chosen.clamp(min=0)] * there  # (batch, block, k)
                image = torch.einsum("bpj,pij->bpi", parts, inverse.to(v))
                found = found.index_copy(1, chosen[there], image[:, there])
            return found

        return apply

    def _inverse(self, local: Tensor, members: Tensor, latitude: Tensor) -> Tensor:
        """Of each block, that of the unit matrix where there is no member, (block, k, k)."""
        members, there = members.clamp(min=0).to(local.device), (members >= 0).to(local.device)
        variance = self._variance.to(local)[members]
        heard = there & torch.isfinite(variance)  # an observation of infinite error is none
        h = self._at_point.to(local)[members] * heard.unsqueeze(-1)
        matrices = h @ local[latitude.to(local.device)] @ h.mT
        errors = torch.where(heard, variance, 1.0)
        inverse: Tensor = torch.linalg.inv(matrices + torch.diag_embed(errors))
        return inverse.to(self._variance.dtype)


def _alike(blocks: Sequence[NDArray[np.intp]]) -> list[NDArray[np.intp]]:
    """Blocks of about the same size together, (block, k), -1 where one is shorter: one large block must not widen them all."""
    sizes = [(len(block) - 1).bit_length() for block in blocks]
    found = []
    for size in sorted(set(sizes)):
        same = [block for block, own in zip(blocks, sizes, strict=True) if own == size]
        longest = max(len(block) for block in same)
        found.append(np.stack([np.pad(block, (0, longest - len(block)), constant_values=-1) for block in same]))
    return found

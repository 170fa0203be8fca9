r"""The Gaussian's own analysis of simulated columns, for a whole batch at a time.

    m = C Hᵀ (H C Hᵀ + R)^{-1} d,        H = (columns) ∘ (the decoder's linear map)

by conjugate gradients. Fields of one column are tied far more closely than columns are to each other: a preconditioner that
inverts H C Hᵀ + R within each column takes most of the condition number away, and as C is homogeneous along circles of latitude
there are only so many such blocks as latitudes and places in a patch.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor
from torch.nn import functional as F

from genda.diffusion.zonal_gaussian import ZonalGaussian
from genda.linalg import conjugate_gradient
from genda.nn.autoencoder import Autoencoder
from genda.train.networks import Columns

ITERATIONS = 20
"""Bring an analysis of a twentieth of the grid, observed without noise, to within a few per cent of the exact one's error."""
TOLERANCE = 0.02


class ColumnAnalysis:
    """E[e | y] under the Gaussian, for columns of all channels at grid points.

    Args:
        autoencoder: decodes increments; its linear map is used.
        base: C, of increments.
        scale: s, shape (lead, latent, 1, 1).
        floor: variance of errors that the latent can't hold, which joins R, shape (lead, channel).
        noises: standard deviations that observations' errors may have.
    """

    def __init__(
        self, autoencoder: Autoencoder, base: ZonalGaussian, scale: Tensor, floor: Tensor, noises: tuple[float, ...]
    ) -> None:
        self._patch, self._weight = autoencoder.patch, autoencoder.linear_weight
        self._base, self._scale, self._floor = deepcopy(base), scale, floor  # batches are drawn on the host
        self._noises = torch.tensor(noises)
        blocks = torch.stack([self._blocks(lead) for lead in range(len(scale))])
        errors = floor.unsqueeze(1) + (self._noises**2).view(1, -1, 1)  # (lead, noise, channel)
        matrices = blocks.unsqueeze(1) + torch.diag_embed(errors)[:, :, None, None].to(blocks)
        self._inverse = torch.linalg.inv(matrices).float()

    @torch.no_grad()
    def of(self, columns: Columns, mean: Tensor, lead: Tensor) -> Tensor:
        """Increments m, (batch, latent, lat, lon).

        Args:
            columns: what is observed of each error.
            mean: m̄ of the latent errors of each sample, shape (batch, latent, lat, lon).
            lead: of each sample, shape (batch,).
        """
        scale, seen = self._scale[lead], columns.columns.float()
        variance = self._floor[lead][..., None, None] + columns.noise.view(-1, 1, 1, 1) ** 2
        decode, adjoint = self._maps(scale)
        innovation = seen * (columns.values - decode(mean / scale))
        shape = innovation.shape

        def product(u: Tensor) -> Tensor:
            u = u.view(shape)
            return (seen * decode(self._base.prior_covariance(adjoint(u))) + variance * u).flatten(1)

        inverse = self._inverse[lead, (columns.noise.view(-1, 1) - self._noises).abs().argmin(dim=1)]

        def within_columns(u: Tensor) -> Tensor:
            folded = u.view(*shape[:3], -1, self._patch)
            return torch.einsum("brpij,bjrcp->bircp", inverse, folded).flatten(1)

        u = conjugate_gradient(product, innovation.flatten(1), ITERATIONS, TOLERANCE, within_columns)
        increment: Tensor = self._base.prior_covariance(adjoint(u.view(shape)))
        return increment

    def _maps(self, scale: Tensor) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        """The linear map from increments to states and its adjoint."""

        def decode(e: Tensor) -> Tensor:
            return F.pixel_shuffle(torch.einsum("kl,blij->bkij", self._weight, scale * e), self._patch)

        def adjoint(x: Tensor) -> Tensor:
            return scale * torch.einsum("kl,bkij->blij", self._weight, F.pixel_unshuffle(x, self._patch))

        return decode, adjoint

    @torch.no_grad()
    def _blocks(self, lead: int) -> Tensor:
        """H C Hᵀ within a column, in double precision, (row, place in the patch along longitude, channel, channel)."""
        patch, scale = self._patch, self._scale[lead].double().flatten()
        local = self._base.local_covariance(torch.tensor(torch.inf)).double() * torch.outer(scale, scale)
        weight = self._weight.double().view(-1, patch, patch, len(scale))
        blocks = torch.einsum("cyxk,rkl,dyxl->ryxcd", weight, local, weight)
        return blocks.flatten(0, 1)

r"""The Gaussian's own analysis of simulated columns, for a whole batch at a time.

    m = C Hᵀ (H C Hᵀ + R)^{-1} d,        H = (columns) ∘ (the decoder's linear map)

by conjugate gradients. Fields of one column are tied far more closely than columns are to each other: a preconditioner that
inverts H C Hᵀ + R within each column takes most of the condition number away, and as C is homogeneous along circles of latitude
there are only so many such blocks as latitudes and places in a patch.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor

from genda.diffusion.zonal_gaussian import ZonalGaussian
from genda.linalg import conjugate_gradient
from genda.nn.autoencoder import Autoencoder
from genda.train.simulated_columns import Columns

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
        scale, decode = self._scale[lead], _ColumnMap.of(columns.columns, self._patch, self._weight)
        noise = columns.noise.view(-1, 1)
        variance = (self._floor[lead] + noise**2).unsqueeze(1)
        values = columns.values.flatten(2).mT
        innovation = decode.seen * (
            values.gather(1, decode.point.unsqueeze(2).expand(-1, -1, values.shape[2])) - decode(mean)
        )
        kind = (noise - self._noises).abs().argmin(dim=1, keepdim=True)
        inverse = self._inverse[lead.unsqueeze(1), kind, decode.row, decode.column % self._patch]

        def covariance(u: Tensor) -> Tensor:
            return self._base.prior_covariance(scale * decode.adjoint(u.view(innovation.shape), mean.shape))

        def product(u: Tensor) -> Tensor:
            return (decode.seen * decode(scale * covariance(u)) + variance * u.view(innovation.shape)).flatten(1)

        def within_columns(u: Tensor) -> Tensor:
            turned: Tensor = inverse @ u.view(innovation.shape).unsqueeze(3)
            return turned.flatten(1)

        solution = conjugate_gradient(product, innovation.flatten(1), ITERATIONS, TOLERANCE, within_columns)
        return covariance(solution)

    @torch.no_grad()
    def _blocks(self, lead: int) -> Tensor:
        """H C Hᵀ within a column, in double precision, (row, place in the patch along longitude, channel, channel)."""
        patch, scale = self._patch, self._scale[lead].double().flatten()
        local = self._base.local_covariance(torch.tensor(torch.inf)).double() * torch.outer(scale, scale)
        weight = self._weight.double().view(-1, patch, patch, len(scale))
        blocks = torch.einsum("cyxk,rkl,dyxl->ryxcd", weight, local, weight)
        return blocks.flatten(0, 1)


@dataclass(frozen=True)
class _ColumnMap:
    """The decoder's linear map at columns: n places for each sample, as many as the sample with most columns has.

    Attributes:
        point: index of each column on the flattened grid of states, some other point where a place is empty, shape (batch, n).
        seen: false where a place is empty, shape (batch, n, 1).
        row, column: of each point on that grid, shape (batch, n).
        patch: side of a patch in points.
        patches: number of patches along a circle of latitude.
        weight: of the map within a patch, shape (channel · patch², latent).
    """

    point: Tensor
    seen: Tensor
    row: Tensor
    column: Tensor
    patch: int
    patches: int
    weight: Tensor

    @staticmethod
    def of(columns: Tensor, patch: int, weight: Tensor) -> _ColumnMap:
        mask, nlon = columns.flatten(1), columns.shape[-1]
        seen, point = mask.int().topk(int(mask.sum(dim=1).max()), dim=1)
        return _ColumnMap(point, seen.bool().unsqueeze(2), point // nlon, point % nlon, patch, nlon // patch, weight)

    def __call__(self, latents: Tensor) -> Tensor:
        """States there, at empty places too, (batch, latent, lat, lon) to (batch, n, channel)."""
        patches = latents.flatten(2).mT.gather(1, self._cell(latents.shape[1])) @ self.weight.T
        states = patches.view(*self.point.shape, len(self.weight) // self.patch**2, self.patch**2)
        return states.gather(3, self._place(states.shape[2])).squeeze(3)

    def adjoint(self, u: Tensor, shape: torch.Size) -> Tensor:
        """The adjoint: (batch, n, channel), which must be zero at empty places, to ``shape``, (batch, latent, lat, lon)."""
        states = u.new_zeros(*u.shape, self.patch**2).scatter(3, self._place(u.shape[2]), u.unsqueeze(3))
        patches = states.flatten(2) @ self.weight
        empty = u.new_zeros(shape).flatten(2).mT
        return empty.scatter_add(1, self._cell(shape[1]), patches).mT.reshape(shape)

    def _cell(self, latent: int) -> Tensor:
        """Which patch each is in, (batch, n, latent)."""
        cell = self.row // self.patch * self.patches + self.column // self.patch
        return cell.unsqueeze(2).expand(-1, -1, latent)

    def _place(self, channels: int) -> Tensor:
        """Where in it, (batch, n, channel, 1)."""
        place = self.row % self.patch * self.patch + self.column % self.patch
        return place[..., None, None].expand(-1, -1, channels, 1)

r"""Encoders of sparse observations: from a field that is known at few points to maps that condition a denoiser.

**Virtual reconstruction** (PhyDA, section 3.2). Innovations are normalised by the mean and deviation of each field over what is
observed of it; convolutions of stride 2, of squares that lie about the middle of a token, make virtual tokens at M scales, which a
window of ever more points fills where single points are far apart; all tokens attend to each other:

    x_0 = stem([(d - μ_k)/σ_k, density]),     x_τ = silu(conv(x_{τ-1}, stride 2)),     z' = z + softmax(q kᵀ/√C) v

and the maps are the sum of x_0 and all z'_τ, brought to its grid. The statistics μ_k, σ_k join every token: how
large innovations are is not lost. Where nothing is observed both are zero and one: a gap filled with zeros does not pull them.

Two beside it for comparison: the **convolutional** encoder has convolutions on x_0's grid alone, and **none** leaves values and
density as they are.

References:
    PhyDA (arXiv 2505.12882), equations 9 to 11; Kim et al. 2022 (reversible instance normalisation); Gordon et al. 2020, arXiv
    1910.13556 (the density beside the signal).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genda.nn.layers import Conv2d, circular_pad
from genda.nn.transformer import grid_angles, rotated


class MaskedInstanceNorm(nn.Module):
    """(d - μ_k)/σ_k where observed, zero elsewhere, μ_k and σ_k over all that is observed of a field in a sample.

    Args:
        fields: which field each channel belongs to, numbered from 0.
    """

    field: Tensor

    def __init__(self, fields: Sequence[int]) -> None:
        super().__init__()
        self._count = max(fields) + 1
        self.register_buffer("field", torch.tensor(fields), persistent=False)

    def forward(self, values: Tensor, density: Tensor) -> tuple[Tensor, Tensor]:
        """``values`` and ``density`` (batch, channel, lat, lon) to normalised values, and [μ, ln σ] (batch, 2 · field).

        In sums, not in products of matrices, which autocast would take in bfloat16.
        """
        weight = self._by_field(density)
        known = weight > 0
        weight = weight.clamp(min=1e-6)
        mean = self._by_field(density * values) / weight
        centred = values - mean[:, self.field, None, None]
        square = self._by_field(density * centred**2) / weight
        deviation = torch.where(known, (square + 1e-4).sqrt(), 1.0)
        normalised = centred / deviation[:, self.field, None, None] * (density > 0)
        return normalised, torch.cat([mean, deviation.log()], dim=1)

    def _by_field(self, x: Tensor) -> Tensor:
        """Sums of (batch, channel, lat, lon) over all points of all channels of a field, (batch, field)."""
        sums = x.sum(dim=(2, 3))
        return sums.new_zeros(len(x), self._count).index_add(1, self.field, sums)


class VirtualReconstruction(nn.Module):
    """Virtual tokens at several scales that attend to each other.

    Args:
        fields: which field each observed channel belongs to.
        out_channels: maps given.
        grid: (lat, lon) of the maps.
        patch: how many times finer the observations' grid is.
        width: channels of a token.
        scales: M.
        head: channels of an attention head.
    """

    cosine: Tensor
    sine: Tensor

    def __init__(
        self,
        fields: Sequence[int],
        out_channels: int,
        grid: tuple[int, int],
        patch: int,
        width: int = 64,
        scales: int = 3,
        head: int = 32,
    ) -> None:
        super().__init__()
        if any(size % 2**scales for size in grid):
            raise ValueError(
                f"observations: found a grid of {grid}, expected multiples of {2**scales} for {scales} scales"
            )
        if width % head:
            raise ValueError(f"observations: found a width of {width}, expected a multiple of the heads' {head}")
        self._patch, self._head = patch, head
        self.norm = MaskedInstanceNorm(fields)
        self.stem = Conv2d(2 * len(fields) * patch**2, width, kernel=1)
        self.statistics = nn.Linear(2 * (max(fields) + 1), width)
        self.down = nn.ModuleList(Conv2d(4 * width, width) for _ in range(scales))
        self.scale = nn.Parameter(0.02 * torch.randn(scales, width))
        self.token_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.joined = nn.Linear(width, width)
        self.out = Conv2d(width, out_channels)
        self._shapes = [(grid[0] // 2**s, grid[1] // 2**s) for s in range(1, scales + 1)]
        angles = [grid_angles(shape, head, finest=self._shapes[0][1]) for shape in self._shapes]
        for name, parts in zip(("cosine", "sine"), zip(*angles, strict=True), strict=True):
            self.register_buffer(name, torch.cat([a.flatten(0, 1) for a in parts]), persistent=False)

    def forward(self, values: Tensor, density: Tensor) -> Tensor:
        """Maps (batch, out_channels, lat, lon) of ``values`` and ``density`` (batch, channel, patch · lat, patch · lon)."""
        normalised, statistics = self.norm(values, density)
        x = first = self.stem(F.pixel_unshuffle(torch.cat([normalised, density], dim=1), self._patch))
        tokens = []
        for scale, down in zip(self.scale, self.down, strict=True):
            x = F.silu(down(F.pixel_unshuffle(x, 2)))
            tokens.append(x.flatten(2).mT + scale)
        z = torch.cat(tokens, dim=1) + self.statistics(statistics).unsqueeze(1)
        z = z + self._attended(self.token_norm(z))
        for part, (lat, lon) in zip(z.split([a * b for a, b in self._shapes], dim=1), self._shapes, strict=True):
            first = first + enlarged(part.mT.unflatten(2, (lat, lon)), first.shape[-1] // lon)
        out: Tensor = self.out(F.silu(first))
        return out

    def _attended(self, z: Tensor) -> Tensor:
        query, key, value = self.query_key_value(z).unflatten(-1, (3, -1, self._head)).unbind(-3)
        angles = (self.cosine, self.sine)
        query, key, value = (v.transpose(1, 2) for v in (rotated(query, angles), rotated(key, angles), value))
        weights = torch.softmax(query @ key.mT / math.sqrt(self._head), dim=-1)
        joined: Tensor = self.joined((weights @ value).transpose(1, 2).flatten(2))
        return joined


class ConvolutionalEncoder(nn.Module):
    """Convolutions on one grid: what virtual reconstruction is compared with.

    Args:
        channels: of the observed states.
        out_channels, patch, width: as of :class:`VirtualReconstruction`.
        depth: number of convolutions.
    """

    def __init__(self, channels: int, out_channels: int, patch: int, width: int = 64, depth: int = 3) -> None:
        super().__init__()
        self._patch = patch
        self.stem = Conv2d(2 * channels * patch**2, width, kernel=1)
        self.convolutions = nn.ModuleList(Conv2d(width, width) for _ in range(depth))
        self.out = Conv2d(width, out_channels)

    def forward(self, values: Tensor, density: Tensor) -> Tensor:
        """As :meth:`VirtualReconstruction.forward`."""
        x = self.stem(F.pixel_unshuffle(torch.cat([values, density], dim=1), self._patch))
        for convolution in self.convolutions:
            x = x + convolution(F.silu(x))
        out: Tensor = self.out(F.silu(x))
        return out


class NoEncoder(nn.Module):
    """Values and density as they are, on the grid of the maps: what any encoder is compared with."""

    def __init__(self, patch: int) -> None:
        super().__init__()
        self._patch = patch

    def forward(self, values: Tensor, density: Tensor) -> Tensor:
        """As :func:`folded`."""
        return folded(values, density, self._patch)


class ObservationConditioned(nn.Module):
    """A network whose context also holds observations: what an encoder makes of them stands beside the other maps.

    Args:
        network: ``(inputs, c_noise, condition, context)``, see :class:`genda.nn.unet.UNet` and :class:`genda.nn.transformer.DiT`;
            called by itself where observations are encoded once for all noise levels and members.
        encoder: of observations.
        maps: number of the other maps.
        patch: how many times finer the observations' grid is than that of the maps.
    """

    def __init__(self, network: nn.Module, encoder: nn.Module, maps: int, patch: int) -> None:
        super().__init__()
        self.network, self.encoder = network, encoder
        self._maps, self._patch = maps, patch

    def forward(self, inputs: Tensor, c_noise: Tensor, condition: Tensor | None, context: Tensor) -> Tensor:
        """``context`` holds the other maps, then observations as :func:`folded` has them."""
        maps, observations = context[:, : self._maps], self.encoded(context[:, self._maps :])
        out: Tensor = self.network(inputs, c_noise, condition, torch.cat([maps, observations], dim=1))
        return out

    def encoded(self, observations: Tensor) -> Tensor:
        """What the encoder makes of observations as :func:`folded` has them.

        (batch, 2 · channel · patch², lat, lon) to (batch, feature, lat, lon).
        """
        values, density = F.pixel_shuffle(observations, self._patch).chunk(2, dim=1)
        maps: Tensor = self.encoder(values, density)
        return maps


def folded(values: Tensor, density: Tensor, patch: int) -> Tensor:
    """Observations as maps on a grid ``patch`` times coarser, (batch, 2 · channel · patch², lat, lon)."""
    return F.pixel_unshuffle(torch.cat([values, density], dim=1), patch)


def enlarged(x: Tensor, factor: int) -> Tensor:
    """Bilinear interpolation to a grid ``factor`` times finer, round the circle of longitude; (batch, channel, lat, lon)."""
    padded = F.interpolate(circular_pad(x, 1), scale_factor=factor, mode="bilinear", align_corners=False)
    return padded[..., factor:-factor]

"""Building blocks for networks on a latitude-longitude grid: convolutions that close the circle of longitude.

Where the grid is a whole circle, the western neighbour of the first column is the last. Beyond the poles, and beyond the sides of
a region, there is nothing that a translation-invariant kernel could read, so these are padded with zeros (paper 001 §3.4). Residual
blocks are those of the DDPM++ network of Song et al. (2021) as tuned by Karras et al. (2022, arXiv 2206.00364, Table 1): group
norm, SiLU, convolution, twice, the second norm scaled and shifted by an embedding of the noise level.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def circular_pad(x: Tensor, width: int) -> Tensor:
    """Append ``width`` columns on either side from the other side; ``x`` (..., lon)."""
    return torch.cat([x[..., -width:], x, x[..., :width]], dim=-1) if width else x


class Conv2d(nn.Conv2d):
    """A convolution of odd kernel size, zero-padded in latitude, in longitude circular or zero-padded.

    Args:
        in_channels: channels read.
        out_channels: channels written.
        kernel: odd kernel size.
        gain: factor on the Xavier-uniform initial weights; 0 starts at the zero map.
        periodic: whether columns close the circle; False on a region.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        gain: float = 1.0,
        periodic: bool = True,
    ) -> None:
        padding = (kernel // 2, 0 if periodic else kernel // 2)
        super().__init__(in_channels, out_channels, kernel, padding=padding)
        self.periodic = periodic
        nn.init.xavier_uniform_(self.weight)
        with torch.no_grad():
            self.weight.mul_(gain)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        padded = circular_pad(input, self.kernel_size[1] // 2) if self.periodic else input
        return F.conv2d(padded, self.weight, self.bias, padding=self.padding)


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm over at most 32 groups of at least 4 channels where the count divides."""
    return nn.GroupNorm(math.gcd(min(32, max(1, channels // 4)), channels), channels, eps=1e-5)


class NoiseEmbedding(nn.Module):
    """Sinusoidal features of ``c_noise`` and a linear map of the condition through a two-layer perceptron.

    Frequencies run geometrically from 1/8 to 8 turns per unit of ``c_noise = ln(sigma)/4``: the slowest orders the whole
    range 0.002 to 80, the fastest resolves a twentieth of it.

    Args:
        features: number of sinusoidal features, even.
        width: size of the embedding.
        condition: size of the condition vector, 0 for none.
    """

    frequencies: Tensor

    def __init__(self, features: int, width: int, condition: int) -> None:
        super().__init__()
        self.register_buffer(
            "frequencies", 2 * math.pi * torch.logspace(-3, 3, features // 2, base=2.0), persistent=False
        )
        self.first = nn.Linear(features, width)
        self.second = nn.Linear(width, width)
        self.condition = nn.Linear(condition, width) if condition else None

    def forward(self, c_noise: Tensor, condition: Tensor | None) -> Tensor:
        """Embed ``c_noise`` (batch,) and ``condition`` (batch, k) as (batch, width)."""
        phase = c_noise[:, None] * self.frequencies
        hidden = self.first(torch.cat([phase.cos(), phase.sin()], dim=1))
        if self.condition is not None:
            if condition is None or condition.shape[-1] != self.condition.in_features:
                found = "none" if condition is None else f"{condition.shape[-1]} numbers"
                raise ValueError(f"condition: found {found}, expected {self.condition.in_features} numbers a sample")
            hidden = hidden + self.condition(condition)
        elif condition is not None and condition.shape[-1]:
            raise ValueError(
                f"condition: found {condition.shape[-1]} numbers, expected none (an unconditional network)"
            )
        return F.silu(self.second(F.silu(hidden)))


class Attention(nn.Module):
    """Self-attention over all points of the grid, added to its input.

    Args:
        channels: channels of the field.
        head: channels of one head, or None for a single head.
    """

    def __init__(self, channels: int, head: int | None = 64) -> None:
        super().__init__()
        self.heads = 1 if head is None else max(1, channels // head)
        self.norm = group_norm(channels)
        self.qkv = Conv2d(channels, 3 * channels, kernel=1)
        self.out = Conv2d(channels, channels, kernel=1, gain=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, lat, lon = x.shape
        qkv = self.qkv(self.norm(x)).reshape(batch, 3, self.heads, channels // self.heads, lat * lon)
        query, key, value = qkv.unbind(1)
        # Written out, not scaled_dot_product_attention: its fast kernels have no forward-mode derivative.
        weights = torch.softmax(query.transpose(-1, -2) @ key / math.sqrt(channels // self.heads), dim=-1)
        attended: Tensor = self.out((value @ weights.transpose(-1, -2)).reshape(x.shape))
        return x + attended


class ResidualBlock(nn.Module):
    """Two convolutions added to their input, modulated by the embedding, optionally changing resolution first.

    Args:
        in_channels: channels read.
        out_channels: channels written.
        embedding: size of the embedding vector.
        dropout: probability of zeroing a value before the second convolution.
        attention: whether self-attention follows.
        head: channels of an attention head, None for one head.
        resample: factor 0.5 (mean of 2 x 2), 1 or 2 (repetition) applied to the input of both branches.
        periodic: whether columns close the circle.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        embedding: int,
        dropout: float = 0.0,
        attention: bool = False,
        head: int | None = 64,
        resample: float = 1,
        periodic: bool = True,
    ) -> None:
        super().__init__()
        self.resample = resample
        self.norm1 = group_norm(in_channels)
        self.conv1 = Conv2d(in_channels, out_channels, periodic=periodic)
        self.affine = nn.Linear(embedding, 2 * out_channels)
        self.norm2 = group_norm(out_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = Conv2d(out_channels, out_channels, gain=1e-5, periodic=periodic)
        self.skip = (
            nn.Identity()
            if in_channels == out_channels and resample == 1
            else Conv2d(in_channels, out_channels, kernel=1)
        )
        self.attention = Attention(out_channels, head) if attention else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """``x`` (batch, in_channels, lat, lon), ``embedding`` (batch, embedding)."""
        hidden = self.conv1(resample(F.silu(self.norm1(x)), self.resample))
        scale, shift = self.affine(embedding)[..., None, None].chunk(2, dim=1)
        hidden = torch.addcmul(shift, self.norm2(hidden), scale + 1)
        hidden = self.conv2(self.dropout(F.silu(hidden)))
        summed = (self.skip(resample(x, self.resample)) + hidden) * math.sqrt(0.5)
        attended: Tensor = self.attention(summed)
        return attended


def resample(x: Tensor, factor: float) -> Tensor:
    """Halve by the mean of 2 x 2 points, double by repetition, or leave alone; ``x`` (batch, channel, lat, lon)."""
    if factor == 1:
        return x
    return F.avg_pool2d(x, 2) if factor < 1 else F.interpolate(x, scale_factor=2, mode="nearest")

r"""Transformers on a latitude-longitude grid of tokens, and the diffusion transformer (DiT).

Tokens (batch, lat, lon, width) attend within windows that are shifted in every second block and close the circle of longitude, or
to the whole globe. Positions enter by rotating queries and keys: half of each head by angles k λ with integer k, so that attention
depends on differences of longitude and is periodic; half by latitude.

References:
    Peebles and Xie 2023, arXiv 2212.09748 (DiT, adaLN-zero); Chen et al. 2023, arXiv 2310.00426 (one modulation for all blocks,
    cross-attention to a condition); Liu et al. 2021, arXiv 2103.14030 (windows); Su et al. 2021, arXiv 2104.09864 (rotation).
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genda.nn.layers import NoiseEmbedding

Angles = tuple[Tensor, Tensor]
"""Cosine and sine by which queries and keys are rotated, each (lat, lon, head / 2)."""


def grid_angles(tokens: tuple[int, int], head: int, finest: int | None = None) -> Angles:
    """Angles of a global grid of tokens (lat, lon) for heads of ``head`` channels.

    Args:
        tokens: rows and columns.
        head: channels.
        finest: columns of the finest of several grids whose tokens meet, at whose cells' centres the angles are then taken;
            those of this grid where None.

    Raises:
        ValueError: for heads that do not divide by four.
    """
    if head % 4:
        raise ValueError(f"attention: found heads of {head} channels, expected a multiple of 4")
    count, columns = head // 4, finest or tokens[1]
    within = 0.5 * (columns / tokens[1] - 1)  # of a coarse cell's centre, in columns of the finest
    longitude = 2 * math.pi * (torch.arange(tokens[1]) * (columns / tokens[1]) + within) / columns
    latitude = math.pi * (torch.arange(tokens[0]) + 0.5) / tokens[0]
    waves = torch.logspace(0, math.log2(max(2.0, columns / 2)), count, base=2.0).round()
    eastward = (longitude[:, None] * waves).expand(tokens[0], -1, -1)
    poleward = (latitude[:, None] * waves).unsqueeze(1).expand(-1, tokens[1], -1)
    angle = torch.cat([eastward, poleward], dim=-1)
    return angle.cos(), angle.sin()


def rotated(x: Tensor, angles: Angles) -> Tensor:
    """Rotate pairs of channels of (..., lat, lon, heads, head)."""
    cosine, sine = (a.unsqueeze(-2).to(x.dtype) for a in angles)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cosine - b * sine, a * sine + b * cosine], dim=-1)


class GridAttention(nn.Module):
    """Multi-head attention of tokens to tokens of the same grid, or to those of a context.

    Args:
        width: channels of a token.
        head: channels of a head.
        window: (lat, lon) tokens; (0, 0) is the whole grid.
        context: channels of the tokens attended to; the tokens themselves where None.
    """

    def __init__(self, width: int, head: int, window: tuple[int, int] = (0, 0), context: int | None = None) -> None:
        super().__init__()
        if width % head:
            raise ValueError(f"attention: found a width of {width}, expected a multiple of the heads' {head}")
        self.heads, self.window = width // head, window
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(context or width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, angles: Angles, shifted: bool = False, context: Tensor | None = None) -> Tensor:
        """``x`` (batch, lat, lon, width), ``context`` (batch, lat, lon, context) on the same grid of tokens."""
        batch, lat, lon, width = x.shape
        source = x if context is None else context
        query = rotated(self.query(x).unflatten(-1, (self.heads, -1)), angles)
        key, value = self.key_value(source).unflatten(-1, (2, self.heads, -1)).unbind(-3)
        key = rotated(key, angles)
        rows, columns = (self.window[0] or lat), (self.window[1] or lon)
        if lat % rows or lon % columns:
            raise ValueError(f"attention: found {lat} x {lon} tokens, expected multiples of the window {self.window}")
        # Latitude has ends: only longitude is shifted, so that no window joins the poles.
        shift = columns // 2 if shifted and columns < lon else 0
        query, key, value = (_windows(v.roll(-shift, dims=2), rows, columns) for v in (query, key, value))
        # Written out, not scaled_dot_product_attention: its fast kernels have no forward-mode derivative.
        weights = torch.softmax(query @ key.mT / math.sqrt(width // self.heads), dim=-1)
        joined = _joined(weights @ value, batch, lat, lon, rows, columns).roll(shift, dims=2)
        out: Tensor = self.out(joined)
        return out


def _windows(x: Tensor, rows: int, columns: int) -> Tensor:
    """(batch, lat, lon, heads, head) to (batch · windows, heads, rows · columns, head)."""
    batch, lat, lon, heads, head = x.shape
    x = x.view(batch, lat // rows, rows, lon // columns, columns, heads, head)
    return x.permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, heads, rows * columns, head)


def _joined(x: Tensor, batch: int, lat: int, lon: int, rows: int, columns: int) -> Tensor:
    """The inverse of :func:`_windows`, heads joined: (batch, lat, lon, width)."""
    heads, head = x.shape[1], x.shape[3]
    x = x.view(batch, lat // rows, lon // columns, heads, rows, columns, head)
    return x.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, lat, lon, heads * head)


class TransformerBlock(nn.Module):
    """Attention within a window, attention to a context if there is one, a perceptron; each normalised and added.

    Args:
        width: channels of a token.
        head: channels of a head.
        window: (lat, lon) tokens; (0, 0) is the whole grid.
        context: channels of the context's tokens, None for none.
        modulated: take scale, shift and gate of attention and perceptron from outside (adaLN).
        shifted: shift the windows by half.
        dropout: probability in the perceptron.
    """

    def __init__(
        self,
        width: int,
        head: int,
        window: tuple[int, int] = (0, 0),
        context: int | None = None,
        modulated: bool = False,
        shifted: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.shifted = shifted
        self.norm1 = nn.LayerNorm(width, elementwise_affine=not modulated)
        self.attention = GridAttention(width, head, window)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=not modulated)
        self.first, self.second = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)
        self.own = nn.Parameter(torch.zeros(6, width)) if modulated else None
        self.cross = None
        if context is not None:
            self.norm3 = nn.LayerNorm(width)
            self.cross = GridAttention(width, head, (0, 0), context)
            nn.init.zeros_(self.cross.out.weight)

    def forward(
        self, x: Tensor, angles: Angles, modulation: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        """``modulation`` (batch, 6, width) is added to the block's own; ``context`` (batch, lat, lon, context)."""
        scale1 = shift1 = scale2 = shift2 = x.new_zeros(())
        gate1 = gate2 = x.new_ones(())
        if self.own is not None and modulation is not None:
            parts = (modulation + self.own)[:, :, None, None].unbind(1)
            scale1, shift1, gate1, scale2, shift2, gate2 = parts
        x = x + gate1 * self.attention(self.norm1(x) * (1 + scale1) + shift1, angles, self.shifted)
        if self.cross is not None:
            if context is None:
                raise ValueError("attention: found no context, expected one")
            x = x + self.cross(self.norm3(x), angles, context=context)
        hidden = self.dropout(F.gelu(self.first(self.norm2(x) * (1 + scale2) + shift2), approximate="tanh"))
        out: Tensor = x + gate2 * self.second(hidden)
        return out


class DiT(nn.Module):
    """A noise-conditional transformer on fields, with maps as context.

    Args:
        in_channels: of the inputs.
        out_channels: of the output.
        context: channels of the maps it is conditioned on, 0 for none.
        grid: (lat, lon) of the fields.
        condition: size of the condition vector, 0 for none.
        conditioning: how the maps enter: joined to the input channels, by attention to their tokens in every block, or both.
        patch: side of the squares that are one token.
        width: channels of a token.
        depth: blocks.
        head: channels of a head.
        windows: of the blocks in turn, in tokens; (0, 0) is the whole grid.
        dropout: probability in the perceptrons.
    """

    cosine: Tensor
    sine: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        grid: tuple[int, int],
        context: int = 0,
        condition: int = 0,
        conditioning: Literal["concatenate", "cross", "both"] = "both",
        patch: int = 2,
        width: int = 256,
        depth: int = 8,
        head: int = 32,
        windows: tuple[tuple[int, int], ...] = ((0, 0),),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if grid[0] % patch or grid[1] % patch:
            raise ValueError(f"DiT: found a grid of {grid}, expected multiples of the patch, {patch}")
        self.patch = patch
        joins, crosses = (
            context > 0 and conditioning in kinds for kinds in (("concatenate", "both"), ("cross", "both"))
        )
        self.joins = joins
        tokens = (grid[0] // patch, grid[1] // patch)
        self.embed = NoiseEmbedding(128, width, condition)
        self.modulation = nn.Linear(width, 6 * width)  # one for all blocks, each of which has its own offset
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        self.stem = nn.Linear((in_channels + context * joins) * patch**2, width)
        self.context = nn.Linear(context * patch**2, width) if crosses else None
        self.rows = nn.Parameter(0.02 * torch.randn(tokens[0], 1, width))
        self.blocks = nn.ModuleList(
            TransformerBlock(
                width, head, windows[i % len(windows)], width if crosses else None, True, i % 2 == 1, dropout
            )
            for i in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, out_channels * patch**2)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        cosine, sine = grid_angles(tokens, head)
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)

    def forward(
        self, inputs: Tensor, c_noise: Tensor, condition: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        """``inputs`` (batch, in, lat, lon), ``context`` (batch, context, lat, lon), ``c_noise`` (batch,)."""
        if context is not None and self.joins:
            inputs = torch.cat([inputs, context], dim=1)
        embedding = self.embed(c_noise, condition)
        modulation = self.modulation(embedding).unflatten(-1, (6, -1))
        x = self.stem(_folded(inputs, self.patch)) + self.rows
        tokens = (
            None if self.context is None or context is None else self.context(_folded(context, self.patch)) + self.rows
        )
        for block in self.blocks:
            x = block(x, (self.cosine, self.sine), modulation, tokens)
        out: Tensor = F.pixel_shuffle(self.head(self.norm(x)).permute(0, 3, 1, 2), self.patch)
        return out


def _folded(x: Tensor, patch: int) -> Tensor:
    """(batch, channel, lat, lon) to tokens (batch, lat / patch, lon / patch, channel · patch²)."""
    return F.pixel_unshuffle(x, patch).permute(0, 2, 3, 1)

r"""Autoencoders between states and latents: z ~ N(mean, variance) = encode(x), x ≈ decode(z).

Both kinds fold squares of ``patch`` × ``patch`` points into channels and start as principal components of these: the linear map
that loses least (:meth:`Autoencoder.start_from`), to which a network adds what a linear map cannot. What no latent of this size can
hold is the reconstruction floor, which bounds every latent method.

    L = E ‖w (decode(z) - x)‖² + β KL(N(mean, variance) ‖ N(0, 1))

References:
    Kingma and Welling 2014, arXiv 1312.6114; Rombach et al. 2022, arXiv 2112.10752 (small KL weight); the latent of LO-SDA is
    that of Align-DA (arXiv 2505.22008), a VAEformer with patches of 4: here the ``transformer`` kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from genda.nn.layers import Conv2d
from genda.nn.transformer import TransformerBlock, grid_angles


class LatentDistribution(NamedTuple):
    """Mean and log variance, each (batch, latent, lat / patch, lon / patch)."""

    mean: Tensor
    log_variance: Tensor

    def draw(self, noise: Tensor) -> Tensor:
        return self.mean + (0.5 * self.log_variance).exp() * noise

    @property
    def divergence(self) -> Tensor:
        """KL from the standard normal per latent value, (batch,)."""
        terms = self.mean**2 + self.log_variance.exp() - 1 - self.log_variance
        return 0.5 * terms.flatten(1).mean(dim=1)


class Autoencoder(nn.Module):
    """A convolutional or transformer variational autoencoder.

    Args:
        channels: of the state.
        latent: channels of the latent.
        grid: (lat, lon) of the state; a network of kind ``conv`` takes any other grid too.
        kind: of the network on top of the linear maps; ``linear`` has none, and ``identity`` has no maps either: its latent is the
            state.
        patch: side of the squares folded into channels.
        width: channels of the network.
        depth: blocks of the encoder, and of the decoder.
        windows: of the transformer's blocks in tokens (lat, lon), taken in turn; (0, 0) attends to the whole globe.
        head: channels of an attention head.
    """

    def __init__(
        self,
        channels: int,
        latent: int,
        grid: tuple[int, int],
        kind: Literal["conv", "transformer", "linear", "identity"] = "conv",
        patch: int = 2,
        width: int = 128,
        depth: int = 3,
        windows: Sequence[tuple[int, int]] = ((6, 6), (2, 12), (12, 2), (0, 0)),
        head: int = 32,
    ) -> None:
        super().__init__()
        if grid[0] % patch or grid[1] % patch:
            raise ValueError(f"autoencoder: found a grid of {grid}, expected multiples of the patch, {patch}")
        if kind == "identity" and (patch != 1 or latent != channels):
            raise ValueError(
                f"autoencoder: found patch {patch}, {latent} latents, expected 1 and {channels}, the state"
            )
        self.patch, self.latent = patch, latent
        folded = channels * patch**2
        if not 0 < latent <= folded:
            raise ValueError(f"autoencoder: found {latent} latent channels, expected 1 to {folded}")
        identity = kind == "identity"
        self.analysis = nn.Identity() if identity else Conv2d(folded, latent, kernel=1)
        self.synthesis = nn.Identity() if identity else Conv2d(latent, folded, kernel=1)
        tokens = (grid[0] // patch, grid[1] // patch)

        def network(inputs: int, outputs: int) -> nn.Module:
            if kind == "transformer":
                return _Transformer(inputs, outputs, width, depth, windows, head, tokens)
            return _Convolutions(inputs, outputs, width, depth)

        self.encoder = None if kind in ("linear", "identity") else network(folded, latent)
        self.decoder = None if kind in ("linear", "identity") else network(latent, folded)
        self.log_variance = nn.Parameter(torch.full((latent, 1, 1), -6.0))

    def encode(self, x: Tensor) -> LatentDistribution:
        """States (batch, channel, lat, lon) to the distribution of their latents.

        Raises:
            ValueError: for a grid that does not divide by the patch.
        """
        if x.shape[-2] % self.patch or x.shape[-1] % self.patch:
            raise ValueError(
                f"autoencoder: found a grid of {tuple(x.shape[-2:])}, expected multiples of the patch, {self.patch}"
            )
        folded = F.pixel_unshuffle(x, self.patch)
        mean = self.analysis(folded)
        if self.encoder is not None:
            mean = mean + self.encoder(folded)
        return LatentDistribution(mean, self.log_variance.expand_as(mean))

    def decode(self, z: Tensor) -> Tensor:
        """Latents (batch, latent, ...) to states (batch, channel, lat, lon)."""
        folded = self.synthesis(z)
        if self.decoder is not None:
            folded = folded + self.decoder(z)
        return F.pixel_shuffle(folded, self.patch)

    def decode_linear(self, z: Tensor) -> Tensor:
        """What the linear map alone makes of latents, as :meth:`decode`."""
        return F.pixel_shuffle(self.synthesis(z), self.patch)

    @property
    def linear_weight(self) -> Tensor:
        """The matrix of :meth:`decode_linear`, less its bias, within a patch: (channel · patch², latent)."""
        linear = self.synthesis
        return linear.weight.detach()[:, :, 0, 0] if isinstance(linear, Conv2d) else torch.eye(self.latent)

    def linear_rows(self, index: NDArray[np.intp], grid: tuple[int, int]) -> sp.csr_array:
        """Rows of the matrix of :meth:`decode_linear`, less its bias, on flattened latents.

        Args:
            index: elements of the flattened state, shape (k,).
            grid: (lat, lon) of the latent.

        Returns:
            shape (k, latent * lat * lon).
        """
        cells = grid[0] * grid[1]
        channel, point = np.divmod(index, cells * self.patch**2)
        row, column = np.divmod(point, grid[1] * self.patch)
        folded = (channel * self.patch + row % self.patch) * self.patch + column % self.patch
        cell = (row // self.patch) * grid[1] + column // self.patch
        columns = cell[:, None] + cells * np.arange(self.latent)
        starts = self.latent * np.arange(len(index) + 1)
        values = self.linear_weight.cpu().double().numpy()[folded]
        return sp.csr_array((values.ravel(), columns.ravel(), starts), shape=(len(index), self.latent * cells))

    @torch.no_grad()
    def start_from(self, x: Tensor, weights: Tensor) -> None:
        """Set the linear maps to the principal components of patches of ``x`` (sample, channel, lat, lon), of unit variance;
        nothing for an identity.

        Args:
            x: states of mean zero.
            weights: of each channel in the loss, shape (channel,).
        """
        if not isinstance(self.analysis, Conv2d) or not isinstance(self.synthesis, Conv2d):
            return
        root = weights.sqrt().repeat_interleave(self.patch**2).double()
        folded = F.pixel_unshuffle(x, self.patch).transpose(0, 1).flatten(1)
        covariance = torch.zeros(len(folded), len(folded), dtype=torch.float64)
        for block in torch.split(folded, 1 << 16, dim=1):
            covariance += block.double() @ block.double().T
        covariance *= torch.outer(root, root) / folded.shape[1]
        values, vectors = torch.linalg.eigh(covariance)
        std, leading = values[-self.latent :].flip(0).clamp(min=1e-12).sqrt(), vectors[:, -self.latent :].flip(1)
        self.analysis.weight.copy_((leading / std).T.mul(root)[..., None, None])
        self.synthesis.weight.copy_((leading * std / root[:, None])[..., None, None])


class _Convolutions(nn.Module):
    """Residual 3 × 3 convolutions; starts as zero."""

    def __init__(self, inputs: int, outputs: int, width: int, depth: int) -> None:
        super().__init__()
        self.stem = Conv2d(inputs, width, kernel=1)
        self.first = nn.ModuleList(Conv2d(width, width) for _ in range(depth))
        self.second = nn.ModuleList(Conv2d(width, width, gain=0.1) for _ in range(depth))
        self.head = Conv2d(width, outputs, gain=0.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for first, second in zip(self.first, self.second, strict=True):
            x = x + second(F.silu(first(F.silu(x))))
        head: Tensor = self.head(F.silu(x))
        return head


class _Transformer(nn.Module):
    """Tokens of one point each, attending within windows and to the globe in turn; starts as zero."""

    cosine: Tensor
    sine: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int,
        depth: int,
        windows: Sequence[tuple[int, int]],
        head: int,
        tokens: tuple[int, int],
    ) -> None:
        super().__init__()
        self.stem = nn.Linear(inputs, width)
        self.rows = nn.Parameter(0.02 * torch.randn(tokens[0], 1, width))
        self.blocks = nn.ModuleList(TransformerBlock(width, head, windows[i % len(windows)]) for i in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        cosine, sine = grid_angles(tokens, head)
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.stem(x.permute(0, 2, 3, 1)) + self.rows
        for block in self.blocks:
            tokens = block(tokens, (self.cosine, self.sine))
        out: Tensor = self.head(self.norm(tokens)).permute(0, 3, 1, 2)
        return out

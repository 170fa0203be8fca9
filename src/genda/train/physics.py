r"""The physics term of a prior's training (PRDO): what the equations leave over of the estimate at every noise level.

    L = score matching + λ(σ) ‖R(G(e_t; σ))‖²,        G = x_b + decode(z_b + m + s D(e_t; σ)) - decode(z_b)

R is one of the residuals of :mod:`genda.physics.residuals`, in units of a truth's; λ(σ) is c times

    reciprocal    1 / the mean squared error of the Gaussian at this level: the reciprocal variance of the estimate
    step          1 below a level, 0 above
    constant      1

Nothing of it is left at sampling time.

References:
    PhyDA (arXiv 2505.12882), equation 7; Bastek, Sun and Kochmann 2024, arXiv 2403.14404 (reciprocal variance).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from genda.nn.autoencoder import Autoencoder
from genda.physics import ResidualNorm
from genda.train.config import PhysicsConfig


class PhysicsTerm(nn.Module):
    """λ(σ) ‖R(G)‖² of a batch.

    Args:
        autoencoder: decodes increments; it does not learn.
        norm: of the residual.
        std: of channels, physical units, shape (channel,).
        config: c, its schedule and what counts.
    """

    std: Tensor

    def __init__(self, autoencoder: Autoencoder, norm: ResidualNorm, std: Tensor, config: PhysicsConfig) -> None:
        super().__init__()
        self.autoencoder, self.norm, self._config = autoencoder, norm, config
        self.register_buffer("std", std, persistent=False)

    def forward(
        self,
        estimate: Tensor,
        sigma: Tensor,
        error_std: Tensor,
        latent: Tensor,
        mean: Tensor,
        scale: Tensor,
        background: Tensor,
        other: Tensor,
        seed: Tensor,
    ) -> Tensor:
        """Mean over the samples it is taken of, ().

        Args:
            estimate: D(e_t; σ), shape (batch, latent, lat, lon).
            sigma: shape (batch,).
            error_std: root mean squared error of the Gaussian at these levels, (batch, 1, 1, 1).
            latent, mean, scale: z_b, m and s, such that z = z_b + m + s e.
            background: x_b in physical units, shape (batch, channel, lat, lon).
            other: what the residual holds states against, as x_b; the truth, or the truth before.
            seed: of the rows and levels that count, ().
        """
        count = max(1, round(self._config.share * len(estimate)))
        with torch.autocast(estimate.device.type, enabled=False):
            first = slice(0, count)
            z = latent[first] + mean[first] + scale[first] * estimate[first].float()
            decoded = self.autoencoder.decode(z) - self.autoencoder.decode(latent[first]).detach()
            x = background[first] + self.std.view(-1, 1, 1) * decoded
            generator = torch.Generator().manual_seed(int(seed))
            squares = torch.stack(list(self.norm(x, other[first], generator).values()))
            if self._config.excess:
                squares = (squares - 1).clamp(min=0)
            weight = self._weight(sigma[first], error_std[first].flatten())
            return (weight * squares.mean(dim=0)).mean()

    def _weight(self, sigma: Tensor, error_std: Tensor) -> Tensor:
        config = self._config
        if config.schedule == "reciprocal":
            return config.weight / error_std**2
        return config.weight * (sigma < config.level if config.schedule == "step" else torch.ones_like(sigma))

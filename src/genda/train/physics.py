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

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from genda.diffusion.noise import derived_seed
from genda.latent_model import AutoencoderModel
from genda.nn.autoencoder import Autoencoder
from genda.physics import (
    BalanceResidual,
    Enforcement,
    PrimitiveEquations,
    Residual,
    ResidualNorm,
    TendencyResidual,
    TwoTimeResidual,
)
from genda.physics.residuals import mean_squares
from genda.train.config import DataConfig, PhysicsConfig
from genda.train.latents import Latents
from genda.train.pairs import Pairs, truth_before


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
            error_std: root mean squared error of the Gaussian at these levels, (batch,).
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
            weight = self._weight(sigma[first], error_std[first])
            return (weight * squares.mean(dim=0)).mean()

    def _weight(self, sigma: Tensor, error_std: Tensor) -> Tensor:
        config = self._config
        if config.schedule == "reciprocal":
            return config.weight / error_std**2
        return config.weight * (sigma < config.level if config.schedule == "step" else torch.ones_like(sigma))


class PhysicsStates:
    """What the residuals of training samples are taken of and held against.

    Args:
        config: of the term.
        data: where truths come from.
        space: the autoencoder, and what states mean.
        pairs: of training.
    """

    def __init__(self, config: PhysicsConfig, data: DataConfig, space: AutoencoderModel, pairs: Pairs) -> None:
        self._config, self._space, self._pairs = config, space, pairs
        self._other, seconds = pairs.truth, 0.0
        if config.residual == "two-times":
            self._other, seconds = truth_before(data, pairs.times, space.normalisation)
        dynamics = PrimitiveEquations(space.grid, space.channels, enforcement=Enforcement(share=config.rows))
        residuals: dict[str, Callable[[], Residual]] = {
            "tendencies": lambda: TendencyResidual(dynamics),
            "two-times": lambda: TwoTimeResidual(dynamics, seconds),
            "balances": lambda: BalanceResidual(dynamics),
        }
        self._residual = residuals[config.residual]()

    def term(self, saved: Mapping[str, Tensor] | None) -> PhysicsTerm:
        """The term, its residual in units of those of training truths, or of the run that is gone on with."""
        area = torch.as_tensor(self._space.grid.area_weights).float()
        scale = self._scale(area) if saved is None else saved["physics.norm.scale"]
        norm = ResidualNorm(self._residual, area, scale)
        return PhysicsTerm(self._space.autoencoder, norm, self._space.normalisation.std, self._config)

    def states(self, samples: Latents, index: NDArray[np.int64], seeds: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Backgrounds and what their analyses are held against, in physical units, turned as samples are; a seed."""
        chosen, normalisation = torch.as_tensor(index), self._space.normalisation
        middle = normalisation.mean_at(samples.times[index])
        turned = torch.stack([m.roll(int(turn), -1) for m, turn in zip(middle, samples.turn[chosen], strict=True)])
        background, other = (
            samples.states(part, chosen) * normalisation.std.view(-1, 1, 1) + turned
            for part in (self._pairs.background, self._other)
        )
        return background, other, torch.tensor(derived_seed(seeds[0], "physics"))

    @torch.no_grad()
    def _scale(self, area: Tensor, count: int = 64) -> Tensor:
        """Root mean square of each plane over training truths, (plane,)."""
        chosen = np.linspace(0, len(self._pairs.times) - 1, min(count, len(self._pairs.times))).round().astype(int)
        truth, other = (
            self._space.normalisation.physical(part[chosen].float(), self._pairs.times[chosen])
            for part in (self._pairs.truth, self._other)
        )
        rows = [
            mean_squares(*self._residual.of_truth(x, o), area)
            for x, o in zip(torch.split(truth, 8), torch.split(other, 8), strict=True)
        ]
        return torch.cat(rows).mean(dim=0).sqrt()

r"""The physics term of a prior's training (PRDO): what the equations leave over of the estimate at every noise level.

    L = score matching + λ(σ) [‖R(G(D))‖² - ‖R(G(e))‖²]₊,        G(e) = x_b + decode(z_b + m + s e) - decode(z_b)

R is one of the residuals of :mod:`genda.physics.residuals`, in units of a truth's, and G(e) the truth as far as the latent can
tell, m what latent errors are counted from: what it leaves over is no fault of the estimate. Tendencies are held against those of
G(e), which leaves nothing. λ(σ) is

    reciprocal    c / the mean squared error of the Gaussian, the reciprocal variance of the estimate; constant below a level
    step          c below a level, 0 above
    constant      c

Nothing of it is left at sampling time.

References:
    PhyDA (arXiv 2505.12882), equation 7; Bastek, Sun and Kochmann 2024, arXiv 2403.14404 (reciprocal variance).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from genda.latent_model import AutoencoderModel
from genda.nn.autoencoder import Autoencoder
from genda.physics import (
    BalanceResidual,
    Differentiation,
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
    """λ(σ) [‖R(G(D))‖² - ‖R(G(e))‖²]₊ of a batch.

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

    @property
    def level(self) -> float:
        """Below which a reciprocal weight grows no more."""
        return self._config.level

    def forward(
        self,
        estimate: Tensor,
        e: Tensor,
        sigma: Tensor,
        error_std: Tensor,
        latent: Tensor,
        mean: Tensor,
        scale: Tensor,
        background: Tensor,
        before: Tensor | None = None,
    ) -> Tensor:
        """Mean over the samples it is taken of, every n-th of the batch, ().

        Args:
            estimate, e: D(e_t; σ) and e, shape (batch, latent, lat, lon).
            sigma: shape (batch,).
            error_std: root mean squared error of the Gaussian at these levels or at :attr:`level`, whichever is higher, (batch,).
            latent, mean, scale: z_b, m and s, such that z = z_b + m + s e.
            background: x_b in physical units, shape (samples, channel, lat, lon).
            before: the truth a step before, as x_b, where the residual is between two times.
        """
        chosen = slice(None, None, self._config.every)
        with torch.autocast(estimate.device.type, enabled=False):
            latent, shift, scale = latent[chosen], mean[chosen], scale[chosen]
            with torch.no_grad():
                start = self.autoencoder.decode(latent)

            def state(increment: Tensor) -> Tensor:
                decoded = self.autoencoder.decode(latent + shift + scale * increment[chosen].float())
                return background + self.std.view(-1, 1, 1) * (decoded - start)

            with torch.no_grad():
                truth = state(e)
            other = truth if before is None else before
            squares = self._squares(state(estimate), other)
            if self._config.residual != "tendencies":
                with torch.no_grad():
                    share = self._squares(truth, other)
                squares = (squares - share).clamp(min=0)
            return (self._weight(sigma[chosen], error_std[chosen]) * squares.mean(dim=0)).mean()

    def _squares(self, x: Tensor, other: Tensor) -> Tensor:
        return torch.stack(list(self.norm(x, other).values()))

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
        self._before, seconds = None, 0.0
        if config.residual == "two-times":
            self._before, seconds = truth_before(data, pairs.times, space.normalisation)
        dynamics = PrimitiveEquations(
            space.grid,
            space.channels,
            differentiation=Differentiation(config.meridional, None, config.filter_order, config.polar_cap),
            enforcement=Enforcement(config.latitude, config.interior),
            closure=config.closure,
            condensation=config.condensation,
        )
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

    def states(self, samples: Latents, index: NDArray[np.int64]) -> tuple[Tensor, ...]:
        """Backgrounds of those of a batch that the term is taken of, and truths before where it needs them.

        In physical units, turned as samples are.
        """
        chosen = torch.as_tensor(index[:: self._config.every])
        normalisation = self._space.normalisation
        middle = normalisation.mean_at(samples.times[chosen.numpy()])
        turned = torch.stack([m.roll(int(turn), -1) for m, turn in zip(middle, samples.turn[chosen], strict=True)])
        parts = [self._pairs.background, *([] if self._before is None else [self._before])]
        return tuple(samples.states(part, chosen) * normalisation.std.view(-1, 1, 1) + turned for part in parts)

    @torch.no_grad()
    def _scale(self, area: Tensor, count: int = 64) -> Tensor:
        """Root mean square of each plane over training truths, (plane,)."""
        chosen = np.linspace(0, len(self._pairs.times) - 1, min(count, len(self._pairs.times))).round().astype(int)
        truth, other = (
            self._space.normalisation.physical(part[chosen].float(), self._pairs.times[chosen])
            for part in (self._pairs.truth, self._pairs.truth if self._before is None else self._before)
        )
        planes = [
            self._residual.of_truth(x, o) for x, o in zip(torch.split(truth, 8), torch.split(other, 8), strict=True)
        ]
        squares = torch.cat([mean_squares(*each, area) for each in planes])
        counts = torch.cat([where.any(dim=(-2, -1)) for _, where in planes])
        return (squares.sum(dim=0) / counts.sum(dim=0).clamp(min=1)).sqrt()

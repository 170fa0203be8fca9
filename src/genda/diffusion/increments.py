r"""A prior of the truth given its background, as a diffusion of latent increments.

With an autoencoder and z_b = encode(x_b), what is diffused is the scaled error of the background in latent space,

    e = (encode(x) - z_b - m) / s,        x = x_b + decode(z_b + m + s e) - decode(z_b)

with m the mean of such errors, and where backgrounds are damped what z_b tells of them besides (:mod:`genda.diffusion.damping`);
and the denoiser is a network that corrects a Gaussian of such errors, with z_b and static maps as context:

    D(e_t; sigma | x_b) = W_sigma(e_t) + c_out(sigma) F([c_in e_t, W_sigma(e_t)]; ln(sigma)/4, condition, [z_b, static]).

Where the background comes with members, their localised covariance can join the Gaussian (:meth:`Increments.joined_by`), so that
the network corrects what knows of the day already.

Decoding differences about x_b itself leaves in place what the latent can't hold of it: only the part of the *error* beyond the
latent is lost, not that of the state. Without the network this is 3D-Var with the Gaussian's covariance; the network adds what
depends on the flow. Dropping the context now and then in training makes the same network the prior of errors of any background.

A network may be shown observations too (:class:`genda.nn.observation_encoder.ObservationConditioned`): then the denoiser is that
of p(e | x_b, y) as far as the network knows, and without them, dropped now and then too, that of p(e | x_b). Where it has been
trained to, its increments are then counted from the analysis m_y that the Gaussian makes of the same observations, m + s m_y in
place of m above, and it sees m_y, so that what is left to learn is what a Gaussian can't know.

References:
    Fei et al. 2025, arXiv 2510.22562 (LO-SDA: diffusion of z itself); Karras et al. 2022 for the preconditioning.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from genda.diffusion.damping import expected_errors
from genda.diffusion.denoiser import per_sample
from genda.diffusion.hybrid_gaussian import EnsembleBase
from genda.diffusion.observed_maps import observed_maps
from genda.linalg import Diagonal
from genda.nn.autoencoder import Autoencoder
from genda.nn.observation_encoder import folded
from genda.observations.operators import Composed, LinearOperator
from genda.problem import Problem, Source


class IncrementDenoiser(nn.Module):
    """A network that corrects a Gaussian of increments, with maps as context.

    Args:
        network: ``(inputs, c_noise, condition, context) -> (batch, latent, lat, lon)``.
        base: the Gaussian denoiser W, with ``error_std``.
        sees_base: whether the network is given W(e_t) beside c_in e_t; False is EDM to the letter.
        share: of the correction that is used: less than all for a Gaussian that knows more than the one it was trained to correct.
    """

    def __init__(self, network: nn.Module, base: nn.Module, sees_base: bool = True, share: float = 1.0) -> None:
        super().__init__()
        self.network, self.base, self.sees_base, self.share = network, base, sees_base, share

    def forward(
        self, e_t: Tensor, sigma: Tensor, condition: Tensor | None = None, context: Tensor | None = None
    ) -> Tensor:
        sigma = sigma.to(e_t).reshape(-1).expand(e_t.shape[0])
        wiener = self.base(e_t, sigma)
        inputs = [e_t / per_sample((sigma**2 + 1).sqrt(), e_t)]
        if self.sees_base:
            inputs.append(wiener)
        correction = self.network(torch.cat(inputs, dim=1), sigma.log() / 4, condition, context)
        return wiener + self.share * self.base.error_std(sigma) * correction  # type: ignore[operator, no-any-return]


class IncrementPrior(nn.Module):
    """p(x | x_b) as autoencoder, denoiser and scales.

    Args:
        autoencoder: of states in normalised anomalies.
        denoiser: of increments.
        mean: m, of latent errors, shape (latent, lat or 1, lon or 1).
        scale: s, shape (latent, 1, 1).
        static: maps given as context beside z_b, on the latent's grid, shape (static, lat, lon); may be empty.
        floor: variance of the part of an error that the latent can't hold, by channel of the state, shape (channel,).
        error: variance of background errors by channel of the state, shape (channel,), of a network that is shown observations.
        damping: of backgrounds, what they tell of their error (:mod:`genda.diffusion.damping`), shape (modes + 1,); None where
            increments are about the mean alone.
        about_analysis: whether what a network that is shown observations corrects are errors of the Gaussian's own analysis.
    """

    mean: Tensor
    scale: Tensor
    static: Tensor
    floor: Tensor
    error: Tensor | None
    damping: Tensor | None

    def __init__(
        self,
        autoencoder: Autoencoder,
        denoiser: IncrementDenoiser,
        *,
        mean: Tensor,
        scale: Tensor,
        static: Tensor,
        floor: Tensor,
        error: Tensor | None = None,
        damping: Tensor | None = None,
        about_analysis: bool = False,
    ) -> None:
        super().__init__()
        self.autoencoder, self.denoiser, self.about_analysis = autoencoder, denoiser, about_analysis
        fitted = {"mean": mean, "scale": scale, "static": static, "floor": floor, "error": error, "damping": damping}
        for name, value in fitted.items():
            self.register_buffer(name, value)

    def scaled(self, factor: float) -> IncrementPrior:
        """The prior of errors √factor as large, their mean too: of backgrounds better or worse than those it was trained on.

        Raises:
            ValueError: for a factor that is not positive.
        """
        if not 0 < factor < math.inf:
            raise ValueError(f"prior: found a background covariance scaled by {factor:g}, expected more than 0")
        error = None if self.error is None else factor * self.error
        damping = None if self.damping is None else (factor * self.damping).clamp(max=1.0)
        mean, scale = (factor**0.5 * value for value in (self.mean, self.scale))
        scaled = IncrementPrior(
            self.autoencoder,
            self.denoiser,
            mean=mean,
            scale=scale,
            static=self.static,
            floor=factor * self.floor,
            error=error,
            damping=damping,
            about_analysis=self.about_analysis,
        )
        return scaled.train(self.training)

    def context(self, latent: Tensor, analysis: Tensor, observations: Tensor) -> Tensor:
        """What the network is shown.

        Args:
            latent: z_b, shape (batch, latent, lat, lon).
            analysis: m_y, shape (1, j, lat, lon); j = 0 for a network whose increments are about the background.
            observations: shape (1, k, lat, lon); k = 0 for a network that is shown none.

        Returns:
            shape (batch, latent + static + j + k, lat, lon).
        """
        maps = (v.to(latent).expand(len(latent), -1, -1, -1) for v in (self.static, analysis, observations))
        return torch.cat([latent, *maps], dim=1)

    @torch.no_grad()
    def about(self, background: Tensor, condition: Tensor | None, *, averaged: bool = False) -> Increments:
        """The prior given one background, shape (channel, lat, lon), and a condition, shape (k,).

        One that is ``averaged`` over members is damped already, and is left as it is.
        """
        latent = self.autoencoder.encode(background.unsqueeze(0)).mean
        nothing = torch.zeros_like(background.unsqueeze(0))
        unseen = latent[:, :0] if self.error is None else self.encoded(nothing, nothing, latent)
        analysis = torch.zeros_like(latent) if self.about_analysis else latent[:, :0]
        decoded = self.autoencoder.decode(latent)
        centre = self.mean.unsqueeze(0).expand_as(latent)
        if self.damping is not None and not averaged:
            usual = self.autoencoder.encode(nothing).mean - self.mean
            told = expected_errors(self.denoiser.base, (latent - usual) / self.scale, self.damping)  # type: ignore[arg-type]
            centre = centre + self.scale * told
        denoiser = self.denoiser
        if self.error is not None:  # observations are encoded once
            denoiser = IncrementDenoiser(denoiser.network.network, denoiser.base, denoiser.sees_base)  # type: ignore[arg-type]
        return Increments(self, background, latent, decoded, condition, denoiser, analysis, unseen, centre)

    @torch.no_grad()
    def encoded(self, values: Tensor, density: Tensor, latent: Tensor) -> Tensor:
        """Observations as the network's encoder has them, see :func:`genda.diffusion.observed_maps.observed_maps`."""
        patch = values.shape[-1] // latent.shape[-1]
        maps: Tensor = self.denoiser.network.encoded(folded(values, density, patch))  # type: ignore[operator]
        return maps


@dataclass(frozen=True)
class Increments:
    """p(e | x_b): a denoiser, and the way between increments and states.

    Attributes:
        prior: the prior.
        background: x_b, shape (channel, lat, lon).
        latent: z_b, shape (1, latent, lat, lon).
        decoded: decode(z_b), shape (1, channel, lat, lon).
        condition: shape (k,), or None.
        denoiser: of increments; that of the prior, or another about the same network.
        analysis: m_y, which increments are counted from where the network was trained to, shape (1, latent or 0, lat, lon).
        observations: as the network's encoder has them, or what it makes of none, shape (1, k, lat, lon).
        centre: what latent errors are about, m + s (m_b + m_y) with m_b what the background itself tells, where it is damped,
            shape (1, latent, lat, lon).
    """

    prior: IncrementPrior
    background: Tensor
    latent: Tensor
    decoded: Tensor
    condition: Tensor | None
    denoiser: IncrementDenoiser
    analysis: Tensor
    observations: Tensor
    centre: Tensor
    _bends: deque[tuple[Tensor, Tensor]] = field(
        default_factory=lambda: deque(maxlen=2), init=False, repr=False, compare=False
    )

    @torch.no_grad()
    def joined_by(self, members: Tensor, ensemble: EnsembleBase) -> Increments:
        """The same with the localised covariance of background members, (member, channel, lat, lon), in the network's Gaussian.

        Raises:
            ValueError: see :meth:`genda.diffusion.hybrid_gaussian.EnsembleBase.joined`.
        """
        latents = self.prior.autoencoder.encode(members).mean
        base = ensemble.joined(self.denoiser.base, (latents - latents.mean(dim=0)) / self.prior.scale)
        denoiser = IncrementDenoiser(self.denoiser.network, base, self.denoiser.sees_base, ensemble.correction)
        return replace(self, denoiser=denoiser)

    def shown(self, problem: Problem) -> Increments:
        """The same with the network told the observations of states.

        Raises:
            ValueError: for a network that was not trained to see any, and as :func:`genda.diffusion.observed_maps.observed_maps`.
        """
        if self.prior.error is None:
            raise ValueError(
                "prior: found a network that sees no observations, expected one trained to (observations: …)"
            )
        maps = observed_maps(problem, self.background, self.prior.error)
        return replace(self, observations=self.prior.encoded(*maps, self.latent))

    def counted_from(self, analysis: Tensor) -> Increments:
        """The same with increments counted from one of them, m_y, shape (1, latent, lat, lon), which the network sees."""
        return replace(self, analysis=analysis, centre=self.centre + self.prior.scale * analysis)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an increment, (latent, lat, lon)."""
        _, channels, lat, lon = self.latent.shape
        return channels, lat, lon

    def __call__(self, x_t: Tensor, sigma: Tensor, condition: Tensor | None = None) -> Tensor:
        """E[e | e_t, x_b], with ``x_t`` the noisy increments e_t."""
        batch = len(x_t)
        given = None if self.condition is None else self.condition.to(x_t).expand(batch, -1)
        context = self.prior.context(self.latent, self.analysis, self.observations).expand(batch, -1, -1, -1)
        estimate: Tensor = self.denoiser(x_t, sigma, given, context)
        return estimate

    def conditional_covariance(self, v: Tensor, sigma: Tensor) -> Tensor:
        """That of the Gaussian the network corrects."""
        product: Tensor = self.denoiser.base.conditional_covariance(v, sigma)  # type: ignore[operator]
        return product

    @property
    def local_covariance(self) -> Callable[[Tensor], Tensor] | None:
        """:meth:`conditional_covariance` between the channels of a point, where the Gaussian can tell."""
        return getattr(self.denoiser.base, "local_covariance", None)

    def decode(self, e: Tensor) -> Tensor:
        """Increments (batch, latent, ...) to states (batch, channel, lat, lon)."""
        z = self.latent + self.centre + self.prior.scale * e
        return self.background + self.prior.autoencoder.decode(z) - self.decoded

    def decode_with_near_gradient(self, e: Tensor) -> Tensor:
        """As :meth:`decode`, but with the derivatives of the decoder's linear map.

        The decoder hardly bends, so that the inner loop of a Gauss–Newton method loses nothing by them, and it asks for hundreds:
        incremental variational assimilation with a simplified inner operator (Courtier et al. 1994, Q. J. R. Meteorol. Soc. 120,
        1367). What the decoder adds is kept for the last two increments: where an optimiser started, and where it is.
        """
        linear = self.prior.autoencoder.decode_linear(self.prior.scale * e)
        for known, bend in self._bends:
            if known.shape == e.shape and torch.equal(known, e):
                return linear + bend
        with torch.no_grad():
            bend = self.decode(e) - linear
        self._bends.append((e.detach().clone(), bend))
        return linear + bend

    def encode(self, x: Tensor) -> Tensor:
        """States to increments."""
        return (self.prior.autoencoder.encode(x).mean - self.latent - self.centre) / self.prior.scale

    def observed(self, problem: Problem, near: bool = False) -> Problem:
        """The same observations as functions of the increment; what the latent can't hold joins their errors.

        Args:
            problem: observations of states.
            near: give them the derivatives of the decoder's linear map, see :meth:`decode_with_near_gradient`.
        """
        return Problem(self.shape, tuple(self._observed(source, near) for source in problem.sources), time=problem.time)

    def _observed(self, source: Source, near: bool) -> Source:
        source = source.independent
        known: Tensor = source.covariance.variance  # type: ignore[attr-defined]
        variance = known + (self._representativeness(source) * source.weight).to(known)
        operator: Composed
        if near and isinstance(source.operator, LinearOperator):
            operator = NearlyLinear(self, source.operator)
        else:
            operator = Composed(self.decode_with_near_gradient if near else self.decode, source.operator)
        return Source(source.values, operator, Diagonal(variance), source.name, source.weight)

    def _representativeness(self, source: Source) -> Tensor:
        """Variance of what the latent can't hold of each observation, (m,).

        Taken as one error of the whole neighbourhood in each channel, independent of the others'.
        """
        background = self.background.unsqueeze(0)
        variance = torch.zeros(len(source.values)).to(background)
        for channel, floor in enumerate(self.prior.floor.tolist()):
            field = torch.zeros_like(background)
            field[:, channel] = floor**0.5
            variance += source.operator.tangent(background, field)[0] ** 2
        return variance


class NearlyLinear(Composed):
    """A linear operator on what increments decode to, with the derivatives of the decoder's linear map: a constant matrix.

    Args:
        about: decodes.
        inner: the operator on states.
    """

    def __init__(self, about: Increments, inner: LinearOperator) -> None:
        super().__init__(about.decode_with_near_gradient, inner)
        self._about, self._rows = about, inner.matrix

    @cached_property
    def matrix(self) -> sp.csr_array:
        """H', shape (m, latent * lat * lon)."""
        used, shape = np.unique(self._rows.indices).astype(np.intp), self._about.shape
        scale = self._about.prior.scale.expand(shape).flatten().double().cpu().numpy()
        linear = self._about.prior.autoencoder.linear_rows(used, shape[1:])
        return sp.csr_array(self._rows[:, used] @ linear @ sp.diags_array(scale))

r"""Algorithm 1 of the multimodal paper: the EDM stochastic Heun sampler, on any denoiser, prior or posterior.

With the likelihood score s_l folded into the denoiser, D_post = D + sigma² s_l, the paper's drift
(x - D)/t - t s_l is (x - D_post)/t, so that one sampler serves every guidance:

    gamma_i = min(S_churn / N, sqrt 2 - 1) if t_i in [S_tmin, S_tmax] else 0
    t^  = t_i (1 + gamma_i),   x^ = x + sqrt(t^² - t_i²) S_noise eps
    d   = (x^ - D_post(x^; t^)) / t^,            x' = x^ + (t_{i+1} - t^) d
    d'  = (x' - D_post(x'; t_{i+1})) / t_{i+1},  x_{i+1} = x^ + (t_{i+1} - t^)(d + d')/2   unless t_{i+1} = 0

``multistep`` is second-order with one call a step: where Heun's method looks ahead, it extrapolates from the step before, in the
logarithm of the level, h = ln(t_i / t_{i+1}) and h' that of the step before (DPM-Solver++ 2M):

    D = D_i + h / (2 h') (D_i - D_{i-1}),         x_{i+1} = e^{-h} x_i + (1 - e^{-h}) D

``reuse_likelihood`` keeps s_l of the prediction in the correction (the paper's optional line 15), which saves the second
gradient. Langevin corrections (SDA) follow each step if asked for. Churn 0 is the deterministic Heun sampler.

``fresh`` draws a share of the noise of every new level anew, x' = D + t_{i+1} (√(1 - f) n^ + √f eps) with n^ = (x - D)/t and
f = fresh (1 - t_{i+1}²/t²), at most 1: at 0 nothing, at 1 as ancestral sampling does, above it ever more, as latent optimisation
re-injects its solutions (ReSample, arXiv 2307.08123), at the price of spread.
With ``antithetic`` members come in pairs whose noise is opposite: where the posterior is nearly Gaussian they lie on either side of
its mean, and the mean of the ensemble is that of many more independent members. Scores that take members as independent (fair
CRPS, spread/skill) flatter such an ensemble, by some per cent with 16 members: :func:`genda.verify.field_statistics` can be told.
RePaint walks the levels back and forth (arXiv 2201.09865): after ``jump`` steps it goes back by noise, ``repeats`` times in all.

The first level must drown whatever the start does not know. From zero that takes sigma_max = 80, since a planetary wave of
unit variance on thousands of grid points is 30 times the noise of one point; from a draw that already holds the planetary
waves, such as that of a Gaussian posterior, far less suffices and the steps above it are saved.

References:
    Chakraborty et al. 2025, arXiv 2506.22780, Algorithm 1; Karras et al. 2022, Algorithm 2;
    Rozet and Louppe 2023, arXiv 2306.10574, Algorithm 4 (corrections); Lu et al. 2022, arXiv 2211.01095, Algorithm 2 (multistep).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from genda.diffusion.denoiser import Denoiser
from genda.diffusion.guided import Guided
from genda.diffusion.noise import MemberNoise, karras_schedule, vp_cosine_schedule

Start = Callable[[MemberNoise], Tensor]
"""Draws of a first guess of the sampled distribution, one for each member of the noise, (members, channel, lat, lon)."""


@dataclass(frozen=True)
class Sampler:
    """Settings of Algorithm 1.

    Attributes:
        steps: N, the number of noise levels above zero.
        sigma_min, sigma_max: first and last level above zero.
        schedule, rho: how levels lie between: Karras with ``rho``, or uniform in the time of the VP-cosine schedule.
        churn, churn_min, churn_max, churn_noise: S_churn, S_tmin, S_tmax, S_noise.
        second_order: Heun's correction; Euler without it.
        multistep: second order by the step before in place of Heun's correction, at half the denoiser calls.
        reuse_likelihood: keep the likelihood score of the prediction in the correction.
        corrections: Langevin corrections after each step.
        correction_size: tau, their step in units of the mean squared score.
        fresh: noise drawn anew at every level, in units of ancestral sampling's; makes steps first-order.
        antithetic: members 2k and 2k + 1 have opposite noise; see :meth:`pairs` for how many of them can be scored.
        jump, repeats: of RePaint's walk; one repeat walks straight.
    """

    steps: int = 20
    sigma_min: float = 0.02
    sigma_max: float = 80.0
    schedule: Literal["karras", "vp-cosine"] = "karras"
    rho: float = 7.0
    churn: float = 0.0
    churn_min: float = 0.0
    churn_max: float = math.inf
    churn_noise: float = 1.0
    second_order: bool = True
    multistep: bool = False
    reuse_likelihood: bool = False
    corrections: int = 0
    correction_size: float = 0.3
    fresh: float = 0.0
    antithetic: bool = False
    jump: int = 1
    repeats: int = 1

    def __post_init__(self) -> None:
        if self.steps < 2 or self.corrections < 0:
            raise ValueError(
                f"sampler: found {self.steps} steps, {self.corrections} corrections, expected >= 2 and >= 0"
            )
        if not 0 < self.sigma_min < self.sigma_max < math.inf:
            found = f"found noise from {self.sigma_max:g} to {self.sigma_min:g}"
            raise ValueError(f"sampler: {found}, expected sigma_max > sigma_min > 0")
        if not 0 <= self.fresh < math.inf or self.jump < 1 or self.repeats < 1:
            found = f"found fresh {self.fresh:g}, jump {self.jump}, repeats {self.repeats}"
            raise ValueError(f"sampler: {found}, expected none below 0, 1 and 1")
        if self.multistep and (self.churn or self.fresh or self.corrections or self.repeats > 1):
            found = "found multistep with churn, fresh noise, corrections or repeats"
            raise ValueError(f"sampler: {found}, expected multistep: false, for its steps go on from each other")
        if self.multistep and (self.reuse_likelihood or not self.second_order):
            found = "found multistep first-order or with reuse_likelihood"
            raise ValueError(f"sampler: {found}, expected neither, for it calls the denoiser once a step")
        if self.schedule not in ("karras", "vp-cosine"):
            raise ValueError(f"sampler: found schedule {self.schedule!r}, expected 'karras' or 'vp-cosine'")
        try:
            _ = self.levels
        except ValueError as error:
            raise ValueError(f"sampler: {error}") from None

    @property
    def levels(self) -> Tensor:
        """Noise levels, the last one 0, shape (steps + 1,)."""
        if self.schedule == "karras":
            return karras_schedule(self.steps, self.sigma_min, self.sigma_max, self.rho)
        return vp_cosine_schedule(self.steps, self.sigma_min, self.sigma_max)

    def pairs(self, members: int) -> bool:
        """Whether so many members are pairs from opposite noise, each half of which can be scored: an even number from four."""
        return self.antithetic and members >= 4 and members % 2 == 0

    def walk(self) -> Iterator[tuple[int, int]]:
        """Pairs of levels (from, to) in the order they are visited; to a smaller number is back up by noise."""
        for first in range(0, self.steps, self.jump):
            last = min(first + self.jump, self.steps)
            for repeat in range(self.repeats):
                if repeat:
                    yield last, first
                yield from ((i, i + 1) for i in range(first, last))

    def sample(
        self,
        denoiser: Denoiser,
        shape: Sequence[int],
        members: int,
        seed: int,
        *,
        start: Start | None = None,
        first_member: int = 0,
        batch: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        progress: Callable[[], None] | None = None,
    ) -> Tensor:
        """Draw members first_member, ..., first_member + members - 1 in batches that do not change them.

        Args:
            denoiser: E[x | x_t] of the distribution to sample.
            shape: (channel, lat, lon).
            members: how many.
            seed: of the ensemble.
            start: draws to which noise of the first level is added; zero without it.
            batch: members at a time; all when None.
            progress: called after every step of every batch (:meth:`ticks` of them).

        Returns:
            shape (members, channel, lat, lon).

        Raises:
            ValueError: for batches of no member.
            FloatingPointError: naming the step at which a member stopped being finite.
        """
        if batch is not None and batch < 1:
            raise ValueError(f"batch: found {batch}, expected at least one member at a time")
        size = batch or members
        chunks = []
        for first in range(first_member, first_member + members, size):
            numbers = range(first, min(first + size, first_member + members))
            noise = MemberNoise(seed, numbers, self.antithetic)
            chunks.append(self._batch(denoiser, shape, noise, start, dtype, device, progress))
        return torch.cat(chunks)

    def churned(self, t: float) -> float:
        """t^, the level from which the step at level t starts."""
        if self.churn > 0 and self.churn_min <= t <= self.churn_max:
            return t * (1 + min(self.churn / self.steps, math.sqrt(2) - 1))
        return t

    def ticks(self, members: int, batch: int | None = None) -> int:
        """How often ``progress`` is called."""
        return self.steps * self.repeats * math.ceil(members / (batch or members))

    @torch.no_grad()
    def _batch(
        self,
        denoiser: Denoiser,
        shape: Sequence[int],
        noise: MemberNoise,
        start: Start | None,
        dtype: torch.dtype,
        device: torch.device | str,
        progress: Callable[[], None] | None,
    ) -> Tensor:
        levels = self.levels
        like = torch.zeros((), dtype=dtype, device=device)
        x = float(levels[0]) * noise.normal(shape, like)
        if start is not None:
            x = x + start(noise).to(like)
        before: tuple[float, Tensor] | None = None
        for i, j in self.walk():
            t, t_next = float(levels[i]), float(levels[j])
            if t_next > t:
                x = x + math.sqrt(t_next**2 - t**2) * noise.normal(shape, like)
                continue
            t_hat = self.churned(t)
            if t_hat > t:
                x = x + math.sqrt(t_hat**2 - t**2) * self.churn_noise * noise.normal(shape, like)
                t = t_hat
            if self.multistep:
                estimate = denoiser(x, _level(x, t))
                x, before = _extrapolated(x, estimate, t, t_next, before), (t, estimate)
            else:
                x = self._step(denoiser, x, t, t_next, noise.normal(shape, like) if self.fresh else None)
            if t_next > 0:
                for _ in range(self.corrections):
                    x = self._langevin(denoiser, x, t_next, noise.normal(shape, like))
            if not bool(torch.isfinite(x).all()):
                raise FloatingPointError(
                    f"sampling step {i + 1} of {self.steps} (sigma {t:.3g} to {t_next:.3g}): a member stopped being finite"
                )
            if progress is not None:
                progress()
        return x

    def _step(self, denoiser: Denoiser, x: Tensor, t: float, t_next: float, fresh: Tensor | None) -> Tensor:
        guided = denoiser if self.reuse_likelihood and isinstance(denoiser, Guided) else None
        if guided is not None:
            estimate, increment = guided.terms(x, _level(x, t))
            estimate = estimate + increment
        else:
            estimate = denoiser(x, _level(x, t))
        drift = (x - estimate) / t
        if fresh is not None:
            share = min(1.0, self.fresh * (1 - (t_next / t) ** 2))
            return estimate + t_next * (math.sqrt(1 - share) * drift + math.sqrt(share) * fresh)
        predicted = x + (t_next - t) * drift
        if t_next == 0 or not self.second_order:
            return predicted
        if guided is not None:
            corrected = guided.prior(predicted, _level(x, t_next)) + (t_next / t) ** 2 * increment
        else:
            corrected = denoiser(predicted, _level(x, t_next))
        return x + (t_next - t) * 0.5 * (drift + (predicted - corrected) / t_next)

    def _langevin(self, denoiser: Denoiser, x: Tensor, t: float, noise: Tensor) -> Tensor:
        """x += delta score t² + sqrt(2 delta) t z with delta = tau over the mean squared normalised score, per member."""
        direction = (denoiser(x, _level(x, t)) - x) / t
        delta = self.correction_size / direction.flatten(1).pow(2).mean(dim=1).view(-1, 1, 1, 1)
        return x + t * (delta * direction + (2 * delta).sqrt() * noise)


def _extrapolated(x: Tensor, estimate: Tensor, t: float, t_next: float, before: tuple[float, Tensor] | None) -> Tensor:
    """The multistep step; ``before`` is the level and the estimate of the step before, None at the first."""
    if before is not None and t_next > 0:
        t_before, estimate_before = before
        ahead = math.log(t / t_next) / (2 * math.log(t_before / t))
        estimate = estimate + ahead * (estimate - estimate_before)
    return estimate + t_next / t * (x - estimate)


def _level(x: Tensor, t: float) -> Tensor:
    return torch.full((x.shape[0],), t, dtype=x.dtype, device=x.device)

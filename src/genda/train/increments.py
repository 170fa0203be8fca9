"""The task of a prior of background errors in a latent space, see :mod:`genda.diffusion.increments`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from genda.diffusion.denoiser import per_sample
from genda.diffusion.increments import IncrementDenoiser
from genda.diffusion.loss import draw_noise
from genda.diffusion.noise import derived_seed
from genda.diffusion.zonal_gaussian import ZonalGaussian
from genda.latent_model import (
    AutoencoderModel,
    AutoencoderSpec,
    LatentModel,
    build_autoencoder,
    build_increment_network,
    increment_condition,
    load_autoencoder,
    load_latent_model,
    save_latent_model,
)
from genda.methods.zonal_covariance import ZonalCovariance
from genda.train.config import IncrementConfig
from genda.train.data import static_maps, training_fields
from genda.train.pairs import Pairs, channel_weights, read_pairs
from genda.train.task import Batch


class IncrementObjective(nn.Module):
    """The denoising loss of increments in units of the Gaussian's own error, and all fitted statistics of the model.

    ``space`` is a digest of the autoencoder, by which a resumed run knows its latents again.
    """

    area_weights: Tensor
    mean: Tensor
    scale: Tensor
    floor: Tensor
    space: Tensor

    def __init__(
        self,
        denoiser: IncrementDenoiser,
        area_weights: Tensor,
        mean: Tensor,
        scale: Tensor,
        floor: Tensor,
        space: Tensor,
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.register_buffer("area_weights", area_weights, persistent=False)
        for name, value in (("mean", mean), ("scale", scale), ("floor", floor), ("space", space)):
            self.register_buffer(name, value)

    def forward(self, e: Tensor, sigma: Tensor, noise: Tensor, condition: Tensor, context: Tensor) -> Tensor:
        """Mean loss of the batch, (); 1 is what the Gaussian alone scores."""
        estimate = self.denoiser(e + per_sample(sigma, e) * noise, sigma, condition, context)
        scaled = (estimate - e) / self.denoiser.base.error_std(sigma)  # type: ignore[operator]
        loss: Tensor = (self.area_weights.view(-1, 1) * scaled**2).mean()
        return loss


class IncrementTask:
    """See :class:`genda.train.task.Task`; arguments as of :class:`genda.train.prior.PriorTask`.

    A sample is a date, a lead, and by how many points the state was turned before it was folded into patches: each gives another
    latent of the same error.
    """

    def __init__(self, config: IncrementConfig, device: torch.device, saved: dict[str, Tensor] | None) -> None:
        self._config = config
        self._began: dict[str, Any] | None = None
        self._space = space = _space(config, saved)
        digest = _digest(space.autoencoder)
        if saved is not None and not torch.equal(saved.get("space", torch.empty(0)), digest):
            raise ValueError(f"{config.autoencoder}: found another autoencoder than that of the run to resume")
        self.normalisation = space.normalisation
        pairs = self._pairs(config.data.train)
        self._train = _encoded(space, pairs, range(space.spec.patch))
        self.leads, self.times = pairs.leads, self._train.times
        patch, grid = space.spec.patch, space.grid.coarsened(space.spec.patch)
        maps = static_maps(config.data.path, config.architecture.static, space.grid)
        self._static = (
            torch.zeros(patch, 0, *grid.shape)
            if maps is None
            else torch.stack([F.avg_pool2d(maps.roll(turn, -1), patch) for turn in range(patch)])
        )
        area = torch.as_tensor(grid.area_weights).float()
        if saved is None:
            mean, scale = self._train.statistics(space, area)
            floor = _floor(space, pairs)
            self._train.scale(mean, scale)
            base = _fitted_base(self._train.truth.float(), grid, config)
        else:
            mean, scale, floor = (saved[name] for name in ("mean", "scale", "floor"))
            names = ("modes", "variance", "wavenumber", "rest")
            modes, variance, wavenumber, rest = (saved[f"denoiser.base.{name}"] for name in names)
            base = ZonalGaussian(modes, variance, wavenumber, rest, grid.shape[1])
            self._train.scale(mean, scale)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(config.seed, "weights"))
            network = build_increment_network(config.architecture, space.spec.latent, grid.shape)
        if config.initial is not None:
            self._begin_with(network, load_latent_model(config.initial), saved is None)
        denoiser = IncrementDenoiser(network, base, config.architecture.sees_base)
        self.objective = IncrementObjective(denoiser, area, mean, scale, floor, digest).to(device)
        self.network = network
        self._validation = _encoded(space, self._pairs(config.data.validation, config.validation.samples), range(1))
        self._validation.scale(mean, scale)

    def batch(self, index: NDArray[np.int64], seeds: Sequence[int]) -> Batch:
        e, condition, context = self._samples(self._train, index)
        sigma, noise = draw_noise(e.shape[1:], seeds, self._config.noise.p_mean, self._config.noise.p_std)
        generators = [torch.Generator().manual_seed(derived_seed(seed, "context")) for seed in seeds]
        shown = torch.stack([torch.rand((), generator=g) for g in generators]) >= self._config.context_dropout
        return e, sigma, noise, condition, context * shown.view(-1, 1, 1, 1)

    def validate(self) -> dict[str, Any]:
        """Denoising error by noise level in units of the Gaussian's own, with and without the background as context."""
        samples, denoiser = self._validation, self.objective.denoiser
        weights = self.objective.area_weights.view(-1, 1)
        sums = {name: torch.zeros(len(self._config.validation.sigmas)) for name in ("base", "shown", "hidden")}
        for k, sigma in enumerate(self._config.validation.sigmas):
            for start in range(0, len(samples.times), 16):
                index = np.arange(start, min(start + 16, len(samples.times)))
                e, condition, context = (v.to(weights) for v in self._samples(samples, index))
                noise = draw_noise(e.shape[1:], [derived_seed(0, sigma, int(i)) for i in index])[1].to(e)
                level = e.new_full((len(e),), sigma)
                noisy = e + sigma * noise
                estimates = {
                    "base": denoiser.base(noisy, level),
                    "shown": denoiser(noisy, level, condition, context),
                    "hidden": denoiser(noisy, level, condition, torch.zeros_like(context)),
                }
                for name, estimate in estimates.items():
                    sums[name][k] += float((weights * (estimate - e) ** 2).mean(dim=(1, 2, 3)).sum())
        ratios = {name: sums[name] / sums["base"] for name in ("shown", "hidden")}
        return {
            "sigma": list(self._config.validation.sigmas),
            "error": [round(float(e), 6) for e in sums["shown"] / len(samples.times)],
            "ratios_to_base": [round(float(r), 5) for r in ratios["shown"]],
            "ratio_to_base": round(float(ratios["shown"].mean()), 5),
            "ratio_without_context": round(float(ratios["hidden"].mean()), 5),
        }

    def _begin_with(self, network: nn.Module, initial: LatentModel, fresh: bool) -> None:
        """Take the weights of a finished prior's network, unless a run goes on, and remember how it was trained.

        Raises:
            ValueError: for a network of another architecture, latent or climatology, which would mean something else by them.
        """
        same = {
            "architecture": initial.architecture == self._config.architecture,
            "autoencoder": torch.equal(_digest(initial.space.autoencoder), _digest(self._space.autoencoder)),
            "climatology": torch.equal(initial.normalisation.mean, self.normalisation.mean)
            and torch.equal(initial.normalisation.std, self.normalisation.std),
            "leads": initial.leads == self.leads,
        }
        other = [name for name, equal in same.items() if not equal]
        if other:
            raise ValueError(f"initial: {self._config.initial}: found another {', '.join(other)}, expected this run's")
        if fresh:
            network.load_state_dict(initial.denoiser.network.state_dict())
        self._began = initial.card

    def save_model(self, directory: Path, card: dict[str, Any]) -> None:
        objective = self.objective
        card = card | ({} if self._began is None else {"initial": self._began})
        values = (objective.mean[0], objective.scale, self._static[0], objective.floor)
        save_latent_model(
            directory,
            LatentModel(self._space, objective.denoiser, *values, self.leads, self._config.architecture, card),
        )

    def _pairs(self, split: str | tuple[str, str], limit: int | None = None) -> Pairs:
        pairs = read_pairs(self._config.data, split, self.normalisation, limit)
        if pairs is None:
            raise ValueError(f"{self._config.data.path}: found no backgrounds of {split!r}, expected some")
        if pairs.grid.shape != self._space.grid.shape:
            found = f"found a grid of {pairs.grid.shape}"
            raise ValueError(f"{self._config.data.path}: {found}, expected the autoencoder's, {self._space.grid.shape}")
        return pairs

    def _samples(self, samples: _Latents, index: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        """Increments, conditions and contexts."""
        chosen = torch.as_tensor(index)
        background = samples.background[chosen].float()
        e = samples.truth[chosen].float()
        context = torch.cat([background, self._static[samples.turn[chosen]]], dim=1)
        times, leads = samples.times[index], samples.lead[chosen]
        rows = [increment_condition(times[i : i + 1], int(lead), len(self.leads)) for i, lead in enumerate(leads)]
        return e, torch.cat(rows), context


def _space(config: IncrementConfig, saved: dict[str, Tensor] | None) -> AutoencoderModel:
    """The autoencoder of a configuration, or none: the latent is the state."""
    names = config.data.names
    if config.autoencoder is not None:
        space = load_autoencoder(config.autoencoder)
        if space.channels != names:
            found = " ".join(space.channels)
            raise ValueError(f"{config.autoencoder}: found channels {found}, expected {' '.join(names)}")
        return space
    _, _, normalisation, grid = training_fields(config.data, saved)
    spec = AutoencoderSpec(kind="identity", latent=len(names), patch=1)
    weights = channel_weights(config.data, normalisation, grid)
    return AutoencoderModel(build_autoencoder(spec, len(names), grid), weights, normalisation, names, grid, spec)


def _digest(autoencoder: nn.Module) -> Tensor:
    """SHA-256 of all weights, shape (32,)."""
    digest = hashlib.sha256()
    for value in autoencoder.state_dict().values():
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return torch.tensor(list(digest.digest()), dtype=torch.uint8)


class _Latents:
    """Latents of truths and backgrounds, one for every date, lead and turn, in half precision.

    ``truth`` holds latents of the truth until :meth:`scale` makes increments of them.
    """

    def __init__(self, truth: Tensor, background: Tensor, lead: Tensor, turn: Tensor, times: Any) -> None:
        self.truth, self.background, self.lead, self.turn, self.times = truth, background, lead, turn, times

    def statistics(self, space: AutoencoderModel, area: Tensor) -> tuple[Tensor, Tensor]:
        """Mean errors by turn and lead, (turn, lead, latent, lat, lon), and scales by lead and channel, (lead, latent, 1, 1).

        A channel's scale is inversely proportional to how much state it decodes to, so that white noise of latents is white
        noise of states in units of the loss, and increments have unit variance over all.
        """
        reach = space.reach.view(-1, 1, 1)
        turns, leads = int(self.turn.max()) + 1, int(self.lead.max()) + 1
        mean = torch.stack(
            [torch.stack([self._error(turn, lead).mean(dim=0) for lead in range(leads)]) for turn in range(turns)]
        )
        scales = []
        for lead in range(leads):
            error = torch.cat([self._error(turn, lead) - mean[turn, lead] for turn in range(turns)])
            scales.append(((error * reach) ** 2 * area.view(-1, 1)).mean().sqrt() / reach)
        return mean, torch.stack(scales)

    def scale(self, mean: Tensor, scale: Tensor) -> None:
        """Replace truths by increments."""
        for turn in range(int(self.turn.max()) + 1):
            for lead in range(len(scale)):
                increment = (self._error(turn, lead) - mean[turn, lead]) / scale[lead]
                self.truth[self._chosen(turn, lead)] = increment.half()

    def _error(self, turn: int, lead: int) -> Tensor:
        """Truth less background, (sample, latent, lat, lon)."""
        chosen = self._chosen(turn, lead)
        return self.truth[chosen].float() - self.background[chosen].float()

    def _chosen(self, turn: int, lead: int) -> Tensor:
        return (self.turn == turn) & (self.lead == lead)


@torch.no_grad()
def _encoded(space: AutoencoderModel, pairs: Pairs, turns: range) -> _Latents:
    def encoded(x: Tensor, turn: int) -> Tensor:
        parts = [space.autoencoder.encode(part.float().roll(turn, -1)).mean.half() for part in torch.split(x, 32)]
        return torch.cat(parts)

    truths, backgrounds, leads, turned = [], [], [], []
    for turn in turns:
        truth = encoded(pairs.truth, turn)
        for lead in range(len(pairs.leads)):
            truths.append(truth)
            backgrounds.append(encoded(pairs.background[:, lead], turn))
            leads.append(torch.full((len(truth),), lead))
            turned.append(torch.full((len(truth),), turn))
    times = np.tile(pairs.times, len(truths))
    return _Latents(torch.cat(truths), torch.cat(backgrounds), torch.cat(leads), torch.cat(turned), times)


@torch.no_grad()
def _floor(space: AutoencoderModel, pairs: Pairs, count: int = 64) -> Tensor:
    """Variance of errors that the latent can't hold, (lead, channel)."""
    chosen = slice(None, None, max(1, len(pairs.times) // count))

    def decoded(x: Tensor) -> Tensor:
        return space.autoencoder.decode(space.autoencoder.encode(x).mean)

    rows = []
    for lead in range(len(pairs.leads)):
        truth, background = pairs.truth[chosen].float(), pairs.background[chosen, lead].float()
        lost = decoded(truth) - decoded(background) - (truth - background)
        rows.append((lost**2).mean(dim=(0, 2, 3)))
    return torch.stack(rows)


def _fitted_base(increments: Tensor, grid: Any, config: IncrementConfig) -> ZonalGaussian:
    covariance = ZonalCovariance.fit(increments, grid, config.base.radius)
    return ZonalGaussian.truncated(list(covariance.spectra), covariance.shape, config.base.modes)

"""The task of a prior of background errors in a latent space, see :mod:`genda.diffusion.increments`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from genda.diffusion.damping import damping_shares, expected_errors
from genda.diffusion.increments import IncrementDenoiser
from genda.diffusion.loss import draw_noise
from genda.diffusion.noise import derived_seed
from genda.diffusion.zonal_gaussian import ZonalGaussian
from genda.grid import LatLonGrid
from genda.latent_card import AutoencoderSpec
from genda.latent_model import (
    AutoencoderModel,
    LatentModel,
    build_autoencoder,
    build_increment_network,
    increment_condition,
    load_autoencoder,
    load_latent_model,
    save_latent_model,
)
from genda.methods.zonal_covariance import ZonalCovariance
from genda.nn.observation_encoder import ObservationConditioned
from genda.train.column_analysis import ColumnAnalysis
from genda.train.config import BaseFit, IncrementConfig
from genda.train.data import static_maps, training_fields
from genda.train.increment_objective import IncrementObjective
from genda.train.latents import Latents, floor_variance
from genda.train.pairs import Pairs, channel_weights, error_variance, read_pairs
from genda.train.physics import PhysicsStates
from genda.train.simulated_columns import SimulatedColumns
from genda.train.task import Batch


class IncrementTask:
    """See :class:`genda.train.task.Task`; arguments as of :class:`genda.train.prior.PriorTask`.

    A sample is a date, a lead and a turn, see :class:`genda.train.latents.Latents`.
    """

    def __init__(self, config: IncrementConfig, device: torch.device, saved: dict[str, Tensor] | None) -> None:
        self._config = config
        self._space = space = _space(config, saved)
        digest = _digest(space.autoencoder)
        if saved is not None and not torch.equal(saved.get("space", torch.empty(0)), digest):
            raise ValueError(f"{config.autoencoder}: found another autoencoder than that of the run to resume")
        self.normalisation = space.normalisation
        pairs = self._read(config.data.train)
        self._train = Latents.of(space, pairs, range(space.spec.patch))
        self.leads, self.times = pairs.leads, self._train.times
        patch, grid = space.spec.patch, space.grid.coarsened(space.spec.patch)
        maps = static_maps(config.data.path, config.architecture.static, space.grid)
        self._static = (
            torch.zeros(patch, 0, *grid.shape)
            if maps is None
            else torch.stack([F.avg_pool2d(maps.roll(turn, -1), patch) for turn in range(patch)])
        )
        area = torch.as_tensor(grid.area_weights).float()
        initial = None if config.initial is None else self._initial(config.initial)
        self._began = None if initial is None else initial.card
        self._inherited = initial if config.base is None else None
        if saved is None:
            mean, scale = self._train.statistics(space, area)
            floor = floor_variance(space, pairs)
            if self._inherited is not None:
                scale = self._inherited.scale
            self._train.scale(mean, scale)
            base = self._base(grid)
        else:
            mean, scale, floor = (saved[name] for name in ("mean", "scale", "floor"))
            names = ("modes", "variance", "wavenumber", "rest")
            modes, variance, wavenumber, rest = (saved[f"denoiser.base.{name}"] for name in names)
            base = ZonalGaussian(modes, variance, wavenumber, rest, grid.shape[1])
            self._train.scale(mean, scale)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(config.seed, "weights"))
            network = build_increment_network(config.architecture, space.spec, space.channels, grid.shape)
        if initial is not None and saved is None:
            _begin_with(network, initial)
        denoiser = IncrementDenoiser(network, base, config.architecture.sees_base)
        self.network, self._mean, self._scale = network, mean, scale
        self._base_of_errors, self._climate = deepcopy(base), space.climate  # batches are drawn on the host
        self._damping: Tensor | None = None
        if config.damped:
            self._damping = self._fitted_damping() if saved is None else saved["damping"]
            self._train.count_from(partial(self._told, self._train))
        self._validation = Latents.of(space, self._read(config.data.validation, config.validation.samples), range(1))
        self._validation.scale(mean, scale)
        if config.damped:
            self._validation.count_from(partial(self._told, self._validation))
        self._columns, self._analysis = None, None
        if config.architecture.observations is not None:
            fine_area = torch.as_tensor(space.grid.area_weights).float()
            error = error_variance(pairs, fine_area) if saved is None else saved["error"]
            self._columns = SimulatedColumns(error, config.observations, patch)
            if config.architecture.observations.about == "analysis":
                noises = self._columns.noises
                self._analysis = ColumnAnalysis(space.autoencoder, base, scale, floor, noises)
        self._physics = None if config.physics is None else PhysicsStates(config.physics, config.data, space, pairs)
        physics = None if self._physics is None else self._physics.term(saved)
        seen = None if self._columns is None else self._columns.variance
        self.objective = IncrementObjective(
            denoiser,
            area,
            physics,
            mean=mean,
            scale=scale,
            floor=floor,
            space=digest,
            error=seen,
            damping=self._damping,
        ).to(device)

    def batch(self, index: NDArray[np.int64], seeds: Sequence[int]) -> Batch:
        e, condition, maps = self._samples(self._train, index)
        sigma, noise = draw_noise(e.shape[1:], seeds, self._config.noise.p_mean, self._config.noise.p_std)
        generators = [torch.Generator().manual_seed(derived_seed(seed, "context")) for seed in seeds]
        shown = torch.stack([torch.rand((), generator=g) for g in generators]) >= self._config.context_dropout
        context, analysis = self._observed(self._train, maps * shown.view(-1, 1, 1, 1), index, seeds)
        batch: Batch = (e - analysis, sigma, noise, condition, context)
        if self._physics is None:
            return batch
        mean, scale = self._statistics(self._train, index)
        mean = mean + scale * analysis
        latent = maps[:, : self._space.spec.latent]
        return *batch, latent, mean, scale, *self._physics.states(self._train, index)

    def validate(self) -> dict[str, Any]:
        """Denoising error by noise level in units of the Gaussian's own, with and without the background as context."""
        samples, denoiser = self._validation, self.objective.denoiser
        weights = self.objective.area_weights.view(-1, 1)
        names = ("base", "shown", "hidden", *(["analysis", "observed"] if self._columns is not None else []))
        sums = {name: torch.zeros(len(self._config.validation.sigmas)) for name in names}
        for k, sigma in enumerate(self._config.validation.sigmas):
            for start in range(0, len(samples.times), 16):
                index = np.arange(start, min(start + 16, len(samples.times)))
                e, condition, maps = (v.to(weights) for v in self._samples(samples, index))
                context = self._unobserved(samples, maps)
                seeds = [derived_seed(0, sigma, int(i)) for i in index]
                noise = draw_noise(e.shape[1:], seeds)[1].to(e)
                level = e.new_full((len(e),), sigma)
                noisy = e + sigma * noise
                estimates = {
                    "base": denoiser.base(noisy, level),
                    "shown": denoiser(noisy, level, condition, context),
                    "hidden": denoiser(noisy, level, condition, torch.zeros_like(context)),
                }
                if self._columns is not None:
                    observed, analysis = self._observed(samples, maps, index, seeds)
                    about = noisy - analysis
                    estimates["analysis"] = analysis + denoiser.base(about, level)
                    estimates["observed"] = analysis + denoiser(about, level, condition, observed)
                for name, estimate in estimates.items():
                    sums[name][k] += float((weights * (estimate - e) ** 2).mean(dim=(1, 2, 3)).sum())
        ratios = {name: sums[name] / sums["base"] for name in names}
        scores = {
            "sigma": list(self._config.validation.sigmas),
            "error": [round(float(e), 6) for e in sums["shown"] / len(samples.times)],
            "ratios_to_base": [round(float(r), 5) for r in ratios["shown"]],
            "ratio_to_base": round(float(ratios["shown"].mean()), 5),
            "ratio_without_context": round(float(ratios["hidden"].mean()), 5),
        }
        if self._columns is not None:
            scores |= {"ratios_analysis": [round(float(r), 5) for r in ratios["analysis"]]}
            scores |= {"ratios_observed": [round(float(r), 5) for r in ratios["observed"]]}
            scores |= {"ratio_observed": round(float(ratios["observed"].mean()), 5)}
        return scores

    def _initial(self, name: str) -> LatentModel:
        """The finished prior that training begins with; one that sees no observations may become part of one that does.

        One may have damped backgrounds and the other not: the network sees the same maps.

        Raises:
            ValueError: for one of another architecture, latent or climatology, whose weights would mean something else here.
        """
        initial, space = load_latent_model(name), self._space
        expected = self._config.architecture.model_copy(
            update={"observations": None} if initial.architecture.observations is None else {}
        )
        same = {
            "architecture": initial.architecture == expected,
            "autoencoder": torch.equal(_digest(initial.space.autoencoder), _digest(space.autoencoder)),
            "climatology": torch.equal(initial.normalisation.mean, self.normalisation.mean)
            and torch.equal(initial.normalisation.std, self.normalisation.std),
            "leads": initial.leads == self.leads,
        }
        other = [part for part, equal in same.items() if not equal]
        if other:
            raise ValueError(f"initial: {name}: found another {', '.join(other)}, expected this run's")
        return initial

    def save_model(self, directory: Path, card: dict[str, Any]) -> None:
        objective = self.objective
        card = card | ({} if self._began is None else {"initial": self._began})
        save_latent_model(
            directory,
            LatentModel(
                self._space,
                objective.denoiser,
                mean=objective.mean[0],
                scale=objective.scale,
                static=self._static[0],
                floor=objective.floor,
                leads=self.leads,
                architecture=self._config.architecture,
                error=objective.error,
                damping=objective.damping,
                card=card,
            ),
            None if self._inherited is None else self._config.initial,
        )

    def _base(self, grid: LatLonGrid) -> ZonalGaussian:
        """The Gaussian that the initial network corrects, or one fitted to increments."""
        if self._inherited is not None:
            base = self._inherited.denoiser.base
            assert isinstance(base, ZonalGaussian)
            return base
        fit = self._config.base or BaseFit()
        covariance = ZonalCovariance.fit(self._train.truth.float(), grid, fit.radius)
        return ZonalGaussian.truncated(list(covariance.spectra), covariance.shape, fit.modes)

    def _observed(
        self, samples: Latents, maps: Tensor, index: NDArray[np.int64], seeds: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """What the network is shown, maps and observations drawn with the seeds, and what increments are then about."""
        nowhere = torch.zeros(())
        if self._columns is None:
            return maps, nowhere
        lead, columns = samples.lead[torch.as_tensor(index)], self._columns.columns(samples, index, seeds)
        observations = self._columns.maps(columns, lead).to(maps)
        if self._analysis is None:
            return torch.cat([maps, observations], dim=1), nowhere
        analysis = self._analysis.of(columns, self._statistics(samples, index)[0], lead).to(maps)
        return torch.cat([maps, analysis, observations], dim=1), analysis

    def _unobserved(self, samples: Latents, maps: Tensor) -> Tensor:
        """What the network is shown where nothing is observed."""
        if self._columns is None:
            return maps
        latent = self._space.spec.latent if self._analysis is not None else 0
        analysis = maps.new_zeros(len(maps), latent, *maps.shape[2:])
        return torch.cat([maps, analysis, self._columns.nothing(samples, len(maps)).to(maps)], dim=1)

    def _statistics(self, samples: Latents, index: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Mean and scale of latent errors of each sample."""
        chosen = torch.as_tensor(index)
        turn, lead = samples.turn[chosen], samples.lead[chosen]
        mean, scale = self._mean[turn, lead], self._scale[lead]
        return (mean if self._damping is None else mean + scale * self._told(samples, chosen)), scale

    def _told(self, samples: Latents, index: Tensor) -> Tensor:
        """Increments that backgrounds alone tell, (sample, latent, lat, lon)."""
        assert self._damping is not None
        shares = self._damping[samples.lead[index]]
        return expected_errors(self._base_of_errors, self._anomalies(samples, index), shares)

    def _fitted_damping(self) -> Tensor:
        """Of each lead, (lead, modes + 1)."""
        samples = self._train
        leads = [torch.split((samples.lead == i).nonzero()[:, 0], 64) for i in range(len(self.leads))]
        parts = [(self._anomalies(samples, index) for index in indices) for indices in leads]
        return torch.stack([damping_shares(self._base_of_errors, part) for part in parts])

    def _anomalies(self, samples: Latents, index: Tensor) -> Tensor:
        """Latents of backgrounds about their mean, which is the truths' less that of their errors, in units of increments."""
        turn, lead = samples.turn[index], samples.lead[index]
        return (samples.background[index].float() - self._climate + self._mean[turn, lead]) / self._scale[lead]

    def _read(self, split: str | tuple[str, str], limit: int | None = None) -> Pairs:
        pairs = read_pairs(self._config.data, split, self.normalisation, limit)
        if pairs is None:
            raise ValueError(f"{self._config.data.path}: found no backgrounds of {split!r}, expected some")
        if pairs.grid.shape != self._space.grid.shape:
            found = f"found a grid of {pairs.grid.shape}"
            raise ValueError(f"{self._config.data.path}: {found}, expected the autoencoder's, {self._space.grid.shape}")
        return pairs

    def _samples(self, samples: Latents, index: NDArray[np.int64]) -> tuple[Tensor, Tensor, Tensor]:
        """Increments, conditions and maps: the background's latents and what never changes."""
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


def _begin_with(network: nn.Module, initial: LatentModel) -> None:
    """Give a network, or the part of it that sees no observations, the weights of another's."""
    unseeing = initial.architecture.observations is None
    part = network.network if isinstance(network, ObservationConditioned) and unseeing else network
    part.load_state_dict(widened(initial.denoiser.network.state_dict(), part.state_dict()))


def widened(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a network that reads further maps after those it read before: zero for them, so that it begins as it was."""
    result = {}
    for name, like in expected.items():
        result[name] = weight = torch.zeros_like(like)
        weight[tuple(slice(size) for size in weights[name].shape)] = weights[name].to(like)
    return result

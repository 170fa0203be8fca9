"""The task of a prior of states: a network that corrects a Gaussian denoiser of anomalies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from genda.checkpoint import Model, build_denoiser, build_network, save_model
from genda.diffusion.denoiser import IsotropicGaussian, PreconditionedDenoiser
from genda.diffusion.gaussian import SphericalGaussian
from genda.diffusion.loss import denoising_loss, draw_noise, error_by_noise_level
from genda.diffusion.noise import derived_seed
from genda.grid import LatLonGrid
from genda.state import Normalisation, read_state
from genda.train.config import PriorConfig
from genda.train.data import condition_of, select_times, static_maps, training_fields
from genda.train.task import Batch


class PriorObjective(nn.Module):
    """The loss as a module, so that it can be wrapped for several processes."""

    area_weights: Tensor

    def __init__(self, denoiser: PreconditionedDenoiser, area_weights: Tensor) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.register_buffer("area_weights", area_weights, persistent=False)

    def forward(self, x0: Tensor, sigma: Tensor, noise: Tensor, condition: Tensor | None) -> Tensor:
        """Mean loss of the batch, ()."""
        return denoising_loss(self.denoiser, x0, sigma, noise, condition, self.area_weights).mean()


class PriorTask:
    """See :class:`genda.train.task.Task`.

    Args:
        config: the run.
        device: where it is trained.
        saved: tensors of a checkpoint to go on from.
    """

    def __init__(self, config: PriorConfig, device: torch.device, saved: dict[str, Tensor] | None) -> None:
        self._config, names = config, config.data.names
        self._train, anomalies, self.normalisation, self._grid = training_fields(config.data, saved)
        self.times = self._train.times
        base = _base(config, self._grid, anomalies, saved)
        static = static_maps(config.data.path, config.architecture.static, self._grid)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(config.seed, "weights"))
            network = build_network(config.architecture, len(names), self._grid)
        denoiser = build_denoiser(config.architecture, network, base, static).to(device)
        self.objective = PriorObjective(denoiser, torch.as_tensor(self._grid.area_weights).float().to(device))
        self.network = network
        self._validation = _validation_set(config, self.normalisation, device)

    def batch(self, index: NDArray[np.int64], seeds: Sequence[int]) -> Batch:
        x0 = self._train[index]
        sigma, noise = draw_noise(x0.shape[1:], seeds, self._config.noise.p_mean, self._config.noise.p_std)
        return x0, sigma, noise, condition_of(self._config.architecture.condition, self.times[index])

    def validate(self) -> dict[str, Any]:
        """Denoising error by noise level, its mean over channels, and the ratio to the base's own."""
        x0, condition = self._validation
        denoiser, sigmas = self.objective.denoiser, self._config.validation.sigmas
        errors = error_by_noise_level(denoiser, x0, condition, self.objective.area_weights, sigmas)
        base_std: Tensor = denoiser.base.error_std(torch.tensor(sigmas, device=x0.device))  # type: ignore[operator]
        base = base_std.flatten(1).square().double()
        names = self._config.data.names
        return {
            "sigma": list(sigmas),
            "error": [round(float(e), 6) for e in errors.mean(dim=1)],
            "ratio_to_base": round(float((errors / base).mean()), 5),
            "channels": {name: [round(float(e), 6) for e in errors[:, i]] for i, name in enumerate(names)},
        }

    def save_model(self, directory: Path, card: dict[str, Any]) -> None:
        config = self._config
        denoiser = self.objective.denoiser
        save_model(
            directory,
            Model(denoiser, self.normalisation, config.data.names, self._grid, config.architecture, card),
        )


def _base(
    config: PriorConfig, grid: LatLonGrid, anomalies: Tensor | None, saved: dict[str, Tensor] | None
) -> nn.Module:
    if config.architecture.base.kind == "isotropic":
        return IsotropicGaussian(config.architecture.base.sigma_data)
    if saved is not None:
        return SphericalGaussian(
            grid, *(saved[f"denoiser.base.{name}"] for name in ("covariance", "remainder", "error"))
        )
    if anomalies is None:
        raise ValueError("base: found no anomalies to fit it to")
    return SphericalGaussian.fit(anomalies, grid, config.seed)


def _validation_set(
    config: PriorConfig, normalisation: Normalisation, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    times = select_times(config.data.path, config.data.validation, config.validation.samples)
    state = read_state(config.data.path, config.data.names, times)
    condition = condition_of(config.architecture.condition, times)
    x0 = normalisation.normalise(state.values, times).to(device)
    return x0, None if condition is None else condition.to(device)

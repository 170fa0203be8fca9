"""The task of an autoencoder of states, see :mod:`genda.nn.autoencoder` for its loss."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from genda.diffusion.noise import derived_seed
from genda.latent_model import AutoencoderModel, build_autoencoder, save_autoencoder
from genda.nn.autoencoder import Autoencoder
from genda.state import Normalisation, read_state
from genda.train.config import AutoencoderConfig
from genda.train.data import select_times, training_fields
from genda.train.pairs import Pairs, channel_weights, read_pairs
from genda.train.task import Batch

FIT_SAMPLES = 500
"""States at most that the principal components are taken from."""


class AutoencoderObjective(nn.Module):
    """Weighted squared error of the reconstruction plus beta times the KL divergence, see :mod:`genda.nn.autoencoder`."""

    weights: Tensor

    def __init__(self, autoencoder: Autoencoder, weights: Tensor, divergence: float) -> None:
        super().__init__()
        self.autoencoder, self._divergence = autoencoder, divergence
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Mean loss of states (batch, channel, lat, lon) with standard normal ``noise`` for their latents, ()."""
        latent = self.autoencoder.encode(x)
        error = self.autoencoder.decode(latent.draw(noise)) - x
        return (self.weights * error**2).mean() + self._divergence * latent.divergence.mean()


class AutoencoderTask:
    """See :class:`genda.train.task.Task`; arguments as of :class:`genda.train.prior.PriorTask`.

    States are turned about the Earth's axis by a random angle, so that the latent knows no longitude.
    """

    def __init__(self, config: AutoencoderConfig, device: torch.device, saved: dict[str, Tensor] | None) -> None:
        self._config = config
        self._train, anomalies, self.normalisation, self._grid = training_fields(config.data, saved)
        self.times = self._train.times
        area = torch.as_tensor(self._grid.area_weights).float()
        self._channel_weights = (
            torch.ones(len(config.data.names))
            if config.weights == "equal"
            else channel_weights(config.data, self.normalisation, self._grid)
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(config.seed, "weights"))
            autoencoder = build_autoencoder(config.autoencoder, len(config.data.names), self._grid)
        if saved is None and anomalies is not None:
            stride = max(1, len(anomalies) // FIT_SAMPLES)
            autoencoder.start_from(anomalies[::stride].float(), self._channel_weights)
        weights = self._channel_weights.view(-1, 1, 1) * area.view(-1, 1)
        self.objective = AutoencoderObjective(autoencoder, weights, config.divergence).to(device)
        self.network = autoencoder
        self._validation, self._pairs = _validation_set(config, self.normalisation, device)
        patch = config.autoencoder.patch
        self._latent_shape = (config.autoencoder.latent, *(n // patch for n in self._grid.shape))

    def batch(self, index: NDArray[np.int64], seeds: Sequence[int]) -> Batch:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        turns = [int(torch.randint(self._grid.shape[1], (), generator=g)) for g in generators]
        x = torch.stack([x.roll(turn, -1) for x, turn in zip(self._train[index], turns, strict=True)])
        return x, torch.stack([torch.randn(self._latent_shape, generator=g) for g in generators])

    def validate(self) -> dict[str, Any]:
        """What the latent loses of states, and of background errors where there are any, as shares of the weighted variance.

        ``channels`` are root mean square errors of reconstruction in units of each channel's std.
        """
        weights = self.objective.weights
        lost = self._reconstructed(self._validation) - self._validation
        names = self._config.data.names
        area = weights / weights.mean(dim=(1, 2), keepdim=True)
        rms = (area * lost**2).mean(dim=(0, 2, 3)).sqrt()
        scores: dict[str, Any] = {
            "state": round(float((weights * lost**2).mean() / (weights * self._validation**2).mean()), 6),
            "channels": {name: round(float(e), 6) for name, e in zip(names, rms, strict=True)},
        }
        if self._pairs is not None:
            truth, background = self._pairs.truth.to(weights), self._pairs.background[:, 0].to(weights)
            error = truth - background
            held = self._reconstructed(truth) - self._reconstructed(background)
            lost = (weights * (held - error) ** 2).mean(dim=(0, 2, 3))
            scores["increment"] = round(float(lost.mean() / (weights * error**2).mean()), 6)
        return scores

    def save_model(self, directory: Path, card: dict[str, Any]) -> None:
        config = self._config
        save_autoencoder(
            directory,
            AutoencoderModel(
                self.network,
                self._channel_weights,
                self.normalisation,
                config.data.names,
                self._grid,
                config.autoencoder,
                card,
            ),
        )

    def _reconstructed(self, x: Tensor) -> Tensor:
        autoencoder = self.objective.autoencoder
        return torch.cat([autoencoder.decode(autoencoder.encode(part.float()).mean) for part in torch.split(x, 16)])


def _validation_set(
    config: AutoencoderConfig, normalisation: Normalisation, device: torch.device
) -> tuple[Tensor, Pairs | None]:
    times = select_times(config.data.path, config.data.validation, config.validation.samples)
    state = read_state(config.data.path, config.data.names, times)
    split = config.data.validation
    pairs = read_pairs(config.data, split, normalisation, config.validation.samples) if isinstance(split, str) else None
    return normalisation.normalise(state.values, times).to(device), pairs

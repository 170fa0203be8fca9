"""A data set and a network small enough to train in a second."""

from pathlib import Path

import numpy as np
import torch

from genda.grid import LatLonGrid
from genda.state import State, to_dataset
from genda.train.config import AutoencoderConfig, IncrementConfig, PriorConfig

CHANNELS = ("t850", "u500")
GRID = LatLonGrid.gaussian(8, 16)


def write_data(path: Path, count: int = 24) -> Path:
    """Random temperatures and winds, the last 8 for validation, with backgrounds of two leads, as a Zarr store."""
    generator = torch.Generator().manual_seed(1)
    fields = torch.randn(count, 2, 8, 16, generator=generator)
    values = torch.stack([280 + 10 * fields[:, 0], 5 * (fields[:, 1] + fields[:, 0])], dim=1)
    times = np.datetime64("2001-01-01", "ns") + np.arange(count) * np.timedelta64(12, "h")
    dataset = to_dataset(State(values, CHANNELS, GRID, times))
    dataset["land_sea_mask"] = (("latitude", "longitude"), np.random.default_rng(0).random(GRID.shape))
    marks = {"split": ("time", ["train"] * (count - 8) + ["validation"] * 8), "written": ("time", [1] * count)}
    dataset.assign_coords(marks).to_zarr(path, consolidated=False)
    errors = torch.randn(count, 2, 1, 8, 16, generator=generator) * torch.tensor([2.0, 3.0]).view(1, 2, 1, 1, 1)
    forecasts = values.unsqueeze(1) + errors * torch.tensor([1.0, 0.5]).view(1, 1, 2, 1, 1)
    background = to_dataset(State(forecasts, CHANNELS, GRID, times)).rename(number="lead")
    background = background.assign_coords(marks | {"lead": [24, 48]})
    background.to_zarr(path, group="background", consolidated=False)
    return path


def config(data: Path, out: Path, **changes: object) -> PriorConfig:
    """Six steps of four images with dropout, so that every kind of randomness takes part."""
    architecture = {
        "network": {"base": 8, "multipliers": (1, 2), "blocks": 1, "dropout": 0.2},
        "static": ("land_sea_mask", "sin_latitude"),
    }
    return PriorConfig.model_validate(_common(data, out) | {"architecture": architecture} | changes)


def autoencoder_config(data: Path, out: Path, **changes: object) -> AutoencoderConfig:
    """As :func:`config`, of a latent that holds the errors, which both channels share, and not the states."""
    spec = {"latent": 4, "width": 8, "depth": 1}
    document = {"kind": "autoencoder", "autoencoder": spec}
    return AutoencoderConfig.model_validate(_common(data, out) | document | changes)


def increment_config(data: Path, out: Path, autoencoder: Path | None, **changes: object) -> IncrementConfig:
    """As :func:`config`, on a trained autoencoder, or without one."""
    document = {
        "kind": "increments",
        "autoencoder": None if autoencoder is None else str(autoencoder),
        "architecture": {
            "dit": {"patch": 2, "width": 16, "depth": 1, "head": 8, "dropout": 0.2},
            "static": ("land_sea_mask",),
        },
        "base": {"modes": 20},
    }
    return IncrementConfig.model_validate(_common(data, out) | document | changes)


def _common(data: Path, out: Path) -> dict[str, object]:
    return {
        "out": out,
        "data": {"path": data, "channels": CHANNELS, "harmonics": 0},
        "optimiser": {"warmup_images": 8, "lr": 3e-3},
        "validation": {"every_images": 8, "samples": 4, "sigmas": (0.2, 1.0)},
        "batch": 4,
        "max_images": 24,
        "log_steps": 1,
        "threads": 1,
        "device": "cpu",
    }

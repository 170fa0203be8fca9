"""A data set and a network small enough to train in a second."""

from pathlib import Path

import numpy as np
import torch

from genda.grid import LatLonGrid
from genda.state import State, to_dataset
from genda.train.config import PriorConfig

CHANNELS = ("t850", "u500")
GRID = LatLonGrid.gaussian(8, 16)


def write_data(path: Path, count: int = 24) -> Path:
    """Random temperatures and winds, the last 8 for validation, as a Zarr store."""
    generator = torch.Generator().manual_seed(1)
    fields = torch.randn(count, 2, 8, 16, generator=generator)
    values = torch.stack([280 + 10 * fields[:, 0], 5 * (fields[:, 1] + fields[:, 0])], dim=1)
    times = np.datetime64("2001-01-01", "ns") + np.arange(count) * np.timedelta64(12, "h")
    dataset = to_dataset(State(values, CHANNELS, GRID, times))
    dataset["land_sea_mask"] = (("latitude", "longitude"), np.random.default_rng(0).random(GRID.shape))
    dataset = dataset.assign_coords(split=("time", ["train"] * (count - 8) + ["validation"] * 8))
    dataset.to_zarr(path, consolidated=False)
    return path


def config(data: Path, out: Path, **changes: object) -> PriorConfig:
    """Six steps of four images with dropout, so that every kind of randomness takes part."""
    document = {
        "out": out,
        "data": {"path": data, "channels": CHANNELS, "harmonics": 0},
        "architecture": {
            "network": {"base": 8, "multipliers": (1, 2), "blocks": 1, "dropout": 0.2},
            "static": ("land_sea_mask", "sin_latitude"),
        },
        "optimiser": {"warmup_images": 8, "lr": 3e-3},
        "validation": {"every_images": 8, "samples": 4, "sigmas": (0.2, 1.0)},
        "batch": 4,
        "max_images": 24,
        "log_steps": 1,
        "threads": 1,
        "device": "cpu",
    }
    return PriorConfig.model_validate(document | changes)

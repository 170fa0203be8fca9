"""The configurations of LO-SDA's own size, 69 channels at 128 x 256, trained for a few steps under torchrun on random states.

    python benchmarks/era5_size.py --processes 2 --narrow          # CPU
    python benchmarks/era5_size.py --processes 8 --batch 32        # GPUs, the configurations as they are

It shows that they build, that processes agree and that a model comes out that assimilates: states are smooth noise about a
standard atmosphere, so errors mean nothing. Times of analyses at full width are ``latent_cost.py --size era5``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
import xarray as xr
from torch.nn import functional as F

from genda.grid import LatLonGrid
from genda.observations.networks import columns_table, random_columns
from genda.observations.table import write_table
from genda.sources import observe
from genda.state import State, read_state, to_dataset
from genda.variables import ERA5_CHANNELS, channels

GRID = LatLonGrid.gaussian(128, 256)
SIZE = {"t": 10.0, "z": 1000.0, "u": 8.0, "v": 8.0, "q": 1e-4, "t2m": 10.0, "msl": 800.0, "u10": 5.0, "v10": 5.0}
MIDDLE = {"t": 250.0, "z": 5e4, "q": 1e-3, "t2m": 285.0, "msl": 1.01e5}
NARROW = {
    "autoencoder": ["autoencoder.width=128", "autoencoder.depth=4"],
    "losda": ["architecture.dit.width=128", "architecture.dit.depth=4", "base.modes=100"],
}


def fields(count: int, scale: float, generator: torch.Generator) -> torch.Tensor:
    """Smooth noise in physical units about zero, (count, channel, lat, lon)."""
    noise = torch.randn(count, len(ERA5_CHANNELS), 16, 32, generator=generator)
    smooth = F.interpolate(noise, GRID.shape, mode="bicubic")
    return scale * smooth * torch.tensor([SIZE[c.field.id] for c in channels(ERA5_CHANNELS)]).view(-1, 1, 1)


def write_store(path: Path, dates: int) -> None:
    """States and backgrounds, the last quarter for validation."""
    generator = torch.Generator().manual_seed(0)
    middle = torch.tensor([MIDDLE.get(c.field.id, 0.0) for c in channels(ERA5_CHANNELS)]).view(-1, 1, 1)
    truth = middle + fields(dates, 1.0, generator)
    times = np.datetime64("2001-01-01", "ns") + np.arange(dates) * np.timedelta64(24, "h")
    split = ["train"] * (dates - dates // 4) + ["validation"] * (dates // 4)
    marks = {"split": ("time", split), "written": ("time", [1] * dates)}
    dataset = to_dataset(State(truth, ERA5_CHANNELS, GRID, times)).assign_coords(marks)
    for name in ("geopotential_at_surface", "land_sea_mask"):
        dataset[name] = (("latitude", "longitude"), np.random.default_rng(0).random(GRID.shape))
    dataset.to_zarr(path)
    forecast = (truth + fields(dates, 0.2, generator)).unsqueeze(1)
    background = to_dataset(State(forecast, ERA5_CHANNELS, GRID, times)).rename(number="lead")
    background.assign_coords(marks | {"lead": [24]}).to_zarr(path, group="background")


def write_case(folder: Path, store: Path) -> None:
    """A background and a hundred columns of the truth at the last date."""
    date = np.datetime64("2001-01-01", "ns") + (xr.open_zarr(store).sizes["time"] - 1) * np.timedelta64(24, "h")
    truth = read_state(store, ERA5_CHANNELS, np.array([date]))
    with xr.open_zarr(store, group="background") as backgrounds:
        backgrounds.sel(time=[date]).isel(lead=0, drop=True).to_netcdf(folder / "background.nc")
    sites = random_columns(GRID, 100 / truth.values[0, 0].numel(), np.random.default_rng(0))
    table = columns_table(sites, ERA5_CHANNELS, date)
    error = np.array([0.1 * SIZE[variable] for variable in table["variable"]])
    observed = observe(truth, truth.values, table)[0].numpy()
    write_table(table.assign(observation=observed, obs_error=error), folder / "observations.parquet")


def timed(*command: str) -> float:
    """Seconds of a command; it must succeed."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", *command], check=True)
    return time.perf_counter() - started


def main(
    processes: int = 2,
    batch: int = 2,
    steps: int = 3,
    device: str = "auto",
    narrow: Annotated[bool, typer.Option(help="an eighth of the width, a third of the depth.")] = False,
) -> None:
    """Train both configurations for a few steps, then assimilate; print a Markdown table."""
    torchrun = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m", "genda.cli", "train"]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store, models = folder / "era5.zarr", {kind: folder / kind for kind in NARROW}
        write_store(store, dates=16)
        write_case(folder, store)
        split = ["data.train=train", "data.validation=validation", f"data.path={store}"]
        run = [
            f"batch={batch}",
            f"max_images={batch * steps}",
            "log_steps=1",
            "validation.samples=2",
            f"device={device}",
        ]
        for kind, model in models.items():
            settings = [*split, *run, f"out={model}", *(NARROW[kind] if narrow else [])]
            if kind == "losda":
                settings.append(f"autoencoder={models['autoencoder'] / 'model'}")
            rows.append(
                (f"train {kind}, {steps} steps of {batch}", timed(*torchrun, f"configs/{kind}-era5.yaml", *settings))
            )
        case = ["--background", f"{folder / 'background.nc'}", "--observations", f"{folder / 'observations.parquet'}"]
        out = ["--out", f"{folder / 'analysis.nc'}", "--members", "2"]
        analyse = ["genda.cli", "assimilate", "--model", f"{models['losda'] / 'model'}", "--method", "losda"]
        rows.append(("assimilate, 2 members", timed(*analyse, *case, *out)))
    print("| with start and reading | s |\n|---|---:|")
    for what, seconds in rows:
        print(f"| {what} | {seconds:.0f} |")


if __name__ == "__main__":
    typer.run(main)

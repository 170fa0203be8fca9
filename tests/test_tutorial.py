"""docs/tutorial.md, run as it stands: only sizes are made small."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from command_line import run
from genda.grid import LatLonGrid
from genda.observations.table import read_table
from genda.sphere import SphericalTransform
from genda.state import State, read_state, to_dataset
from genda.variables import EMBEDDED_CHANNELS, channels

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```(bash|python)\n(.*?)```", (ROOT / "docs" / "tutorial.md").read_text(), flags=re.DOTALL)
GRID = LatLonGrid.gaussian(16, 32)
HEIGHT = {850: 1457, 700: 3012, 500: 5574, 300: 9164, 200: 11784}  # m, and K, of the standard atmosphere
TEMPERATURE = {850: 278.7, 700: 268.6, 500: 251.9, 300: 228.6, 200: 216.7}
LEVELS = {f"z{p}": (9.80665 * z, 500.0) for p, z in HEIGHT.items()} | {
    f"t{p}": (t, 4.0) for p, t in TEMPERATURE.items()
}
TYPICAL = {"u": (5.0, 8.0), "v": (0.0, 8.0), "q": (3e-3, 5e-4)}
SURFACE = {"t2m": (285.0, 5.0), "u10": (0.0, 4.0), "v10": (0.0, 4.0), "msl": (1.01e5, 800.0)}
SMALLER = {"gaussian-48x96": "gaussian-16x32", "--members 16": "--members 2", " --workers 2": ""}
NETWORK = "network.base=8 network.multipliers=[1,1,1] network.blocks=1"
TRAINING = f"max_images=16 batch=4 {NETWORK} validation.samples=2 validation.sigmas=[1.0]"


def stand_in(path):
    """Smooth fields of 150 days, every 12 h, with the maps of the surface."""
    transform = SphericalTransform(GRID)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(300, len(EMBEDDED_CHANNELS), *GRID.shape, generator=generator)
    smooth = transform.synthesis(
        transform.analysis(noise) * (1 + torch.arange(transform.lmax) / 4.0).pow(-2).view(-1, 1)
    )
    known = LEVELS | TYPICAL | SURFACE
    typical = [known.get(c.id) or known[c.field.id] for c in channels(EMBEDDED_CHANNELS)]
    mean, std = (torch.tensor([row[k] for row in typical]).view(-1, 1, 1) for k in (0, 1))
    times = np.datetime64("2001-01-01", "ns") + np.arange(300) * np.timedelta64(12, "h")
    dataset = to_dataset(State(mean + std * smooth / smooth.std(), EMBEDDED_CHANNELS, GRID, times))
    for name in ("geopotential_at_surface", "land_sea_mask"):
        dataset[name] = (("latitude", "longitude"), np.random.default_rng(0).random(GRID.shape))
    dataset.to_zarr(path, zarr_format=3, consolidated=False)


def commands(block):
    """The commands of a block, made small, DATA filled in; what makes the stand-in is a comment."""
    for line in block.splitlines():
        for large, small in SMALLER.items():
            line = line.replace(large, small)
        words = shlex.split(line.replace("$DATA", "nature.zarr"), comments=True)
        if words[:1] == ["genda"]:
            sizes = [f"architecture.{w}" if w.startswith("network.") else w for w in TRAINING.split()]
            yield [*words[1:], *(sizes if words[1] == "train" else [])]


@pytest.mark.filterwarnings("ignore")
def test_every_command_and_every_piece_of_code(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    stand_in(tmp_path / "nature.zarr")
    (tmp_path / "stations.csv").write_text(
        "A,2001-03-01T12:00,50,-10,100,10.5,1013\nB,2001-03-01T12:00,51,8,20,,1009\n"
    )
    names = {}
    for kind, block in BLOCKS:
        if kind == "python":
            exec(compile(block, "tutorial.md", "exec"), names)
            continue
        for command in commands(block):
            code, text, error = run(capsys, *command)
            assert code == 0, f"genda {' '.join(command)}: {text} {error}"
    with xr.open_dataset("analysis.nc") as analysis:
        assert analysis.sizes["number"] == 2
    assert "<svg" in (tmp_path / "report.html").read_text() or "data:image" in (tmp_path / "report.html").read_text()
    region = read_state("region.nc")
    assert not region.grid.periodic
    assert bool(torch.isfinite(region.values).all())
    assert names["analysis"].members.values.shape[:2] == (1, 4)
    assert names["ensemble"].dims == ("ensemble", "time", "variable", "lat", "lon")
    assert bool(np.isfinite(names["surface"]).all())
    stations = read_table("stations.parquet")
    found = stations.set_index(["station", "variable"])["observation"]
    assert found["A", "t2m"] == pytest.approx(283.65)
    assert found["B", "msl"] == pytest.approx(100900)
    assert (stations["quality"] != 0).sum() == 1
    assert pd.isna(found["B", "t2m"])
    good = "A,2001-03-01T12:00,50,-10,100,10.5,1013"
    for bad in (
        good.replace("-03-", "-13-"),
        good + ",7",
        good.replace("10.5", "x"),
        good.replace("2001-03-01T12:00", "now"),
    ):
        (tmp_path / "bad.csv").write_text(f"{good}\n{bad}\n")
        with pytest.raises(ValueError, match=r"^bad\.csv: found (?!operation).*, expected lines of station, time"):
            names["read_stations"]("bad.csv")


def test_the_operator_takes_15_lines_and_the_reader_30():
    for name, most in (("def shear", 15), ("def read_stations", 30)):
        (block,) = (block for kind, block in BLOCKS if kind == "python" and name in block)
        assert sum(bool(line.strip()) for line in block.splitlines()) <= most

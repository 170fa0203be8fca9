"""Does reading from Zarr keep up with the network? Images a second of the same training loop on data in memory and on disk.

    python benchmarks/loader.py --grid 48x96 --channels embedded --base 64
    python benchmarks/loader.py --grid 121x240 --channels era5 --base 192 --device cuda --batch 16

Random fields are written to a store as ``genda data prepare`` writes one. The last columns are
what the loader gives on its own, and the general way through xarray and zarr-python.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from genda.data.prepare import Preparation, prepare_store
from genda.files import Times, open_gridded
from genda.grid import LatLonGrid
from genda.state import State, read_times, to_dataset
from genda.train import train
from genda.train.config import PriorConfig
from genda.train.data import sample_order
from genda.train.frames import FrameReader, frame_reader
from genda.variables import EMBEDDED_CHANNELS, ERA5_CHANNELS, channels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grid", default="48x96")
    parser.add_argument("--channels", default="embedded", choices=("embedded", "era5"))
    parser.add_argument("--base", type=int, default=64, help="width of the network")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--frames", type=int, default=512)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--readers", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    names = EMBEDDED_CHANNELS if arguments.channels == "embedded" else ERA5_CHANNELS
    grid = LatLonGrid.gaussian(*map(int, arguments.grid.split("x")))
    with tempfile.TemporaryDirectory() as folder:
        store = write_store(Path(folder), names, grid, arguments.frames)
        speed = {"float32": 0.0, "disk": 0.0}
        for turn in range(
            arguments.repeats
        ):  # in turn, and the best of each: whatever else runs here slows down either
            for kind, best in speed.items():
                out = Path(folder) / f"{kind}-{turn}"
                speed[kind] = max(best, loop_speed(store, out, names, kind, arguments))
        files = open_gridded(store)
        fast = reading_speed(frame_reader(store, names), files.times, arguments.batch, arguments.steps)
        general = reading_speed(lambda times: read_times(files, names, times).values, files.times, arguments.batch, 4)
    print("| grid | channels | network | device | in memory, images/s | from Zarr | ratio | loader alone | by xarray |")
    print("|---|---|---|---|---|---|---|---|---|")
    row = f"| {arguments.grid} | {len(names)} | {arguments.base} | {arguments.device} | {speed['float32']:.1f} | "
    print(row + f"{speed['disk']:.1f} | {speed['disk'] / speed['float32']:.2f} | {fast:.0f} | {general:.0f} |")


def write_store(folder: Path, names: tuple[str, ...], grid: LatLonGrid, frames: int) -> Path:
    """Smooth random fields within bounds, which compress as real ones do."""
    times = np.datetime64("2001-01-01", "ns") + np.arange(frames) * np.timedelta64(6, "h")
    generator = torch.Generator().manual_seed(0)
    middle, half = (
        torch.tensor([0.5 * (c.field.bounds[1] + sign * c.field.bounds[0]) for c in channels(names)]).view(-1, 1, 1)
        for sign in (1, -1)
    )
    walk = torch.randn(frames, len(names), *grid.shape, generator=generator).cumsum(-1) / 20
    to_dataset(State(middle + half * torch.tanh(walk), names, grid, times)).to_zarr(folder / "raw.zarr")
    split = np.where(np.arange(frames) < frames - 8, "train", "validation")
    raw, out = folder / "raw.zarr", folder / "store.zarr"
    prepare_store(Preparation(str(raw), out, names, None, "conservative", times, split))
    return out


def loop_speed(store: Path, out: Path, names: tuple[str, ...], storage: str, arguments: argparse.Namespace) -> float:
    """Images a second of the training loop after its first steps."""
    document = {
        "out": out,
        "data": {"path": store, "channels": names, "harmonics": 0, "storage": storage, "fit_samples": 32},
        "architecture": {"network": {"base": arguments.base, "blocks": 1}, "base": {"kind": "isotropic"}},
        "validation": {"every_images": 10**9, "samples": 2, "sigmas": (1.0,)},
        "batch": arguments.batch,
        "max_images": (arguments.steps + 8) * arguments.batch,
        "log_steps": 8,
        "device": arguments.device,
        "readers": arguments.readers,
        "bfloat16": arguments.device != "cpu",
    }
    train(PriorConfig.model_validate(document))
    log = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return float(np.max([entry["images_per_s"] for entry in log[1:] if "images_per_s" in entry]))


def reading_speed(read: FrameReader, times: Times, batch: int, steps: int) -> float:
    """Images a second in random order with nothing else to do."""
    started = time.perf_counter()
    for step in range(steps):
        read(np.sort(times[sample_order(step * batch, batch, len(times), 0)]))
    return steps * batch / (time.perf_counter() - started)


if __name__ == "__main__":
    main()

"""Mutated files against every reader: a valid table or one line, within five seconds and a gigabyte.

    python benchmarks/fuzz_readers.py [--inputs 10000] [--seed 0] [--readers igra,bufr,…] [--data FOLDER]

Bytes of good files are changed, removed, inserted and cut off, half of the files gzipped first or after. IGRA and BUFR TEMP
start from parts of the real files in FOLDER (or ``GENDA_SHARED_DATA``); the others from small files made here. Prints a
Markdown table and exits with 1 if anything but a table or a ValueError of one line came out.
"""

from __future__ import annotations

import argparse
import gzip
import io
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from genda.observations import read_observations, validate

CSV = "id,when,lat,lon,p,t,dd,dir,ff\n" + "".join(
    f"S{k},2020-04-{k % 28 + 1:02d}T12:00,{k}.5,-{k}.25,{1000 - 10 * k},{5 - k / 2},{k / 10},{10 * k},{k / 3:.2f}\n"
    for k in range(30)
)
MAP = {
    "source": "fuzz", "station": "id", "time": "when", "latitude": "lat", "longitude": "lon",
    "pressure": {"column": "p", "units": "hPa"}, "missing": [-9999],
    "quantities": {
        "temperature": {"column": "t", "units": "degC"}, "dewpoint_depression": {"column": "dd", "units": "K"},
        "wind_direction": {"column": "dir", "units": "degrees"}, "wind_speed": {"column": "ff", "units": "m/s"},
    },
}  # fmt: skip


def good_files(data: Path, folder: Path) -> dict[str, bytes]:
    """A good file of every kind."""
    frame = pd.read_csv(io.StringIO(CSV))
    frame.to_parquet(folder / "t.parquet")
    names = {
        "stationId": "id",
        "latitude": "lat",
        "longitude": "lon",
        "temperature": "t",
        "windDir": "dir",
        "windSpeed": "ff",
    }
    madis = {
        name: ("recNum", frame[column].to_numpy(dtype="S5" if name == "stationId" else float))
        for name, column in names.items()
    }
    madis |= {
        f"{name}DD": ("recNum", np.full(30, b"V"))
        for name in ("temperature", "windDir", "windSpeed", "seaLevelPressure")
    }
    madis |= {"elevation": ("recNum", np.zeros(30)), "seaLevelPressure": ("recNum", np.full(30, 1e5))}
    seconds = ("recNum", np.arange(30.0), {"units": "seconds since 2020-01-01"})
    dataset = xr.Dataset(madis | {"observationTime": seconds})
    dataset["temperature"] = dataset["temperature"] + 273.15
    dataset.to_netcdf(folder / "m.nc", engine="scipy", format="NETCDF3_CLASSIC")
    dataset.to_netcdf(folder / "m.h5", engine="h5netcdf")
    read_observations(folder / "m.nc").to_parquet(folder / "own.parquet")
    igra = gzip.decompress((data / "AUM00011035-data.txt.gz").read_bytes())[:40_000]
    bufr = (data / "temp.bufr").read_bytes()
    first = int.from_bytes(bufr[4:7], "big")
    return {
        "igra": igra[: igra.rfind(b"\n#") + 1], "bufr": bufr[:first], "csv": CSV.encode(),
        "parquet": (folder / "t.parquet").read_bytes(), "table": (folder / "own.parquet").read_bytes(),
        "netcdf3": (folder / "m.nc").read_bytes(), "netcdf4": (folder / "m.h5").read_bytes(),
    }  # fmt: skip


def mutated(data: bytes, draw: np.random.Generator) -> bytes:
    """Up to twenty bytes changed, a run removed or inserted, the end cut off; at times compressed before or after."""
    packed = draw.integers(4)
    text = bytearray(gzip.compress(data, 1) if packed == 0 else data)
    for _ in range(draw.integers(0, draw.integers(1, 20))):
        text[draw.integers(len(text))] = draw.integers(256)
    start, length = draw.integers(len(text)), draw.integers(1, 60)
    action = draw.integers(4)
    if action == 1:
        del text[start : start + length]
    elif action == 2:
        text[start:start] = draw.integers(0, 256, length).astype(np.uint8).tobytes()
    elif action == 3:
        del text[start:]
    return gzip.compress(bytes(text), 1) if packed == 1 else bytes(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--readers", default="igra,bufr,csv,parquet,table,netcdf3,netcdf4")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("GENDA_SHARED_DATA", "../shared/data")))
    options = parser.parse_args()
    failures = 0
    print(
        "| reader | inputs | table | table of what was left | one line | slowest s | peak MB |\n|---|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = good_files(options.data, folder)
        path = folder / "fuzz.bin"
        for reader in options.readers.split(","):
            draw = np.random.default_rng(options.seed)
            counts, slowest = {"table": 0, "rest": 0, "line": 0}, 0.0
            columns = MAP if reader in ("csv", "parquet") else None
            for number in range(options.inputs):
                path.write_bytes(mutated(files[reader], draw))
                lost: list[str] = []
                started = time.perf_counter()
                try:
                    table = read_observations(path, columns=columns, on_loss=lost.append if number % 2 else None)
                    if len(table):
                        validate(table)
                    counts["rest" if lost else "table"] += 1
                except ValueError as error:
                    counts["line"] += 1
                    lost.append(str(error))
                except Exception as error:  # what this script is for
                    failures += 1
                    print(f"{reader} input {number}: {type(error).__name__}: {error}", file=sys.stderr)
                seconds = time.perf_counter() - started
                slowest = max(slowest, seconds)
                if seconds > 5 or any("fuzz.bin" not in line or len(line.splitlines()) != 1 for line in lost):
                    failures += 1
                    print(f"{reader} input {number}: {seconds:.1f} s, {lost[:1]}", file=sys.stderr)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            row = f"| {reader} | {options.inputs} | {counts['table']} | {counts['rest']} | {counts['line']} |"
            print(f"{row} {slowest:.2f} | {peak:.0f} |", flush=True)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())

"""The experiments of the multimodal paper on the embedded case: super-resolution, station columns, both, and real radiosondes.

    python benchmarks/fusion.py super-resolution-4        12×24 area means to 48×96
    python benchmarks/fusion.py super-resolution-8        6×12 area means to 48×96
    python benchmarks/fusion.py gamma-table               the paper's Sigma_y × Gamma table beside MMPS
    python benchmarks/fusion.py stations                  noisy columns at the real radiosonde sites
    python benchmarks/fusion.py stations-and-field        the same with the 6×12 field
    python benchmarks/fusion.py radiosondes --bufr FILE   real ascents, withheld stations

Every experiment runs on the test dates of the shipped sample case (or, to choose settings, on another split of a nature run:
``--data nature.zarr --split validation``), writes one small file per method and date under ``runs/`` and goes on from there
when started again, and prints its tables in Markdown; ``--out`` also writes them with the command that made them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time as clock
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from genda import assimilation as library
from genda.assets import model_directory
from genda.checkpoint import Model, load_model
from genda.diffusion.noise import derived_seed
from genda.diffusion.sampler import Sampler
from genda.guidance.gaussian import GaussianGuidance
from genda.guidance.mmps import MMPS
from genda.guidance.sda import SDA
from genda.methods.fusion import Fusion
from genda.methods.interpolation import interpolate
from genda.methods.optimal_interpolation import OptimalInterpolation
from genda.observations.networks import columns_table, station_network
from genda.observations.operators import LinearOperator, coarse
from genda.problem import Source
from genda.sample import Sample, read_sample
from genda.state import State
from genda.verify import CRPS, NMSE, RMSE, SPREAD_SKILL, ScoreTable, Statistics, field_statistics, kinetic_energy_spectrum

CHANNELS = ("z500", "t850", "t2m", "u10", "v10", "u500", "v500", "q700", "msl")
STATION_ERROR = 0.1
"""Standard deviation of simulated column errors, in units of each channel's climatological std (osse.md)."""
EXACT = 0.02
"""The same for coarse fields taken as exact: 2 % of the std keeps the linear algebra well conditioned."""

Draw = Callable[[list[Source], np.datetime64], torch.Tensor]


def coarse_field(state: State, factor: int) -> State:
    """Area means over factor × factor blocks."""
    target = state.grid.coarsened(factor)
    operator = LinearOperator(coarse(state.grid, state.channels, target, "area"), (len(state.channels), *state.grid.shape))
    values = operator(state.values.double()).float().view(-1, len(state.channels), *target.shape)
    return State(values, state.channels, target, state.times)


def station_columns(model: Model, truth: State, seed: int):
    """Noisy columns of all channels at the real radiosonde sites, as an observation table."""
    table = columns_table(station_network(), truth.channels, truth.times[0])
    table = table.sort_values(["variable", "pressure"], kind="stable").reset_index(drop=True)
    exact = library.observe(model, truth.values[0], table).numpy()
    _, scale, _ = library.point_operator(model, table)
    rng = np.random.default_rng(derived_seed(seed, truth.times[0], "columns"))
    table["obs_error"] = STATION_ERROR * scale
    table["observation"] = exact + STATION_ERROR * scale * rng.standard_normal(len(table))
    return table


def methods(model: Model, args: argparse.Namespace, *, gammas=()) -> dict[str, Draw]:
    """Row name to a function from sources and time to physical members (member, channel, lat, lon)."""
    sampler = Sampler(steps=args.steps, sigma_min=args.sigma_min, reuse_likelihood=args.reuse_likelihood)

    def run(method, n):
        return lambda sources, time: library.assimilate(model, sources, time, method, n, args.seed).members.values[0]

    def fusion(guidance):
        return run(Fusion(model.denoiser, guidance, sampler, args.batch), args.members)

    rows: dict[str, Draw] = {
        "optimal interpolation": run(OptimalInterpolation(model.denoiser.base), 1),
        "EDM, MMPS": fusion(partial(MMPS, iterations=args.iterations)),
        "EDM, Gaussian covariance": fusion(partial(GaussianGuidance, covariance=model.denoiser.base, iterations=args.cg)),
    }
    rows |= {f"EDM, SDA Γ = {g:g}": fusion(partial(SDA, gamma=g, clip=args.clip)) for g in gammas}
    rows["unconditional"] = lambda sources, time: run(Fusion(model.denoiser, MMPS, sampler, args.batch), args.members)([], time)
    return rows


def gridded(args: argparse.Namespace, model: Model, sample: Sample, build, extra, gammas, weights=None) -> ScoreTable:
    """Score every method on every date; finished (method, date) pairs are read back.

    Args:
        build: truth State of one date to its sources.
        extra: row name to a function from a truth State to physical members, for methods outside the likelihood.
    """
    store = Path("runs") / "fusion" / args.experiment / f"{args.split}-{args.members}-{args.steps}"
    store.mkdir(parents=True, exist_ok=True)
    rows = {name: (lambda state, f=f: f(state)) for name, f in extra.items()}
    for name, draw in methods(model, args, gammas=gammas).items():
        rows[name] = lambda state, draw=draw: draw(build(state), state.times[0])
    if args.methods:
        rows = {name: f for name, f in rows.items() if any(part in name for part in args.methods)}
    table: dict[str, Statistics] = {}
    for i in range(min(args.dates, len(sample.truth.times))):
        t = sample.truth
        state = State(t.values[i : i + 1], t.channels, t.grid, t.times[i : i + 1])
        for name, make in rows.items():
            file = store / f"{np.datetime_as_string(state.times[0], 'h')}_{''.join(c if c.isalnum() else '-' for c in name)}.npz"
            if not file.exists():
                started = clock.perf_counter()
                try:
                    members = make(state)
                except FloatingPointError:
                    members = torch.full((2, *state.values.shape[1:]), 1e6)  # diverged: kept in the table as what it is
                save(file, members, state, clock.perf_counter() - started, weights(state) if weights else None)
                print(f"{file.name} {clock.perf_counter() - started:.1f} s", file=sys.stderr, flush=True)
            one = load(file, state)
            table[name] = table[name].merge(one) if name in table else one
    return ScoreTable(table, next(iter(rows)), model.normalisation.std.double().numpy())


def save(file: Path, members: torch.Tensor, state: State, seconds: float, weights) -> None:
    forecast = members.unsqueeze(0) if len(members) > 1 else members
    maps = {"": None} | (weights or {})
    arrays = {"seconds": np.array(seconds)}
    for key, weight in maps.items():
        statistics = field_statistics(
            forecast, state.values, times=state.times, channels=state.channels, grid=state.grid, weights=weight
        )
        arrays |= {f"{key}|{name}": value for name, value in statistics.values.items()}
    u, v = (state.channels.index(c) for c in ("u500", "v500"))
    arrays["energy_members"] = kinetic_energy_spectrum(members[:, u], members[:, v], state.grid).mean(0).numpy()
    arrays["energy_truth"] = kinetic_energy_spectrum(state.values[0, u], state.values[0, v], state.grid).numpy()
    partial_file = file.with_suffix(".partial")
    with partial_file.open("wb") as stream:
        np.savez(stream, **arrays)
    partial_file.rename(file)


def load(file: Path, state: State, region: str = "") -> Statistics:
    with np.load(file) as saved:
        values = {k.split("|")[1]: saved[k] for k in saved.files if "|" in k and k.split("|")[0] == region}
    samples = tuple(np.asarray(state.times, dtype="datetime64[ns]"))
    return Statistics(samples, state.channels, values, np.ones((1, len(state.channels))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--dates", type=int, default=24)
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--sigma-min", type=float, default=0.02)
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--cg", type=int, default=30)
    parser.add_argument("--clip", type=float)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reuse-likelihood", action="store_true")
    parser.add_argument("--methods", nargs="*")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    model = load_model(model_directory(args.model))
    sample = read_sample(args.data, split=args.split, dates=args.dates, channels=model.channels)
    print(json.dumps({"experiment": args.experiment, "dates": len(sample.truth.times)}), file=sys.stderr)


if __name__ == "__main__":
    main()

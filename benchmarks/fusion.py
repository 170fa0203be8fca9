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
from genda.commands import usable_observations
from genda.demo import coarse_field, simulate_columns
from genda.diffusion.sampler import Sampler
from genda.grid import EARTH_RADIUS
from genda.guidance.gaussian import GaussianGuidance
from genda.guidance.mmps import MMPS
from genda.guidance.sda import SDA
from genda.methods.fusion import Fusion
from genda.methods.interpolation import interpolate
from genda.methods.optimal_interpolation import OptimalInterpolation
from genda.observations.networks import station_network
from genda.observations.read import read_observations
from genda.problem import Source
from genda.sample import Sample, read_sample
from genda.state import State
from genda.verify import (
    CRPS,
    NMSE,
    RMSE,
    SPREAD_SKILL,
    ScoreTable,
    Statistics,
    field_statistics,
    kinetic_energy_spectrum,
    station_statistics,
)

CHANNELS = ("z500", "t850", "t2m", "u10", "v10", "u500", "v500", "q700", "msl")
EXACT = 0.02
"""Error of a coarse field taken as exact: 2 % of each channel's std keeps the linear algebra well conditioned."""

Draw = Callable[[list[Source], np.datetime64], torch.Tensor]


def methods(model: Model, args: argparse.Namespace, *, gammas=()) -> dict[str, Draw]:
    """Row name to a function from sources and time to physical members (member, channel, lat, lon)."""
    sampler = Sampler(steps=args.steps, sigma_min=args.sigma_min, reuse_likelihood=args.reuse_likelihood)

    def run(method, n):
        return lambda sources, time: library.assimilate(model, sources, time, method, n, args.seed).members.values[0]

    def fusion(guidance):
        return run(Fusion(model.denoiser, guidance, sampler, args.batch), args.members)

    rows: dict[str, Draw] = {
        "optimal interpolation": run(OptimalInterpolation(model.denoiser.base), 1),
        "EDM, MMPS": fusion(
            partial(MMPS, iterations=args.iterations, preconditioner=model.denoiser.base, inner=args.inner)
        ),
        "EDM, Gaussian covariance": fusion(
            partial(GaussianGuidance, covariance=model.denoiser.base, iterations=args.cg)
        ),
    }
    rows |= {f"EDM, SDA Γ = {g:g}": fusion(partial(SDA, gamma=g, clip=args.clip)) for g in gammas}
    rows["unconditional"] = lambda sources, time: run(Fusion(model.denoiser, MMPS, sampler, args.batch), args.members)(
        [], time
    )
    return rows


def gridded(args: argparse.Namespace, model: Model, sample: Sample, build, extra, gammas, weights=None) -> ScoreTable:
    """Score every method on every date; finished (method, date) pairs are read back.

    Args:
        build: truth State of one date to its sources.
        extra: row name to a function from a truth State to physical members, for methods outside the likelihood.
    """
    store_of(args).mkdir(parents=True, exist_ok=True)
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
            file = file_of(args, name, state)
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


def store_of(args: argparse.Namespace) -> Path:
    """Where finished (method, date) pairs of these settings are kept."""
    settings = f"{args.split}-{args.members}-{args.steps}-{args.iterations}-{args.cg}"
    return Path("runs") / "fusion" / args.experiment / settings


def file_of(args: argparse.Namespace, name: str, state: State) -> Path:
    word = "".join(c if c.isalnum() else "-" for c in name)
    return store_of(args) / f"{np.datetime_as_string(state.times[0], 'h')}_{word}.npz"


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


def super_resolution(args, model, sample, factor: int, gammas=(), error: float = EXACT) -> ScoreTable:
    """Coarse area means of the truth, taken as exact, against bicubic interpolation."""

    def build(state: State) -> list[Source]:
        return [library.field_source(model, coarse_field(state, factor), error)]

    extra = {"bicubic": lambda state: interpolate(coarse_field(state, factor), model.grid).values}
    return gridded(args, model, sample, build, extra, gammas)


def stations(args, model, sample, factor: int | None) -> ScoreTable:
    """Noisy columns at the radiosonde sites, with or without a coarse field; also scored near to and far from the sites."""

    def build(state: State) -> list[Source]:
        table = simulate_columns(model, state, args.seed)
        sources = [library.point_source(model, table, state.times[0], name="columns")]
        return sources + ([library.field_source(model, coarse_field(state, factor), EXACT)] if factor else [])

    def weights(state: State):
        near = distance_to_sites(model) < 500e3
        area = torch.as_tensor(model.grid.area_weights).view(-1, 1).expand(model.grid.shape)
        return {"near": area * near, "far": area * ~near}

    extra = {"climatology": lambda state: library.climatology(model, state.times[0]).unsqueeze(0)}
    if factor:
        extra["bicubic"] = lambda state: interpolate(coarse_field(state, factor), model.grid).values
    return gridded(args, model, sample, build, extra, (), weights)


def distance_to_sites(model: Model) -> torch.Tensor:
    """Great-circle distance in m from every grid point to the nearest radiosonde site, shape (lat, lon)."""
    sites = station_network()

    def vectors(lat, lon):
        lat, lon = np.radians(lat), np.radians(lon)
        return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)

    lat, lon = np.meshgrid(model.grid.latitude, model.grid.longitude, indexing="ij")
    cosine = vectors(lat, lon) @ vectors(sites["latitude"].to_numpy(), sites["longitude"].to_numpy()).T
    return torch.as_tensor(np.arccos(np.clip(cosine.max(axis=-1), -1, 1)) * EARTH_RADIUS)


def radiosondes(args, model) -> ScoreTable:
    """Real ascents: disjoint tenths of the stations withheld in turn, the climate mapping fitted on the rest alone."""
    raw = read_observations(args.bufr)
    time = np.datetime64(raw["time"].mode()[0].round("6h"), "ns")
    order = np.random.default_rng(args.seed).permutation(raw["station"].unique())
    parts: dict[str, Statistics] = {}
    for k in range(args.folds):
        held = raw["station"].isin(set(order[k::10]))
        table, mapping = usable_observations(model, raw[~held], time, 3.0, map_climate=True)
        used = table[table["quality"] == 0].reset_index(drop=True)
        withheld, _ = usable_observations(model, raw[held], time, 3.0, map_climate=True)
        passed = withheld["quality"] == 0  # judged by the same checks; the values themselves stay as observed
        withheld = withheld.assign(observation=raw[held]["observation"].to_numpy())[passed].reset_index(drop=True)
        shift = mapping.at(withheld)
        sources = [library.point_source(model, inflate(used, model, args.representativeness), time)]
        fields = {"mapped climatology": library.climatology(model, time).unsqueeze(0)}
        fields |= {
            name: draw(sources, time)
            for name, draw in methods(model, args).items()
            if not args.methods or any(part in name for part in args.methods)
        }
        for name, members in fields.items():
            hx = library.observe(model, members.mean(dim=0), withheld).numpy() + shift
            one = station_statistics(withheld.assign(hx_a=hx), channels=model.channels[:25])
            parts[name] = parts[name].merge(one) if name in parts else one
        print(f"fold {k}: {len(used)} assimilated, {len(withheld)} withheld", file=sys.stderr, flush=True)
    return ScoreTable(parts, "mapped climatology")


def inflate(table, model: Model, fraction: float):
    """Observation errors with a representativeness part: ``fraction`` of the climatological std, added in variance."""
    scale = library.point_operator(model, table)[1]
    return table.assign(obs_error=np.hypot(table["obs_error"], fraction * scale))


def report(table: ScoreTable, columns) -> str:
    """The tables of one experiment in Markdown."""
    shown = [c for c in columns if c in table.channels]
    parts = [table.to_markdown(RMSE, shown, relative=True)]
    for metric in (RMSE, CRPS, SPREAD_SKILL, NMSE):
        if any(row.supports(metric) for row in table.rows.values()) and not (metric.pooled and table.std is None):
            parts.append(table.to_markdown(metric, None if metric.pooled else shown))
    return "\n".join(parts)


def energy(args, sample: Sample) -> str:
    """Mean kinetic energy of u500, v500 by band of degree, members over truth."""
    store = store_of(args)
    lines = ["| kinetic energy, members / truth | l 1–7 | l 8–15 | l 16–23 | l 24–31 |", "|---|---:|---:|---:|---:|"]
    names = sorted({f.stem.split("_", 1)[1] for f in store.glob("*.npz")})
    for name in names:
        members, truth = (
            np.mean([np.load(f)[key] for f in sorted(store.glob(f"*_{name}.npz"))], axis=0)
            for key in ("energy_members", "energy_truth")
        )
        bands = [members[a:b].sum() / truth[a:b].sum() for a, b in ((1, 8), (8, 16), (16, 24), (24, 32))]
        lines.append(f"| {name} | " + " | ".join(f"{v:.3f}" for v in bands) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=sorted(EXPERIMENTS))
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--dates", type=int, default=24)
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--sigma-min", type=float, default=0.02)
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--inner", type=int, default=8)
    parser.add_argument("--cg", type=int, default=10)
    parser.add_argument("--clip", type=float)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reuse-likelihood", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--methods", nargs="*")
    parser.add_argument("--bufr", type=Path)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--representativeness", type=float, default=0.3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    model = load_model(model_directory(args.model))
    if args.experiment == "radiosondes":
        text = report(radiosondes(args, model), RADIOSONDE_CHANNELS)
    else:
        sample = read_sample(args.data, split=args.split, dates=args.dates, channels=model.channels)
        table = EXPERIMENTS[args.experiment](args, model, sample)
        text = report(table, CHANNELS) + "\n" + energy(args, sample)
        for region in ("near", "far") if "stations" in args.experiment else ():
            text += f"\n{region} the sites (500 km)\n\n" + report(
                regional(args, model, sample, table, region), CHANNELS
            )
    print(text)
    if args.out:
        command = "python benchmarks/fusion.py " + " ".join(sys.argv[1:])
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(f"# {args.experiment}\n\n    {command}\n\n{text}")


RADIOSONDE_CHANNELS = tuple(f"{v}{p}" for v in "tuv" for p in (850, 500, 200)) + ("z500",)
PAPER_TABLE = ((0.1, 0.01), (0.1, 0.001), (0.1, 0.005), (0.5, 0.001), (0.5, 0.005), (0.05, 0.005))
EXPERIMENTS = {
    "super-resolution-4": partial(super_resolution, factor=4),
    "super-resolution-8": partial(super_resolution, factor=8),
    "gamma-table": lambda *a: gamma_table(*a),
    "stations": partial(stations, factor=None),
    "stations-and-field": partial(stations, factor=8),
    "radiosondes": None,
}


def gamma_table(args, model, sample) -> ScoreTable:
    """The paper's Table 1: SDA at its pairs of observation variance and Γ, and MMPS at its variances; 12×24 field."""
    rows: dict[str, Statistics] = {}
    reference = None
    for variance in sorted({v for v, _ in PAPER_TABLE}):
        gammas = tuple(g for v, g in PAPER_TABLE if v == variance)
        chosen = argparse.Namespace(
            **{**vars(args), "experiment": f"gamma-table-{variance:g}", "methods": ["bicubic", "MMPS", "SDA"]}
        )
        table = super_resolution(chosen, model, sample, 4, gammas, error=variance**0.5)
        reference = table.rows["bicubic"]
        rows |= {f"{name}, Σ_y = {variance:g}": row for name, row in table.rows.items() if name != "bicubic"}
    return ScoreTable({"bicubic": reference} | rows, "bicubic", model.normalisation.std.double().numpy())


def regional(args, model, sample: Sample, table: ScoreTable, region: str) -> ScoreTable:
    """The same table over the points near to or far from the sites."""
    rows: dict[str, Statistics] = {}
    t = sample.truth
    for name in table.rows:
        for i in range(len(table.rows[name].samples)):
            state = State(t.values[i : i + 1], t.channels, t.grid, t.times[i : i + 1])
            one = load(file_of(args, name, state), state, region)
            rows[name] = rows[name].merge(one) if name in rows else one
    return ScoreTable(rows, table.reference, table.std)


if __name__ == "__main__":
    main()

"""The experiments of the multimodal paper on the embedded case: super-resolution, station columns, and both.

    python benchmarks/fusion.py super-resolution-4        12×24 area means to 48×96
    python benchmarks/fusion.py super-resolution-8        6×12 area means to 48×96
    python benchmarks/fusion.py gamma-table               the paper's Sigma_y × Gamma table beside MMPS
    python benchmarks/fusion.py stations                  noisy columns at the real radiosonde sites
    python benchmarks/fusion.py stations-and-field        the same with the 6×12 field

They run on the test dates of the shipped sample case (or, to choose settings, on another split of a nature run: ``--data
nature.zarr --split validation``), write one small file per method, settings and date under ``runs/`` and go on from there when
started again. All print their tables in Markdown; ``--out`` also writes them with the command that made them, ``--log`` appends
settings and scores as one line of JSON. Real radiosondes are a suite: ``genda benchmark radiosondes``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time as clock
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch

from genda import assimilation as library
from genda.assets import model_directory
from genda.atomic import replacing
from genda.checkpoint import WEIGHTS, Model, load_model
from genda.demo import simulate_columns
from genda.guidance.gaussian import GaussianGuidance
from genda.guidance.mmps import MMPS
from genda.guidance.sda import SDA
from genda.methods.fusion import Fusion
from genda.methods.interpolation import interpolate
from genda.methods.optimal_interpolation import OptimalInterpolation
from genda.observations.networks import distance_to_sites, station_network
from genda.problem import Source
from genda.sample import Sample, read_sample
from genda.sources import (
    climatology,
    coarse_field,
    field_source,
    point_source,
)
from genda.state import State
from genda.state_methods import default_sampler
from genda.verify import (
    CRPS,
    NMSE,
    RMSE,
    SPREAD_SKILL,
    ScoreTable,
    Statistics,
    field_statistics,
    kinetic_energy_spectrum,
)

CHANNELS = ("z500", "t850", "t2m", "u10", "v10", "u500", "v500", "q700", "msl")
NEAR = 500e3
"""Distance in m to a site within which a grid point counts as near."""
EXACT = 0.02
"""Error of a coarse field taken as exact: 2 % of each channel's std keeps the linear algebra well conditioned."""

Draw = Callable[[list[Source], State], torch.Tensor]
"""Sources and the truth to physical members (member, channel, lat, lon); only simulated references look at the truth."""


@dataclass(frozen=True)
class Row:
    """One row of a table: how it is computed, and the settings that the command line decides.

    Files of finished pairs know those, not the code: remove ``runs/`` after changing it.
    """

    draw: Draw
    settings: Mapping[str, object] = field(default_factory=dict)


def methods(model: Model, args: argparse.Namespace, *, gammas=()) -> dict[str, Row]:
    """The rows that are methods of the library."""
    sampler = default_sampler(model, **changes(args))

    def run(method, count, **settings):
        def draw(sources, truth):
            return library.assimilate(model, sources, truth.times[0], method, count, args.seed).members.values[0]

        return Row(draw, settings)

    def fusion(guidance, **settings):
        method = Fusion(model.denoiser, guidance, sampler, model.denoiser.base, args.batch)
        return run(method, args.members, **asdict(sampler), members=args.members, seed=args.seed, **settings)

    base = model.denoiser.base
    mmps = {"iterations": args.iterations, "inner": args.inner}
    rows = {
        "optimal interpolation": run(OptimalInterpolation(base), 1),
        "EDM, MMPS": fusion(partial(MMPS, preconditioner=base, **mmps), **mmps),
        "EDM, Gaussian covariance": fusion(partial(GaussianGuidance, covariance=base, iterations=args.cg), cg=args.cg),
    }
    for g in gammas:
        settings = {"gamma": g, "clip": args.clip}
        rows[f"EDM, SDA Γ = {g:g}"] = fusion(partial(SDA, **settings), **settings)
    prior = fusion(MMPS)
    rows["unconditional"] = Row(lambda _, truth: prior.draw([], truth), prior.settings)
    return rows


def changes(args: argparse.Namespace) -> dict[str, object]:
    """The sampler settings given on the command line; the library's own where not."""
    names = ("steps", "sigma_min", "sigma_max", "churn", "churn_noise", "second_order", "reuse_likelihood")
    return {name: value for name in names if (value := getattr(args, name)) is not None}


def gridded(args: argparse.Namespace, model: Model, sample: Sample, build, extra, gammas, weights=None) -> ScoreTable:
    """Score every method on every date; finished (method, date) pairs are read back.

    Args:
        build: truth State of one date to its sources.
        extra: row name to a function from a truth State to physical members, for methods outside the likelihood.
        weights: regions by name, (lat, lon) weights.
    """
    rows = {name: Row(lambda _, truth, f=f: f(truth)) for name, f in extra.items()} | methods(
        model, args, gammas=gammas
    )
    reference = next(iter(rows))
    wanted = args.methods or [""]
    rows = {name: r for name, r in rows.items() if name == reference or any(part in name for part in wanted)}
    kept: dict[str, list[Path]] = {name: [] for name in rows}
    for i in range(min(args.dates, len(sample.truth.times))):
        t = sample.truth
        state = State(t.values[i : i + 1], t.channels, t.grid, t.times[i : i + 1])
        for name, row in rows.items():
            file = file_of(args, model, row, name, state)
            kept[name].append(file)
            if file.exists():
                continue
            started = clock.perf_counter()
            try:
                members = row.draw(build(state), state)
            except FloatingPointError:  # diverged: recorded as what it is
                members = None
            save(file, members, state, clock.perf_counter() - started, weights)
            print(f"{file} {clock.perf_counter() - started:.1f} s", file=sys.stderr, flush=True)
    args.files = kept
    return region_table(model, kept, "")


def region_table(model: Model, kept: Mapping[str, list[Path]], region: str) -> ScoreTable:
    """The table of one region from the files of every row; dates on which a row diverged are left out of it."""
    table: dict[str, Statistics] = {}
    for name, files in kept.items():
        for one in (load(file, model, region) for file in files if not diverged(file)):
            table[name] = table[name].merge(one) if name in table else one
    return ScoreTable(table, next(iter(table)), model.normalisation.std.double().numpy())


def file_of(args: argparse.Namespace, model: Model, row: Row, name: str, state: State) -> Path:
    """Where a finished (method, date) pair of these settings is kept."""
    decides = [digest(args.model), args.experiment, args.seed, str(args.data), args.split, name, dict(row.settings)]
    key = hashlib.blake2b(json.dumps(decides).encode(), digest_size=6).hexdigest()
    word = "".join(c if c.isalnum() else "-" for c in name)
    return Path("runs/fusion") / args.experiment / f"{word}-{key}" / f"{np.datetime_as_string(state.times[0], 'h')}.npz"


@cache
def digest(model: str) -> str:
    """Of the model's weights."""
    return hashlib.blake2b((model_directory(model) / WEIGHTS).read_bytes(), digest_size=8).hexdigest()


def save(file: Path, members: torch.Tensor | None, state: State, seconds: float, weights) -> None:
    """Keep statistics and spectra of the members, or the fact that there are none."""
    arrays = {"seconds": np.array(seconds), "time": state.times}
    if members is not None:
        arrays |= scored(members, state, weights)
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as partial_file, partial_file.open("wb") as stream:
        np.savez(stream, **arrays)


def diverged(file: Path) -> bool:
    with np.load(file) as saved:
        return "energy_members" not in saved.files


def scored(members: torch.Tensor, state: State, weights) -> dict[str, np.ndarray]:
    forecast, arrays = members.unsqueeze(0) if len(members) > 1 else members, {}
    for key, weight in ({"": None} | (weights or {})).items():
        statistics = field_statistics(
            forecast, state.values, times=state.times, channels=state.channels, grid=state.grid, weights=weight
        )
        arrays |= {f"{key}|{name}": value for name, value in statistics.values.items()}
    u, v = (state.channels.index(c) for c in ("u500", "v500"))
    arrays["energy_members"] = kinetic_energy_spectrum(members[:, u], members[:, v], state.grid).mean(0).numpy()
    arrays["energy_truth"] = kinetic_energy_spectrum(state.values[0, u], state.values[0, v], state.grid).numpy()
    return arrays


def load(file: Path, model: Model, region: str) -> Statistics:
    with np.load(file) as saved:
        values = {k.split("|")[1]: saved[k] for k in saved.files if "|" in k and k.split("|")[0] == region}
        samples = tuple(saved["time"])
    return Statistics(samples, model.channels, values, np.ones((1, len(model.channels))))


def super_resolution(args, model, sample, factor: int, gammas=(), error: float = EXACT) -> ScoreTable:
    """Coarse area means of the truth, taken as exact, against bicubic interpolation."""

    def build(state: State) -> list[Source]:
        return [field_source(model, coarse_field(state, factor), error)]

    extra = {"bicubic": lambda state: interpolate(coarse_field(state, factor), model.grid).values}
    return gridded(args, model, sample, build, extra, gammas)


def stations(args, model, sample, factor: int | None) -> ScoreTable:
    """Noisy columns at the radiosonde sites, with or without a coarse field; also scored near to and far from the sites."""

    def build(state: State) -> list[Source]:
        table = simulate_columns(model, state, args.seed)
        sources = [point_source(model, table, state.times[0], name="columns")]
        return sources + ([field_source(model, coarse_field(state, factor), EXACT)] if factor else [])

    near = torch.as_tensor(distance_to_sites(model.grid, station_network()) < NEAR)
    area = torch.as_tensor(model.grid.area_weights).view(-1, 1).expand(model.grid.shape)
    weights = {"near": area * near, "far": area * ~near}

    extra = {"climatology": lambda state: climatology(model, state.times[0]).unsqueeze(0)}
    if factor:
        extra["bicubic"] = lambda state: interpolate(coarse_field(state, factor), model.grid).values
    return gridded(args, model, sample, build, extra, (), weights)


def report(table: ScoreTable, columns) -> str:
    """The tables of one experiment in Markdown."""
    shown = [c for c in columns if c in table.channels]
    parts = [table.to_markdown(RMSE, shown, relative=True)]
    for metric in (RMSE, CRPS, SPREAD_SKILL, NMSE):
        if any(row.supports(metric) for row in table.rows.values()) and not (metric.pooled and table.std is None):
            parts.append(table.to_markdown(metric, None if metric.pooled else shown))
    return "\n".join(parts)


def energy(kept: Mapping[str, list[Path]]) -> str:
    """Mean kinetic energy of u500, v500 by band of degree, members over truth."""
    finished = {name: good for name, files in kept.items() if (good := [f for f in files if not diverged(f)])}
    lines = ["| kinetic energy, members / truth | l 1–7 | l 8–15 | l 16–23 | l 24–31 |", "|---|---:|---:|---:|---:|"]
    for name, files in finished.items():
        members, truth = (
            np.mean([np.load(f)[key] for f in files], axis=0) for key in ("energy_members", "energy_truth")
        )
        bands = [members[a:b].sum() / truth[a:b].sum() for a, b in ((1, 8), (8, 16), (16, 24), (24, 32))]
        lines.append(f"| {name} | " + " | ".join(f"{v:.3f}" if v < 100 else f"{v:.0e}" for v in bands) + " |")
    seconds = {name: np.mean([float(np.load(f)["seconds"]) for f in files]) for name, files in kept.items()}
    lines += ["", "Seconds an analysis: " + ", ".join(f"{name} {s:.1f}" for name, s in seconds.items()) + "."]
    lost = {name: f"{bad} of {len(f)} dates" for name, f in kept.items() if (bad := sum(map(diverged, f)))}
    if lost:
        lines += ["", "Diverged: " + ", ".join(f"{name} on {dates}" for name, dates in lost.items()) + "."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=sorted(EXPERIMENTS))
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--dates", type=int, default=24)
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--sigma-min", type=float)
    parser.add_argument("--sigma-max", type=float)
    parser.add_argument("--churn", type=float)
    parser.add_argument("--churn-noise", type=float)
    parser.add_argument("--second-order", action=argparse.BooleanOptionalAction)
    parser.add_argument("--reuse-likelihood", action=argparse.BooleanOptionalAction)
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--inner", type=int, default=8)
    parser.add_argument("--cg", type=int, default=10)
    parser.add_argument("--clip", type=float)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="*", help="parts of row names; the reference row always stays")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--log", type=Path)
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    model = load_model(model_directory(args.model))
    sample = read_sample(args.data, split=args.split, dates=args.dates, channels=model.channels)
    table = EXPERIMENTS[args.experiment](args, model, sample)
    text = report(table, CHANNELS) + "\n" + energy(args.files)
    for region, where in REGIONS.items() if "stations" in args.experiment else ():
        text += f"\n## {where} {NEAR / 1e3:g} km of a site\n\n"
        text += report(region_table(model, args.files, region), CHANNELS)
    print(text)
    if args.log:
        with args.log.open("a") as stream:
            stream.write(json.dumps(log_line(args, table)) + "\n")
    if args.out:
        command = "python benchmarks/fusion.py " + " ".join(sys.argv[1:])
        args.out.parent.mkdir(parents=True, exist_ok=True)
        title, about = ABOUT[args.experiment]
        with replacing(args.out) as page:
            page.write_text(f"# {title}\n\n{about}\n\n    {command}\n\n{text}")


REGIONS = {"near": "Within", "far": "Beyond"}
FIELD_TEXT = "area means of the truth, taken as exact (2 % of each channel's std), to the full 48×96 grid."
SITES_TEXT = """Columns of all variables at 948 real radiosonde sites, simulated from the truth with errors of 10 % of each
channel's std."""
ABOUT = {
    "super-resolution-4": ("Super-resolution, 12×24 to 48×96", f"4×4 {FIELD_TEXT}"),
    "super-resolution-8": ("Super-resolution, 6×12 to 48×96", f"8×8 {FIELD_TEXT}"),
    "gamma-table": (
        "Observation variance and Γ",
        """Super-resolution from 12×24 with SDA at the pairs of assumed observation variance Σ_y and Γ of the multimodal paper's
Table 1, then at the variance that the other pages give the field, 4e-4; beside each MMPS, which has no Γ. The field itself is
exact. Dates on which a method diverged are left out of its row and counted at the end.""",
    ),
    "stations": ("Columns at radiosonde sites", SITES_TEXT),
    "stations-and-field": ("Columns at radiosonde sites and a 6×12 field", f"{SITES_TEXT} With them 8×8 {FIELD_TEXT}"),
}


def log_line(args, table: ScoreTable) -> dict[str, object]:
    """Settings and scores of one run, for the record of a search."""
    settings = {
        k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items() if k not in ("files", "out", "log")
    }
    shown = [c for c in CHANNELS if c in table.channels]
    rows = {}
    for name in table.rows:
        scores = {"rmse_ratio": table.ratio(name, RMSE), "spread_skill": table.score(name, SPREAD_SKILL)}
        rows[name] = {
            metric: {c: round(float(score.mean[table.channels.index(c)]), 4) for c in shown}
            for metric, score in scores.items()
            if score is not None
        }
    settings |= asdict(default_sampler(load_model(model_directory(args.model)), **changes(args)))
    return {**settings, "weights": digest(args.model), "rows": rows}


PAPER_TABLE = ((0.1, 0.01), (0.1, 0.001), (0.1, 0.005), (0.5, 0.001), (0.5, 0.005), (0.05, 0.005))
EXACT_TABLE = tuple((EXACT**2, gamma) for gamma in (0.001, 0.005, 0.01, 0.03, 0.1))
"""The field at the error it is taken to have elsewhere, where a small Γ is a stability limit."""
EXPERIMENTS = {
    "super-resolution-4": partial(super_resolution, factor=4),
    "super-resolution-8": partial(super_resolution, factor=8),
    "gamma-table": lambda *a: gamma_table(*a),
    "stations": partial(stations, factor=None),
    "stations-and-field": partial(stations, factor=8),
}


def gamma_table(args, model, sample) -> ScoreTable:
    """The paper's Table 1, SDA at pairs of observation variance and Γ, and MMPS at the same variances; 12×24 field."""
    rows: dict[str, Statistics] = {}
    reference = None
    args.files = {}
    pairs = PAPER_TABLE + EXACT_TABLE
    for variance in sorted({v for v, _ in pairs}, reverse=True):
        gammas = tuple(g for v, g in pairs if v == variance)
        chosen = argparse.Namespace(
            **{**vars(args), "experiment": f"gamma-table-{variance:g}", "methods": ["bicubic", "MMPS", "SDA"]}
        )
        table = super_resolution(chosen, model, sample, 4, gammas, error=variance**0.5)
        reference = table.rows["bicubic"]
        args.files |= {n if n == "bicubic" else f"{n}, Σ_y = {variance:g}": f for n, f in chosen.files.items()}
        rows |= {f"{name}, Σ_y = {variance:g}": row for name, row in table.rows.items() if name != "bicubic"}
    return ScoreTable({"bicubic": reference} | rows, "bicubic", model.normalisation.std.double().numpy())


if __name__ == "__main__":
    main()

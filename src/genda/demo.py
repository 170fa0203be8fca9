"""The offline demonstration: a shipped date, shipped observations, the shipped prior.

Noisy radiosonde-like columns at the real station sites and a coarse 6×12 field, as a background of another kind, become a
16-member analysis; optimal interpolation with the same observations and bicubic interpolation of the field are its measure.
What went in is written beside it, with the day's forecast, so that any other method can be tried on the same case.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from genda import assimilation as library
from genda.assets import DEMO_OBSERVATIONS
from genda.checkpoint import Model
from genda.diffusion.noise import derived_seed
from genda.extras import require
from genda.methods.interpolation import interpolate
from genda.observations.flags import Flag
from genda.observations.networks import columns_table, station_network
from genda.observations.quality import BASIC_CHECKS, run_checks
from genda.observations.table import read_table, write_table
from genda.report import ReportCase, overview_png, write_report
from genda.sample import read_sample
from genda.sources import climatology, coarse_field, field_source, observe, point_operator, point_source
from genda.state import State, to_dataset, write_dataset
from genda.state_methods import default_sampler
from genda.verify import CRPS, RMSE, SPREAD_SKILL, ScoreTable, field_statistics

COARSENING = 8
COLUMN_ERROR = 0.1
"""Standard deviation of the simulated columns' errors in units of each channel's climatological std."""
FIELD_ERROR = 0.05
STATIONS = 300
SHOWN = ("z500", "t850", "t2m", "u10", "v500", "q700", "msl")


@dataclass(frozen=True)
class DemoResult:
    """Paths, scores and timings."""

    table: ScoreTable
    document: dict[str, Any]
    text: str

    def as_dict(self) -> dict[str, Any]:
        return self.document


def simulate_columns(
    model: Model, truth: State, seed: int, error: float = COLUMN_ERROR, stations: int | None = None
) -> pd.DataFrame:
    """Noisy columns of all channels at the radiosonde sites for one time of ``truth``, as an observation table.

    ``error`` is in units of each channel's climatological std; ``stations`` draws that many sites, None takes all.
    """
    rng = np.random.default_rng(derived_seed(seed, "sites"))
    sites = station_network(count=stations, generator=rng) if stations else station_network()
    table = columns_table(sites, truth.channels, truth.times[0])
    exact = observe(model, truth.values[0], table).numpy()
    _, scale = point_operator(model, table)
    rng = np.random.default_rng(derived_seed(seed, truth.times[0], "columns"))
    return table.assign(
        observation=exact + error * scale * rng.standard_normal(len(table)),
        obs_error=error * scale,
        quality=np.int16(0),
    )


def write_demo_observations(path: Path = DEMO_OBSERVATIONS, date: int = 1, seed: int = 0) -> None:
    """Simulate the shipped observations from one date of the shipped case."""
    model = library.load_prior("embedded")
    sample = read_sample(channels=model.channels)
    write_table(simulate_columns(model, _one(sample.truth, date), seed, stations=STATIONS), path)


def run_demo(
    out: Path, *, members: int = 16, seed: int = 0, steps: int = 10, progress: Callable[[int, int], None] | None = None
) -> DemoResult:
    """Analyse the shipped case and write ``analysis.nc`` and ``report.html`` into ``out``, and what went in beside them."""
    require("matplotlib", "plot", "the demonstration's report")
    out.mkdir(parents=True, exist_ok=True)
    model = library.load_prior("embedded")
    table = run_checks(read_table(DEMO_OBSERVATIONS), BASIC_CHECKS)
    time = np.datetime64(table["time"].iloc[0].to_datetime64(), "ns")
    sample = read_sample(channels=model.channels)
    i = int(np.flatnonzero(sample.truth.times == time)[0])
    truth = _one(sample.truth, i)
    field = coarse_field(truth, COARSENING)
    used = table[table["quality"] == Flag.PASS]
    sources = [
        point_source(model, used, time, name="station columns"),
        field_source(model, field, FIELD_ERROR, name="coarse field"),
    ]
    sampler = default_sampler(model, steps=steps)
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, sampler.ticks(members))

    analysis = library.assimilate(
        model, sources, time, "fusion", members, seed, observations=used, sampler=sampler, progress=tick
    )
    interpolated = interpolate(field, model.grid).values[0]
    optimal = library.assimilate(model, sources, time, "optimal-interpolation")
    candidates = {
        "climatology": climatology(model, time),
        "bicubic interpolation": interpolated,
        "optimal interpolation": optimal.members.values[0, 0],
        "genda": analysis.members.values[0],
    }
    scores = ScoreTable(
        {
            name: field_statistics(
                values.unsqueeze(0),
                truth.values,
                times=truth.times,
                channels=model.channels,
                grid=model.grid,
                std=model.normalisation.std,
            )
            for name, values in candidates.items()
        },
        reference="bicubic interpolation",
        std=model.normalisation.std.double().numpy(),
    )
    write_dataset(to_dataset(analysis.members), out / "analysis.nc", {"seed": str(seed), "history": "genda demo"})
    given = {"truth": truth, "forecast": _one(sample.backgrounds[24], i), "field": field}
    for name, state in given.items():
        write_dataset(to_dataset(state), out / f"{name}.nc")
    write_table(table, out / "observations.parquet")
    mask = model.static.get("land_sea_mask")
    case = ReportCase(
        title="genda demo: station columns and a coarse field",
        time=time,
        channels=model.channels,
        grid=model.grid,
        members=analysis.members.values[0].numpy(),
        truth=truth.values[0].numpy(),
        background=candidates["climatology"].numpy(),
        background_name="climatology",
        baselines={k: v.numpy() for k, v in candidates.items() if k not in ("climatology", "genda")},
        observations=analysis.observations,
        coarse=(field.values[0].numpy(), field.grid),
        land_sea_mask=None if mask is None else mask.numpy(),
        std=model.normalisation.std.double().numpy(),
        settings=dict(analysis.settings),
        provenance={
            "observations": "simulated from the test truth at real radiosonde sites",
            "background": "seasonal climatology",
        },
        timings={"analysis": analysis.seconds, "optimal interpolation": optimal.seconds},
        flag_names={int(flag): flag.label for flag in Flag},
    )
    write_report(case, out / "report.html")
    overview = out / "overview.png"
    overview.write_bytes(overview_png(case))
    text = "\n".join(
        [
            f"{members} members from {len(used)} column observations at {used['station'].nunique()} stations and a "
            f"{field.grid.shape[0]}×{field.grid.shape[1]} field, {analysis.seconds:.0f} s\n",
            scores.to_text(RMSE, SHOWN),
            scores.to_text(CRPS, SHOWN),
            scores.to_text(SPREAD_SKILL, SHOWN),
            f"wrote {out / 'analysis.nc'} and {out / 'report.html'}",
            "and what went in: observations.parquet and field.nc, with truth.nc and a day's forecast.nc for other methods",
        ]
    )
    document = {
        "time": str(np.datetime_as_string(time, unit="m")),
        "members": members,
        "seconds": round(analysis.seconds, 2),
        "observations": len(used),
        **scores.to_dict(),
        "files": [
            str(out / name)
            for name in (
                "analysis.nc",
                "report.html",
                "overview.png",
                "observations.parquet",
                *(f"{name}.nc" for name in given),
            )
        ],
    }
    return DemoResult(scores, document, text)


def _one(state: State, i: int) -> State:
    """The i-th time of a state alone."""
    return State(state.values[i : i + 1], state.channels, state.grid, state.times[i : i + 1])

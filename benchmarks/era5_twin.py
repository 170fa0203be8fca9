"""ERA5 as truth: columns of z and t at the real radiosonde sites, analysed with the prior of a nature run's climate.

    python benchmarks/era5_twin.py ../shared/data/era5-levels-members.grib --figure docs/results/era5-twin.png
    python benchmarks/era5_twin.py --control

One member of the ensemble of data assimilations is taken to the prior's grid and observed with the errors of radiosondes; the
columns go through the mapping between climates as real ascents do, but the truth is known everywhere and without error. The
control has the nature run itself as truth, the rest alike. The four times of ERA5 are two days of one weather situation: they
count as one sample, and the tables have no standard errors.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.ticker import MaxNLocator

import genda
from genda.checkpoint import Model
from genda.diffusion.noise import derived_seed
from genda.grid import LatLonGrid
from genda.observations.errors import assign_errors
from genda.observations.flags import Flag
from genda.observations.networks import columns_table, distance_to_sites, station_network
from genda.regrid import regrid, regridder
from genda.report.maps import Panel, draw_map
from genda.report.style import finish, new_figure, style, symmetric_limit
from genda.sample import read_sample
from genda.sources import add_representativeness, climatology, observe, point_source
from genda.state import State, read_state
from genda.usable import in_observed_climate, usable_observations
from genda.variables import STANDARD_GRAVITY
from genda.verify import CRPS, RMSE, SPREAD_SKILL, ScoreTable, Statistics, field_statistics

CHANNELS = ("z500", "z850", "t500", "t850")
AMPLITUDE, REPRESENTATIVENESS = 1.4, 0.1
"""Of Earth's anomalies and of the errors, as chosen for real radiosondes (docs/results/search.md)."""
NEAR = 500e3
CLIMATE = "mapped climatology"
METHODS = {"optimal interpolation": "optimal-interpolation", "EDM, MMPS": "fusion"}


def era5(path: Path, grid: LatLonGrid, member: int) -> State:
    """One member on another grid."""
    given = read_state(path, CHANNELS)
    state = State(given.values[:, member], CHANNELS, given.grid, given.times)
    return regrid(state, grid, regridder(state.grid, grid, "spectral"))


def nature_run(model: Model) -> State:
    """Four dates over the year of the shipped case."""
    truth = read_sample(channels=model.channels).truth.select(CHANNELS)
    dates = np.linspace(0, len(truth.times) - 1, 4).astype(int)
    return State(truth.values[dates], CHANNELS, truth.grid, truth.times[dates])


def columns(truth: State, seed: int) -> pd.DataFrame:
    """Noisy columns at the sites, without levels that lie below the site."""
    table = assign_errors(columns_table(station_network(), CHANNELS, truth.times[0]))
    exact = observe(truth, truth.values[0], table).numpy()
    rng = np.random.default_rng(derived_seed(seed, truth.times[0], "columns"))
    noisy = exact + table["obs_error"].to_numpy() * rng.standard_normal(len(table))
    geopotential = np.tile(exact.reshape(-1, 2, 2)[:, 0], (1, 2)).ravel()  # of each row's level: CHANNELS has z, then t
    aloft = geopotential > STANDARD_GRAVITY * table["elevation"].to_numpy()
    return table.assign(observation=noisy)[aloft]


def analyses(
    model: Model, truth: State, amplitude: float, methods: Mapping[str, str] = METHODS, members: int = 16, seed: int = 0
) -> dict[str, State]:
    """What each row makes of one time, in the truth's climate, shape (1, member, channel, lat, lon)."""
    time, given = truth.times[0], columns(truth, seed)
    table, mapping = usable_observations(model, given, time, 3.0, map_climate=True, amplitude=amplitude)
    used = table[table["quality"] == Flag.PASS]
    sources = [point_source(model, add_representativeness(model, used, REPRESENTATIVENESS), time)]
    made = {CLIMATE: State(climatology(model, time)[None, None], model.channels, model.grid, truth.times)}
    for row, method in methods.items():
        made[row] = genda.assimilate(model, sources, time, method, members, seed).members
    print(f"{np.datetime_as_string(time, 'h')}: {len(used)} of {len(given)} values used", file=sys.stderr, flush=True)
    return {row: in_observed_climate(model, state, mapping).select(CHANNELS) for row, state in made.items()}


def regions(grid: LatLonGrid) -> dict[str, torch.Tensor]:
    """Weights (lat, lon) of everywhere, near the sites, and the rest."""
    near = torch.as_tensor(distance_to_sites(grid, station_network()) < NEAR)
    area = torch.as_tensor(grid.area_weights).view(-1, 1).expand(grid.shape)
    return {"Globe": area, "Within 500 km of a site": area * near, "Beyond 500 km of a site": area * ~near}


def score(made: Sequence[Mapping[str, State]], truth: State, weights: torch.Tensor) -> ScoreTable:
    """The rows at all times."""
    about = {"times": truth.times, "channels": CHANNELS, "grid": truth.grid, "weights": weights}
    fields = {row: torch.cat([each[row].values for each in made]) for row in made[0]}
    fields = {row: x if x.shape[1] > 1 else x[:, 0] for row, x in fields.items()}
    return ScoreTable({row: field_statistics(x, truth.values, **about) for row, x in fields.items()}, CLIMATE)


def one_situation(table: ScoreTable) -> ScoreTable:
    """All times as one sample, which has no standard error."""
    means = {row: {k: v[None] for k, v in statistics.means().items()} for row, statistics in table.rows.items()}
    weight = np.ones((1, len(CHANNELS)))
    return ScoreTable({row: Statistics(("all",), CHANNELS, m, weight) for row, m in means.items()}, CLIMATE)


def figure(model: Model, truth: State, made: Mapping[str, State]) -> bytes:
    """z500: truth and analysis as departures from the mapped climatology, spread and error, with the sites."""
    members, true, climate = (s.select(["z500"]).values[0].double() for s in (made["EDM, MMPS"], truth, made[CLIMATE]))
    mean, true, climate = members.mean(dim=0)[0], true[0], climate[0, 0]
    fields = {
        "Truth − mapped climatology": (true - climate, "difference"),
        "Analysis mean − mapped climatology": (mean - climate, "difference"),
        f"Analysis spread (std of {len(members)} members)": (members.std(dim=0)[0], "spread"),
        "Error: analysis mean − truth (scale of its own)": (mean - true, "difference"),
    }
    panels = [Panel(title, field.numpy(), model.grid, kind) for title, (field, kind) in fields.items()]
    limits = [symmetric_limit(panels[0].values, panels[1].values)] * 2 + [symmetric_limit(p.values) for p in panels[2:]]
    sites = station_network()
    with style():
        canvas = new_figure(8.2, 5.8)
        canvas.set_dpi(110)  # a smaller file
        for i, (axes, panel, top) in enumerate(zip(canvas.subplots(2, 2).ravel(), panels, limits, strict=True)):
            low, extend = (0.0, "max") if panel.kind == "spread" else (-top, "both")
            mesh = draw_map(axes, panel, (low, top), "z500", model.static["land_sea_mask"].numpy(), model.grid)
            if i >= 2:
                axes.plot((sites["longitude"] + 180) % 360 - 180, sites["latitude"], "k.", markersize=1.2)
            axes.set_title(panel.title, loc="left")
            bar = canvas.colorbar(mesh, ax=axes, orientation="horizontal", fraction=0.05, pad=0.1, extend=extend)
            bar.locator = MaxNLocator(4)
            bar.set_label("500 hPa geopotential [m² s⁻²]")
        canvas.suptitle(f"{np.datetime_as_string(truth.times[0], 'h')} UTC; dots: sites of columns")
        canvas.tight_layout()
        return finish(canvas, "", "", full_colour=True).png


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", help="ERA5 z and t at 500 and 850 hPa with members, in GRIB")
    parser.add_argument("--control", action="store_true", help="the nature run as truth")
    parser.add_argument("--member", type=int, default=0)
    parser.add_argument("--members", type=int, default=16, help="of the analysis")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--figure", type=Path, help="a PNG of the first time")
    args = parser.parse_args()
    if not args.control and not (args.file and args.file.exists()):
        print(f"{args.file}: found no file, expected ../shared/data/era5-levels-members.grib", file=sys.stderr)
        sys.exit(2)
    torch.set_grad_enabled(False)
    model = genda.load("embedded")
    truth = nature_run(model) if args.control else era5(args.file, model.grid, args.member)
    truths = [State(truth.values[[i]], CHANNELS, truth.grid, truth.times[[i]]) for i in range(len(truth.times))]
    amplitude = 1.0 if args.control else AMPLITUDE
    made = [analyses(model, each, amplitude, members=args.members, seed=args.seed) for each in truths]
    for region, weights in regions(model.grid).items():
        scored = score(made, truth, weights)
        table = one_situation(scored)
        print(f"## {region}\n\n{table.to_markdown(RMSE, relative=True)}")
        print("\n".join(table.to_markdown(metric) for metric in (RMSE, CRPS, SPREAD_SKILL)))
        z500 = {row: np.sqrt(statistics.values["squared_error"][:, 0]) for row, statistics in scored.rows.items()}
        ratios = {row: ", ".join(f"{ratio:.3f}" for ratio in z500[row] / z500[CLIMATE]) for row in METHODS}
        print("z500 time by time: " + "; ".join(f"{row} {text}" for row, text in ratios.items()) + ".\n")
    if args.figure:
        args.figure.write_bytes(figure(model, truths[0], made[0]))


if __name__ == "__main__":
    main()

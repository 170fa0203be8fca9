"""What the commands do with files: read, check, call the library, write; each returns what there is to print."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from genda import assimilation as library
from genda.assets import model_directory
from genda.atomic import replacing
from genda.benchmark import read_results, read_suite, run_suite
from genda.checkpoint import Model, StateModel, read_card
from genda.diffusion.sampler import Sampler
from genda.latent_methods import EnsembleShare, LatentSettings, diffda_walk
from genda.latent_model import LatentModel, latent_card
from genda.observations.climate import ClimateMapping
from genda.observations.errors import assign_errors
from genda.observations.flags import Flag
from genda.observations.quality import (
    check_bounds,
    check_domain,
    check_duplicates,
    check_missing,
    check_window,
    run_checks,
    set_flag,
)
from genda.observations.read import read_observations
from genda.observations.soundings import select_levels
from genda.observations.table import read_table, summary, validate, write_table
from genda.problem import Source
from genda.report import ReportCase, benchmark_png, write_report
from genda.state import State, nonnegative, read_state, to_dataset, write_netcdf
from genda.usable import usable_observations
from genda.variables import channels as parse_channels
from genda.verify import BIAS, CRPS, RMSE, SPREAD_SKILL, ScoreTable, field_statistics, station_statistics

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Outcome:
    """What a command has to say: the same facts as text and as a JSON document."""

    text: str
    document: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return dict(self.document)


def read_observation_files(files: Sequence[Path], out: Path) -> Outcome:
    """Read, check (missing, bounds, duplicates) and write one Parquet table.

    Raises:
        ValueError: naming the file, what was found and what was expected; nothing is written then.
    """
    table = run_checks(read_observations(files), [check_missing, check_bounds, check_duplicates])
    table = assign_errors(table)
    validate(table, ", ".join(map(str, files)), complete=True)
    write_table(table, out)
    facts = summary(table)
    lines = [f"{out}: {facts['rows']} rows, {facts['stations']} stations, {facts['soundings']} soundings"]
    lines += [f"  {kind}: " + ", ".join(f"{k} {v}" for k, v in facts[kind].items()) for kind in ("variables", "flags")]
    return Outcome("\n".join(lines), facts)


def assimilate_files(
    *,
    model: str,
    method: str | None,
    background: Path | None,
    lead: int | None,
    observations: Sequence[Path],
    fields: Sequence[Path],
    field_error: float,
    time: str | None,
    window_hours: float,
    map_climate: bool,
    members: int,
    climate_amplitude: float,
    seed: int,
    steps: int | None,
    iterations: int,
    gamma: float | None,
    batch: int | None,
    device: str,
    out: Path,
    report: Path | None,
    progress: Progress | None = None,
) -> Outcome:
    """Read a model, observations and fields; analyse; write the analysis and, if asked, a report.

    Raises:
        ValueError, FileNotFoundError: for unusable input, before anything is written.
    """
    if not observations and not fields and method not in ("unconditional", "latent-prior"):
        raise ValueError(
            "no observations and no fields given: expected --observations or --field (or --method unconditional)"
        )
    if climate_amplitude != 1.0 and not map_climate:
        raise ValueError(
            f"climate amplitude: found {climate_amplitude:g} without --map-climate, expected both or neither"
        )
    _check_outputs(out, report)
    prior = library.load(model)
    latent = isinstance(prior, LatentModel)
    if latent != (background is not None):
        found = f"found {'none' if background is None else background} for {model}"
        raise ValueError(f"background: {found}, expected one where the model is a prior of background errors")
    if latent and map_climate:
        raise ValueError("map climate: found a background, which is in the model's climate as it is, expected none")
    coarse = [read_state(path) for path in fields]
    table = read_observations(observations) if observations else None
    forecast = None if background is None else read_state(background)
    when = _analysis_time(time, [*coarse, *([] if forecast is None else [forecast])], table)
    if background is not None and forecast is not None:
        forecast = _at(forecast, when, background)
    coarse = [_at(state, when, path) for path, state in zip(fields, coarse, strict=True)]
    changes = {} if steps is None else {"steps": steps}
    sampler = diffda_walk(**changes) if method == "diffda" else library.default_sampler(prior, **changes)
    sources: list[Source] = []
    used, mapping = None, None
    if table is not None:
        given = (table["quality"] == Flag.PASS).reset_index(drop=True)
        table, mapping = usable_observations(
            prior, table, when, window_hours, map_climate=map_climate, amplitude=climate_amplitude
        )
        used = table[table["quality"] == Flag.PASS]
        if used.empty:
            counts = ", ".join(f"{k} {v}" for k, v in summary(table)["flags"].items())
            raise ValueError(
                f"{', '.join(map(str, observations))}: found no observation to use at {_iso(when)} ± {window_hours:g} h, "
                f"expected at least one inside window, domain and levels (flags: {counts})"
            )
        sources.append(library.point_source(prior, used, when))
    for path, state in zip(fields, coarse, strict=True):
        sources.append(library.field_source(prior, state, field_error, name=str(path)))
    gammas, warnings = _gammas(sampler, sources, gamma) if method == "fusion-sda" else ({}, [])
    ticks = sampler.ticks(members, batch)
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, ticks)

    own: dict[str, Any] = {"sampler": sampler, "iterations": iterations, "gamma": gammas}
    if latent:
        several = forecast is not None and forecast.values.ndim == 5 and forecast.values.shape[1] > 1
        base = EnsembleShare() if several else None
        own = {"settings": LatentSettings(sampler, gamma=gamma, iterations=iterations, ensemble=base)}
    analysis = library.assimilate(
        prior,
        sources,
        when,
        method,
        members,
        seed,
        background=forecast,
        lead=lead,
        observations=used,
        batch=batch,
        device=device,
        progress=tick,
        **own,
    )
    if table is not None and mapping is not None:
        analysis = _mapped_back(prior, analysis, mapping)
        # What was flagged before the mapping, on reading or by an earlier check, was not mapped.
        mapped = table["quality"].isin([Flag.PASS, Flag.BACKGROUND]) & given
        rows = table[mapped]
        expected = library.observe(prior, library.climatology(prior, when), rows).numpy()
        table.update(_as_observed(rows, mapping, expected, ("observation",))[["observation", "obs_error"]])
    provenance = {
        "method": analysis.method,
        "settings": ", ".join(f"{key} {value}" for key, value in analysis.settings.items()),
        "model": str(model),
        "history": "genda assimilate",
    }
    write_netcdf(to_dataset(analysis.members), out, provenance)
    if report is not None:
        write_report(_report_case(prior, analysis, coarse, table), report)
    spread = analysis.members.values[0].std(dim=0, correction=0).mean(dim=(-2, -1)) / prior.normalisation.std
    drawn = analysis.members.values.shape[1]
    done_line = f"{out}: {drawn} members at {_iso(when)}, {analysis.seconds:.1f} s, method {analysis.method}"
    text = "\n".join([*warnings, done_line])
    document = {
        "out": str(out),
        "time": _iso(when),
        "method": analysis.method,
        "members": int(analysis.members.values.shape[1]),
        "seconds": round(analysis.seconds, 3),
        "observations": 0 if used is None else len(used),
        "flags": {} if table is None else summary(table)["flags"],
        "spread_over_climatological_std": dict(zip(prior.channels, [round(float(v), 4) for v in spread], strict=True)),
        "gamma": gammas,
        "warnings": warnings,
    }
    return Outcome(text, document)


def _gammas(sampler: Sampler, sources: Sequence[Source], given: float | None) -> tuple[dict[str, float], list[str]]:
    """Γ of each source, and a sentence for each that is below its limit of stability."""
    limits = library.stable_gammas(sampler, sources)
    gammas = library.default_gammas(limits) if given is None else dict.fromkeys(limits, given)
    warnings = [
        f"{name}: gamma {gamma:g} is below {limits[name]:.2g}, the stability limit of SDA for {sampler.steps} steps: "
        "expect divergence; raise gamma, take more steps or use MMPS"
        for name, gamma in gammas.items()
        if gamma < limits[name]
    ]
    return gammas, warnings


def _mapped_back(model: StateModel, analysis: library.Analysis, mapping: ClimateMapping) -> library.Analysis:
    """An analysis in the model's climate moved to the climate of its observations, equivalents and errors included."""
    state, table = analysis.members, analysis.observations
    shift = torch.as_tensor(mapping.on_channels(state.channels, state.grid.latitude)).float().unsqueeze(-1)
    mean = library.climatology(model, state.times[0])
    values = nonnegative(mean + mapping.amplitude * (state.values - mean) + shift, state.channels)
    members = State(values, state.channels, state.grid, state.times)
    if table is not None:
        table = _as_observed(table, mapping, table["hx_b"].to_numpy(), ("observation", "hx_b", "hx_a"))
    return replace(analysis, members=members, observations=table)


def _as_observed(
    table: pd.DataFrame, mapping: ClimateMapping, expected: np.ndarray[Any, Any], columns: Sequence[str]
) -> pd.DataFrame:
    """Rows in the model's climate with these columns and their errors moved back to the observations' own."""
    moved = {name: mapping.to_earth(table, table[name].to_numpy(), expected) for name in columns}
    return table.assign(**moved, obs_error=table["obs_error"] * mapping.amplitude)


def verify_files(analysis: Path, truth: Path | None, withheld: Path | None) -> Outcome:
    """Score an analysis file against a truth, against withheld observations, or both."""
    if truth is None and withheld is None:
        raise ValueError("nothing to verify against: expected --truth or --withheld")
    state = read_state(analysis)
    document: dict[str, Any] = {"analysis": str(analysis)}
    texts = []
    if truth is not None:
        reference = _at(read_state(truth, state.channels), state.times[0], truth)
        if not library.same_grid(reference.grid, state.grid):
            raise ValueError(
                f"{truth}: found grid {reference.grid.shape}, expected that of the analysis, {state.grid.shape}"
            )
        rows = {
            "analysis": field_statistics(
                state.values, reference.values, times=state.times, channels=state.channels, grid=state.grid
            )
        }
        table = ScoreTable(rows)
        document |= table.to_dict()
        texts.append(table.by_channel("analysis", (RMSE, CRPS, SPREAD_SKILL)))
    if withheld is not None:
        stations = _scorable(read_table(withheld), state)
        mean = state.values.mean(dim=1)[0] if state.values.ndim == 5 else state.values[0]
        stations = stations.assign(hx_a=library.observe(state, mean, stations).numpy())
        statistics = station_statistics(stations)
        table = ScoreTable({"analysis": statistics})
        document["withheld"] = table.to_dict()
        texts.append(table.by_channel("analysis", (RMSE, BIAS)))
    return Outcome("\n".join(texts), document)


def run_benchmark(
    suite: str,
    methods: Sequence[str],
    scenarios: Sequence[str],
    dates: int | None,
    quick: bool,
    workers: int,
    dask: str | None,
    runs: Path,
    data: Path | None,
    out: Path | None,
    progress: Progress | None = None,
) -> Outcome:
    """Run what a suite still lacks and make its table.

    Raises:
        ValueError, FileNotFoundError: for an unusable suite, before any work.
    """
    if not all(methods):
        raise ValueError("methods: found an empty name, expected all or names separated by commas")
    chosen = read_suite(suite, quick=quick, methods=methods, scenarios=scenarios, dates=dates)
    _check_outputs(out, None)
    if out is not None and out.suffix == ".png":
        raise ValueError(
            f"{out}: found the name of a picture, expected that of a Markdown page, which gets one beside it"
        )
    if not runs.is_dir() and (runs.exists() or runs.is_symlink()):
        raise ValueError(f"{runs}: found a file, expected a folder to keep finished pairs in")
    _check_writable(runs.absolute())
    run_suite(chosen, runs, data, workers=workers, dask=dask, progress=progress)
    results = read_results(chosen, runs, data)
    text, document = results.to_markdown(), results.to_dict()
    if out is not None:
        short = " --quick" if quick else ""
        short += "" if "all" in methods else f" --methods '{','.join(methods)}'"
        short += "".join(f" --scenario '{scenario}'" for scenario in scenarios)
        short += "" if dates is None else f" --dates {dates}"
        short += "" if data is None else f" --data {data.name}"
        picture = _benchmark_picture(document, out.with_suffix(".png"))
        with replacing(out) as page:
            page.write_text(f"# {chosen.suite}\n\n    genda benchmark {suite}{short}\n\n{picture}{text}")
    return Outcome(text, document)


def _benchmark_picture(document: Mapping[str, Any], path: Path) -> str:
    """Draw a benchmark beside its page, and what the page says of the picture."""
    try:
        png = benchmark_png(document)
    except ModuleNotFoundError as missing:
        return f"No picture: {missing.name} is not installed (`pip install 'genda[plot]'`).\n\n"
    if png is None:
        return ""
    with replacing(path) as partial_file:
        partial_file.write_bytes(png)
    return f"![Errors relative to {document['reference']}](<{path.name}>)\n\n"


def inspect_model(name: str) -> Outcome:
    """The card of a model."""
    directory = model_directory(name)
    card = latent_card(directory) or read_card(directory).model_dump(mode="json")
    grid = card.pop("grid")
    shape = [len(grid["latitude"]), len(grid["longitude"])]
    document = {"directory": str(directory), "grid": shape, **card}
    lines = [
        f"{key}: {value if not isinstance(value, list) else ' '.join(map(str, value))}"
        for key, value in document.items()
    ]
    return Outcome("\n".join(lines), document)


def _scorable(table: pd.DataFrame, state: State) -> pd.DataFrame:
    """The rows of a withheld table that an analysis can be scored at.

    Raises:
        ValueError: if there are none.
    """
    known = {c.field.id for c in parse_channels(state.channels)}
    checks: list[Callable[[pd.DataFrame], pd.DataFrame]] = [
        check_missing,
        check_bounds,
        check_duplicates,
        partial(check_window, time=state.times[0], half_width=pd.Timedelta(hours=3)),
        partial(check_domain, grid=state.grid),
        lambda t: set_flag(t, ~t["variable"].isin(known), Flag.DOMAIN),
    ]
    levels = sorted({c.pressure for c in parse_channels(state.channels) if c.pressure is not None})
    checked = select_levels(run_checks(table.reset_index(drop=True), checks), levels)
    usable = checked[checked["quality"] == Flag.PASS]
    if usable.empty:
        raise ValueError(
            f"withheld observations: found none usable at {_iso(state.times[0])} ± 3 h, expected at least one"
        )
    return usable


def _check_outputs(out: Path | None, report: Path | None) -> None:
    """Refuse an output that cannot be written before anything is computed."""
    for path in (out, report):
        if path is not None and not path.absolute().parent.is_dir():
            raise ValueError(f"{path}: found no folder {path.parent}, expected one to write to")
        if path is not None and path.is_dir():
            raise ValueError(f"{path}: found a folder, expected the name of a file to write")
        if path is not None:
            _check_writable(path.absolute().parent)
    if report is not None:
        import matplotlib  # noqa: F401


def _check_writable(folder: Path) -> None:
    """Refuse a folder in which nothing can be written; one still to be made is judged by that it will be made in."""
    while not folder.exists():
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return
    except OSError as error:
        raise ValueError(f"{folder}: found no way to write there ({error.strerror}), expected one") from error


def _analysis_time(time: str | None, coarse: Sequence[State], table: pd.DataFrame | None) -> np.datetime64:
    if time is not None:
        try:
            stamp = pd.Timestamp(time)
            if pd.isna(stamp):
                raise ValueError(time)
            return np.datetime64(stamp.tz_convert(None) if stamp.tzinfo else stamp, "ns")
        except ValueError:
            raise ValueError(f"time: found {time!r}, expected an ISO date such as 2008-12-08T12") from None
    if coarse:
        return np.datetime64(coarse[0].times[0], "ns")
    if table is not None and len(table):
        return np.datetime64(pd.Timestamp(table["time"].median()).round("6h"), "ns")
    raise ValueError("time: cannot be told from the input, expected --time")


def _at(state: State, time: np.datetime64, path: Path) -> State:
    index = np.flatnonzero(state.times == time)
    if not index.size:
        raise ValueError(
            f"{path}: found times {_iso(state.times[0])} to {_iso(state.times[-1])}, expected {_iso(time)}"
        )
    i = int(index[0])
    return State(state.values[i : i + 1], state.channels, state.grid, state.times[i : i + 1])


def _report_case(
    model: Model | LatentModel, analysis: library.Analysis, coarse: Sequence[State], table: pd.DataFrame | None
) -> ReportCase:
    time = analysis.members.times[0]
    mask = None if isinstance(model, LatentModel) else model.static.get("land_sea_mask")
    name = "the forecast given" if isinstance(model, LatentModel) else "the model's seasonal climatology"
    return ReportCase(
        title=f"Analysis of {_iso(time)}",
        time=time,
        channels=model.channels,
        grid=model.grid,
        members=analysis.members.values[0].numpy(),
        background=analysis.background.numpy(),
        background_name="forecast" if isinstance(model, LatentModel) else "climatology",
        observations=analysis.observations if table is None else _with_flags(analysis.observations, table),
        coarse=None
        if not coarse or coarse[0].channels != model.channels
        else (coarse[0].values[0].numpy(), coarse[0].grid),
        land_sea_mask=None if mask is None else mask.numpy(),
        std=model.normalisation.std.double().numpy(),
        settings=dict(analysis.settings),
        provenance={"background": name, **{k: str(v) for k, v in model.card.items()}},
        timings={"analysis": analysis.seconds},
        flag_names={int(flag): flag.label for flag in Flag},
    )


def _with_flags(used: pd.DataFrame | None, table: pd.DataFrame) -> pd.DataFrame:
    """The whole table with hx_b and hx_a where observations were used."""
    full = table.copy()
    for column in ("hx_b", "hx_a"):
        full[column] = np.nan if used is None else used[column].reindex(full.index)
    return full


def _iso(time: np.datetime64) -> str:
    return str(np.datetime_as_string(time, unit="m"))

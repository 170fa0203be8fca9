"""``genda assimilate``: model, background, observations and fields in, an analysis and its report out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import interpolate

from genda import assimilation as library
from genda.checkpoint import Model, StateModel
from genda.commands.outcome import (
    PAIR,
    Outcome,
    Progress,
    at,
    check_outputs,
    check_suffix,
    check_table_suffix,
    counted,
    iso,
)
from genda.diffusion.sampler import Sampler
from genda.extras import require
from genda.foreign_climate import foreign_climate
from genda.guidance.sda import default_gammas, stable_gammas
from genda.latent_methods import usual_sampler
from genda.latent_model import LatentModel
from genda.observations.checks import make_checks, read_checks
from genda.observations.climate import ClimateMapping
from genda.observations.conditions import utc
from genda.observations.errors import read_errors
from genda.observations.flags import Flag
from genda.observations.read import read_observations
from genda.observations.table import summary, write_table
from genda.problem import Source
from genda.report import ReportCase, write_report
from genda.sources import field_source, point_source
from genda.state import State, read_state, to_dataset, write_dataset
from genda.state_methods import default_sampler
from genda.usable import as_reported, in_observed_climate, usable_observations, used_of


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
    iterations: int | None,
    gamma: float | None,
    batch: int | None,
    device: str,
    out: Path,
    report: Path | None,
    checks: Path | None = None,
    errors: Path | None = None,
    vertical_correlation: float | None = None,
    representativeness: str | None = None,
    observations_out: Path | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Read a model, observations and fields; analyse; write the analysis and, if asked, a report.

    Raises:
        ValueError, FileNotFoundError: for unusable input, before anything is written.
    """
    if not observations and not fields and method not in library.UNOBSERVING:
        methods = " or ".join(library.UNOBSERVING)
        raise ValueError(
            f"no observations and no fields given: expected --observations or --field (or --method {methods})"
        )
    if climate_amplitude != 1.0 and not map_climate:
        raise ValueError(
            f"climate amplitude: found {climate_amplitude:g} without --map-climate, expected both or neither"
        )
    if method in library.UNOBSERVING and (observations or fields):
        raise ValueError(f"method {method}: found observations, expected none where the prior alone is drawn from")
    if steps is not None and method in library.UNSAMPLED:
        raise ValueError(f"steps: found {steps} with method {method}, expected none where nothing is sampled")
    check_outputs(
        (out, report, observations_out), [*observations, *fields, *(p for p in (background, checks, errors) if p)]
    )
    check_suffix(out)
    check_table_suffix(observations_out)
    if report is not None:
        require("matplotlib", "plot", "a report")
    first_checks = read_checks(checks) if checks else make_checks(("missing", "bounds", "duplicates"))
    entries = read_errors(errors) if errors else ()
    unresolved = _representativeness(representativeness)
    prior = library.load(model)
    if method is not None:
        library.check_method(method, prior)
    latent = isinstance(prior, LatentModel)
    if latent != (background is not None):
        found = f"found {'none' if background is None else background} for {model}"
        raise ValueError(
            f"background: {found}, expected --background where a model is a prior of background errors, and none elsewhere"
        )
    if lead is not None and not latent:
        raise ValueError(f"lead: found {lead} h without a background, expected one for a prior of background errors")
    if latent and map_climate:
        raise ValueError("map climate: found a background, which is in the model's climate as it is, expected none")
    coarse = [read_state(path) for path in fields]
    table = read_observations(observations) if observations else None
    forecast = None if background is None else read_state(background, prior.channels)
    given_states = dict(zip(fields, coarse, strict=True)) | ({background: forecast} if background and forecast else {})
    when = _analysis_time(time, given_states, table)
    if background is not None and forecast is not None:
        forecasts = library.background_members(prior, at(forecast, when, background), when)
        forecast = State(forecasts.unsqueeze(0), prior.channels, prior.grid, np.array([when]))
    left_out: list[str] = []
    coarse = [_known(at(s, when, path), prior.channels, path, left_out) for path, s in zip(fields, coarse, strict=True)]
    method = method or library.usual_method(prior)
    changes = {} if steps is None else {"steps": steps}
    sampler = (
        usual_sampler(method, prior.space.encoded, **changes)
        if isinstance(prior, LatentModel)
        else default_sampler(prior, **changes)
    )
    samples = method not in library.UNSAMPLED
    sources: list[Source] = []
    used, compared, mapping = None, None, None
    if table is not None:
        table, mapping = usable_observations(
            prior,
            table,
            when,
            window_hours,
            map_climate=map_climate,
            amplitude=climate_amplitude,
            checks=first_checks.values(),
            errors=entries,
            background=forecast,
            background_error=_error(prior, forecast, lead),
            representativeness=unresolved,
        )
        compared = table[table["quality"].isin([Flag.PASS, Flag.PASSIVE])]
        used = table[table["quality"] == Flag.PASS]
        if used.empty:
            counts = ", ".join(f"{k} {v}" for k, v in summary(table)["flags"].items())
            raise ValueError(
                f"{', '.join(map(str, observations))}: found no observation to use at {iso(when)} ± {window_hours:g} h, "
                f"expected at least one inside window, domain and levels (flags: {counts}; "
                f"times: {' to '.join(t.isoformat(timespec='minutes') for t in (table['time'].min(), table['time'].max()))})"
            )
        sources.append(point_source(prior, used, when, vertical_correlation=vertical_correlation))
    for path, state in zip(fields, coarse, strict=True):
        sources.append(field_source(prior, state, field_error, name=str(path)))
    about = torch.zeros(1, len(prior.channels), *prior.grid.shape)
    gammas, warnings = _gammas(sampler, sources, about, gamma) if method == "fusion-sda" else ({}, [])
    warnings = left_out + warnings
    if table is not None and mapping is None and (foreign := foreign_climate(prior, table, when)):
        warnings.append(f"{foreign}: expected {'' if latent else '--map-climate, or '}a prior of their climate")
    settings = {
        "sampler": sampler if samples else None,
        "iterations": iterations,
        "gamma": gammas or gamma,
    }
    ticks = sampler.ticks(members, batch)
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, ticks)

    analysis = library.assimilate(
        prior,
        sources,
        when,
        method,
        members,
        seed,
        background=forecast,
        lead=lead,
        observations=compared,
        batch=batch,
        device=device,
        progress=tick,
        **{name: value for name, value in settings.items() if value is not None},
    )
    if table is not None and mapping is not None:
        analysis = _mapped_back(prior, analysis, mapping)
        table = as_reported(table)
    read = {
        "background": background,
        "observations": [str(path) for path in observations],
        "fields": [str(path) for path in fields],
        "checks": checks,
        "errors": errors,
    }
    inputs = {name: given if isinstance(given, list) else str(given) for name, given in read.items() if given}
    of_observations = {
        "window_hours": window_hours,
        "checks": list(first_checks),
        "vertical_correlation": vertical_correlation,
        "representativeness": unresolved,
        "climate_mapping": None if mapping is None else mapping.as_dict(),
    }
    options = ({} if table is None else of_observations) | ({"field_error": field_error} if fields else {})
    provenance = {
        "method": analysis.method,
        "settings": json.dumps(analysis.settings, allow_nan=False),
        "model": str(model),
        "inputs": json.dumps(inputs),
        "options": json.dumps(options, allow_nan=False),
        "history": "genda assimilate",
    }
    drawn = analysis.members.values.shape[1]
    if not samples and drawn < members:
        warnings.append(f"{analysis.method} gives one analysis, without spread")
    dataset = to_dataset(analysis.members)
    if samples and sampler.antithetic and drawn > 1:
        dataset = dataset.assign_coords(
            {PAIR: ("number", np.arange(drawn) // 2, {"long_name": "members from opposite noise"})}
        )
    write_dataset(dataset, out, provenance)
    if observations_out is not None and table is not None:
        write_table(_with_flags(analysis.observations, table), observations_out)
    if report is not None:
        files = {"model": model} | {
            k: given if isinstance(given, str) else ", ".join(given) for k, given in inputs.items()
        }
        write_report(_report_case(prior, analysis, coarse, table, files, options), report)
    spread = analysis.members.values[0].std(dim=0, correction=0).mean(dim=(-2, -1)) / prior.normalisation.std
    done_line = f"{out}: {counted(drawn, 'member')} at {iso(when)}, {analysis.seconds:.1f} s, method {analysis.method}"
    mapped = [] if mapping is None else [f"observations mapped to the model's climate, {mapping}"]
    used_line = [] if table is None else [used_of(table)]
    text = "\n".join([*mapped, *used_line, done_line])
    document = {
        "out": str(out),
        "time": iso(when),
        "method": analysis.method,
        **({"lead": analysis.settings["lead"]} if latent else {}),
        "members": drawn,
        "seconds": round(analysis.seconds, 3),
        "observations": 0 if used is None else len(used),
        "flags": {} if table is None else summary(table)["flags"],
        "spread_over_climatological_std": dict(zip(prior.channels, [round(float(v), 4) for v in spread], strict=True)),
        "gamma": gammas,
        "inputs": inputs,
        "options": options,
        "warnings": warnings,
    }
    return Outcome(text, document)


def _representativeness(given: str | None) -> float | Literal["spacing"] | None:
    if given is None or given == "spacing":
        return given  # type: ignore[return-value]
    try:
        return float(given)
    except ValueError:
        raise ValueError(
            f"representativeness: found {given!r}, expected a fraction of the climatological std, or spacing"
        ) from None


def _error(prior: Model | LatentModel, forecast: State | None, lead: int | None) -> torch.Tensor | None:
    """Standard deviation of errors of a forecast alone, physical units; None of an ensemble, whose spread is its own."""
    if forecast is None or forecast.values.shape[1] > 1 or not isinstance(prior, LatentModel):
        return None
    return prior.error_std(prior.lead_or_first(lead)) * prior.normalisation.std.view(-1, 1, 1)


def _known(state: State, channels: Sequence[str], path: Path, left_out: list[str]) -> State:
    """The channels of a field that a model has; a sentence on the others is added to ``left_out``.

    Raises:
        ValueError: where there is none.
    """
    known = [name for name in state.channels if name in channels]
    others = ", ".join(name for name in state.channels if name not in channels)
    if not known:
        raise ValueError(f"{path}: found channels {others}, expected some of the model's: {', '.join(channels)}")
    if others:
        left_out.append(f"{path}: {others} left out, which the model does not have")
    return state.select(known)


def _gammas(
    sampler: Sampler, sources: Sequence[Source], about: torch.Tensor, given: float | None
) -> tuple[dict[str, float], list[str]]:
    """Γ of each source, and a sentence for each that is below its limit of stability."""
    limits = stable_gammas(sampler, sources, about)
    gammas = default_gammas(limits) if given is None else dict.fromkeys(limits, given)
    warnings = [
        f"{name}: gamma {gamma:g} is below {limits[name]:.2g}, the stability limit of SDA for {sampler.steps} steps: "
        "expect divergence; raise gamma, take more steps or use MMPS"
        for name, gamma in gammas.items()
        if gamma < limits[name]
    ]
    return gammas, warnings


def _mapped_back(model: StateModel, analysis: library.Analysis, mapping: ClimateMapping) -> library.Analysis:
    """An analysis in the model's climate moved to the climate of its observations, equivalents and errors included."""
    table = analysis.observations
    if table is not None:
        expected = table["hx_b"].to_numpy()
        seen = {name: mapping.to_earth(table, table[name].to_numpy(), expected) for name in ("hx_b", "hx_a")}
        table = as_reported(table).assign(**seen)
    return replace(analysis, members=in_observed_climate(model, analysis.members, mapping), observations=table)


def _analysis_time(time: str | None, states: Mapping[Path, State], table: pd.DataFrame | None) -> np.datetime64:
    if time is not None:
        return utc(time, name="time").to_datetime64()
    for path, state in states.items():
        if len(state.times) > 1:
            found = f"{len(state.times)} times, {iso(state.times[0])} to {iso(state.times[-1])}"
            raise ValueError(f"{path}: found {found}, expected --time to say which is analysed")
    known = [state.times[0] for state in states.values() if not np.isnat(state.times[0])]
    if known:
        return np.datetime64(known[0], "ns")
    if table is not None and len(table):
        return np.datetime64(pd.Timestamp(table["time"].median()).round("6h"), "ns")
    raise ValueError("time: cannot be told from the input, expected --time")


def _report_case(
    model: Model | LatentModel,
    analysis: library.Analysis,
    coarse: Sequence[State],
    table: pd.DataFrame | None,
    files: Mapping[str, str],
    options: Mapping[str, object],
) -> ReportCase:
    time = analysis.members.times[0]
    mask = _land_sea_mask(model)
    name = {} if isinstance(model, LatentModel) else {"background": "the model's seasonal climatology"}
    return ReportCase(
        title=f"Analysis of {iso(time)}",
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
        settings={**analysis.settings, **options},
        provenance={**name, **files, "card": model.card},
        timings={"analysis": analysis.seconds},
        flag_names={int(flag): flag.label for flag in Flag},
    )


def _land_sea_mask(model: Model | LatentModel) -> torch.Tensor | None:
    """Share of land, (lat, lon), where a model has it; one in a latent has it on the latent's grid."""
    if not isinstance(model, LatentModel):
        return model.static.get("land_sea_mask")
    maps = dict(zip(model.architecture.static, model.static, strict=True))
    if "land_sea_mask" not in maps:
        return None
    return interpolate(maps["land_sea_mask"][None, None], size=model.grid.shape, mode="bilinear")[0, 0]


def _with_flags(used: pd.DataFrame | None, table: pd.DataFrame) -> pd.DataFrame:
    """The whole table with hx_b and hx_a where observations were compared; elsewhere hx_b is what a check compared with, if any."""
    full = table.assign(hx_a=np.nan) if "hx_b" in table else table.assign(hx_b=np.nan, hx_a=np.nan)
    if used is not None:
        if "hx_b_error" in full:  # that of another background says nothing of this one
            other = ~np.isclose(full.loc[used.index, "hx_b"], used["hx_b"], rtol=1e-6)
            full.loc[used.index[other], "hx_b_error"] = np.nan
        full.loc[used.index, ["hx_b", "hx_a"]] = used[["hx_b", "hx_a"]]
    return full

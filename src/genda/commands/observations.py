"""``genda observations``: files of any readable kind to one table, its checks, and errors from departures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from genda.atomic import replacing
from genda.commands.outcome import Outcome, check_outputs, check_table_suffix, counted
from genda.observable import with_background
from genda.observations.checks import read_checks
from genda.observations.column_map import read_column_map
from genda.observations.errors import assign_errors, read_errors
from genda.observations.flags import Flag
from genda.observations.period import Period
from genda.observations.quality import (
    BASIC_CHECKS,
    run_checks,
)
from genda.observations.read import read_observations
from genda.observations.stations import read_station_list
from genda.observations.table import NOT_STORED, read_table, summary, validate, write_table
from genda.state import State, read_state
from genda.verify.innovations import error_entries

_HALF_DAY = 12.0
"""Hours between an observation and the background at most."""
_SHOWN = 10
"""Lost parts named in text; all of them in JSON."""


def read_observation_files(
    files: Sequence[Path],
    out: Path,
    columns: Path | None = None,
    stations: Path | None = None,
    keep_going: bool = False,
    since: str | None = None,
    until: str | None = None,
) -> Outcome:
    """Read, check (missing, bounds, duplicates) and write one Parquet table.

    Args:
        files: of any kind, or of one kind that ``columns`` describes.
        out: the table.
        columns: a column map (YAML).
        stations: IGRA's station list, for elevations.
        keep_going: keep the good part of damaged files, and count and report what was lost.
        since, until: first and last time to keep (ISO), a day as a whole; rows outside are counted.

    Raises:
        ValueError: naming the file, what was found and what was expected; nothing is written then.
    """
    check_outputs([out], [*files, *(path for path in (columns, stations) if path is not None)])
    check_table_suffix(out)
    lost: list[str] = []
    period = None if since is None and until is None else Period.of(since, until)
    table = read_observations(
        files,
        None if stations is None else read_station_list(stations),
        None if columns is None else read_column_map(columns),
        lost.append if keep_going else None,
        period,
    )
    not_stored = table.attrs.pop(NOT_STORED, {})
    table = run_checks(table, BASIC_CHECKS)
    table = assign_errors(table)
    validate(table, ", ".join(map(str, files)), complete=True)
    write_table(table, out)
    facts = summary(table) | {NOT_STORED: not_stored} | ({"lost": lost} if keep_going else {})
    facts |= {} if period is None else {"outside_period": period.left_out}
    lines = [f"{out}: " + ", ".join(counted(facts[f"{thing}s"], thing) for thing in ("row", "station", "sounding"))]
    lines += [f"  {kind}: " + ", ".join(f"{k} {v}" for k, v in facts[kind].items()) for kind in ("variables", "flags")]
    if period is not None:
        lines.append(f"  outside {period}: {counted(period.left_out, 'row')}")
    if not_stored:
        lines += ["  not stored:", *(f"    {reason}: {number}" for reason, number in not_stored.items())]
    if lost:
        lines += [f"  lost: {counted(len(lost), 'part')}", *(f"    {line}" for line in lost[:_SHOWN])]
        lines += [f"    … and {len(lost) - _SHOWN} more"] if len(lost) > _SHOWN else []
    return Outcome("\n".join(lines), facts)


def check_observation_files(
    files: Sequence[Path], out: Path | None, checks: Path | None, background: Path | None, errors: Path | None = None
) -> Outcome:
    """Run checks on observations of any readable kind and count what each flags.

    Args:
        files: observations.
        out: the table with flags (and ``hx_b``), if it is to be kept.
        checks: a list of checks (YAML); :data:`genda.observations.checks.DEFAULT` where None.
        background: a state of one or more times, netCDF or Zarr, that ``hx_b`` is computed from where it can be seen.
        errors: a file of errors (YAML).

    Raises:
        ValueError: naming the file or check, what was found and what was expected; nothing is written then.
    """
    check_outputs([out], [*files, *(path for path in (checks, background, errors) if path is not None)])
    check_table_suffix(out)
    listed = read_checks(checks)
    table = assign_errors(read_observations(files), read_errors(errors) if errors else ())
    if background is not None:
        table = nearest_background(table, read_state(background))
    rows = len(table)
    counts = {}
    for name, check in listed.items():
        before = table["quality"].to_numpy()
        table = run_checks(table, [check])
        after = table["quality"].to_numpy()
        changed = np.append(after[: len(before)] != before, np.zeros(len(after) - len(before), dtype=bool))
        counts[name] = {str(v): int(n) for v, n in table.loc[changed, "variable"].value_counts().items()}
    if out is not None:
        write_table(table, out)
    facts = summary(table) | {"checks": counts}
    lines = [f"{counted(rows, 'row')}, {int((table['quality'] == Flag.PASS).sum())} pass"]
    lines += [f"  {k}: {sum(v.values())}" + (f" ({_counted(v)})" if v else "") for k, v in counts.items()]
    return Outcome("\n".join([*lines, f"  flags: {_counted(facts['flags'])}"]), facts)


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def nearest_background(table: pd.DataFrame, state: State) -> pd.DataFrame:
    """The table with ``hx_b`` from the state's time nearest to each row, and an ensemble's spread about it as ``hx_b_error``."""
    order = np.argsort(state.times)
    times = state.times[order]
    later = np.searchsorted(times[:-1] + np.diff(times) / 2, table["time"].to_numpy(dtype=times.dtype))
    parts = [np.full(len(table), np.nan), np.full(len(table), np.nan)]
    for rows in pd.Series(later).groupby(later).indices.values():
        i = order[later[rows[0]]]
        one = State(state.values[i : i + 1], state.channels, state.grid, state.times[i : i + 1])
        filled = with_background(table.iloc[rows], one, state.times[i], _HALF_DAY)
        for values, column in zip(parts, ("hx_b", "hx_b_error"), strict=True):
            values[rows] = filled[column]
    return table.assign(hx_b=parts[0], hx_b_error=parts[1])


def estimate_errors(files: Sequence[Path], out: Path | None, by_source: bool, fewest: int) -> Outcome:
    """Observation errors that the departures of analyses imply (Desroziers), as a table and a file of errors.

    Args:
        files: tables with ``hx_b`` and ``hx_a`` (``genda assimilate --observations-out``).
        out: file of errors (YAML) to write.
        by_source: tell sources apart.
        fewest: departures that a group needs.

    Raises:
        ValueError: for tables without departures, or too few of them.
    """
    check_outputs([out], files)
    estimates, entries = error_entries([read_table(path) for path in files], by_source, fewest)
    if out is not None:
        with replacing(out) as partial:
            Path(partial).write_text(yaml.safe_dump({"errors": entries}, sort_keys=False), encoding="utf-8")
    shown = estimates.assign(pressure=estimates["pressure"] / 100.0).rename(columns={"pressure": "hPa"})
    records = [{k: None if v != v else v for k, v in row.items()} for row in shown.to_dict("records")]
    return Outcome(
        shown.to_string(index=False, float_format="{:.4g}".format), {"estimates": records, "errors": entries}
    )

"""``genda observations read``: files of any readable kind to one table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from genda.commands.outcome import Outcome, check_outputs
from genda.observations.column_map import read_column_map
from genda.observations.errors import assign_errors
from genda.observations.quality import (
    check_bounds,
    check_duplicates,
    check_missing,
    run_checks,
)
from genda.observations.read import read_observations
from genda.observations.stations import read_station_list
from genda.observations.table import summary, validate, write_table

_SHOWN = 10
"""Lost parts named in text; all of them in JSON."""


def read_observation_files(
    files: Sequence[Path],
    out: Path,
    columns: Path | None = None,
    stations: Path | None = None,
    keep_going: bool = False,
) -> Outcome:
    """Read, check (missing, bounds, duplicates) and write one Parquet table.

    Args:
        files: of any kind, or of one kind that ``columns`` describes.
        out: the table.
        columns: a column map (YAML).
        stations: IGRA's station list, for elevations.
        keep_going: keep the good part of damaged files, and count and report what was lost.

    Raises:
        ValueError: naming the file, what was found and what was expected; nothing is written then.
    """
    check_outputs(out, None)
    lost: list[str] = []
    table = read_observations(
        files,
        None if stations is None else read_station_list(stations),
        None if columns is None else read_column_map(columns),
        lost.append if keep_going else None,
    )
    table = run_checks(table, [check_missing, check_bounds, check_duplicates])
    table = assign_errors(table)
    validate(table, ", ".join(map(str, files)), complete=True)
    write_table(table, out)
    facts = summary(table) | ({"lost": lost} if keep_going else {})
    lines = [f"{out}: {facts['rows']} rows, {facts['stations']} stations, {facts['soundings']} soundings"]
    lines += [f"  {kind}: " + ", ".join(f"{k} {v}" for k, v in facts[kind].items()) for kind in ("variables", "flags")]
    if lost:
        lines += [f"  lost: {len(lost)} parts", *(f"    {line}" for line in lost[:_SHOWN])]
        lines += [f"    … and {len(lost) - _SHOWN} more"] if len(lost) > _SHOWN else []
    return Outcome("\n".join(lines), facts)

"""``genda observations read``: files of any readable kind to one table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from genda.commands.outcome import Outcome
from genda.observations.errors import assign_errors
from genda.observations.quality import (
    check_bounds,
    check_duplicates,
    check_missing,
    run_checks,
)
from genda.observations.read import read_observations
from genda.observations.table import summary, validate, write_table


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

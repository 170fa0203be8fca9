"""Observations: the table every point source shares, its readers and checks, simulated networks and operators."""

from genda.observations.errors import assign_errors, default_error
from genda.observations.flags import Flag, LevelType
from genda.observations.igra import read_igra
from genda.observations.networks import columns_table, land_weighted, random_columns, station_network, withhold
from genda.observations.quality import (
    check_background,
    check_bounds,
    check_domain,
    check_duplicates,
    check_missing,
    check_window,
    run_checks,
)
from genda.observations.read import read_observations
from genda.observations.soundings import select_levels
from genda.observations.stations import read_station_list
from genda.observations.table import read_table, summary, validate, write_table

__all__ = [
    "Flag",
    "LevelType",
    "assign_errors",
    "check_background",
    "check_bounds",
    "check_domain",
    "check_duplicates",
    "check_missing",
    "check_window",
    "columns_table",
    "default_error",
    "land_weighted",
    "random_columns",
    "read_igra",
    "read_observations",
    "read_station_list",
    "read_table",
    "run_checks",
    "select_levels",
    "station_network",
    "summary",
    "validate",
    "withhold",
    "write_table",
]

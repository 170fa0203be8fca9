"""Observations: the table every point source shares, its readers and checks, simulated networks and operators."""

from genda.observations.boxes import superob, thin
from genda.observations.buddies import check_buddies
from genda.observations.checks import check_departures, make_checks, read_checks
from genda.observations.column_map import ColumnMap, read_column_map
from genda.observations.elevation import check_elevation
from genda.observations.errors import assign_errors, default_error
from genda.observations.flags import Flag, LevelType
from genda.observations.igra import read_igra
from genda.observations.networks import (
    columns_table,
    distance_to_sites,
    land_weighted,
    random_columns,
    station_network,
    withhold,
)
from genda.observations.period import Period
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
from genda.observations.rules import Rule, check_denied, mark_passive
from genda.observations.soundings import select_levels
from genda.observations.stations import read_station_list
from genda.observations.table import read_table, summary, validate, write_table
from genda.observations.vertical import check_hydrostatic, check_lapse_rate, check_temperature_spikes, check_wind_spikes

__all__ = [
    "ColumnMap",
    "Flag",
    "LevelType",
    "Period",
    "Rule",
    "assign_errors",
    "check_background",
    "check_bounds",
    "check_buddies",
    "check_denied",
    "check_departures",
    "check_domain",
    "check_duplicates",
    "check_elevation",
    "check_hydrostatic",
    "check_lapse_rate",
    "check_missing",
    "check_temperature_spikes",
    "check_wind_spikes",
    "check_window",
    "columns_table",
    "default_error",
    "distance_to_sites",
    "land_weighted",
    "make_checks",
    "mark_passive",
    "random_columns",
    "read_checks",
    "read_column_map",
    "read_igra",
    "read_observations",
    "read_station_list",
    "read_table",
    "run_checks",
    "select_levels",
    "station_network",
    "summary",
    "superob",
    "thin",
    "validate",
    "withhold",
    "write_table",
]

"""Quality control as a list in a file: which checks, in which order, with which settings.

    checks:
      - missing
      - bounds
      - duplicates
      - denied: {rules: [{station: ["03953"]}, {variable: [q], above: 200}]}
      - hydrostatic: {tolerance: 40}
      - buddies
      - departures: {factor: 4}
      - passive: {rules: [{source: [bufr-aircraft]}]}

Checks and their settings are the arguments of the functions in :data:`CHECKS`; without a file it is :data:`DEFAULT`, which
needs no background.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, get_type_hints

import numpy as np
import pandas as pd
from pydantic import ValidationError, create_model

from genda.documents import Strict, first_complaint, read_yaml
from genda.observations.boxes import superob, thin
from genda.observations.buddies import check_buddies
from genda.observations.elevation import check_elevation
from genda.observations.quality import (
    Check,
    check_background,
    check_bounds,
    check_duplicates,
    check_missing,
    check_region,
    check_window,
)
from genda.observations.rules import check_denied, mark_passive
from genda.observations.soundings import select_levels
from genda.observations.vertical import (
    check_humidity_spikes,
    check_hydrostatic,
    check_lapse_rate,
    check_saturation,
    check_temperature_spikes,
    check_wind_spikes,
)

_HIGHEST_HPA = 1100.0


def check_departures(
    table: pd.DataFrame, factor: float = 4.0, background_error: dict[str, float] | None = None
) -> pd.DataFrame:
    """``BACKGROUND`` where |y − hx_b| > factor · √(σ_b² + σ_o²); rows without ``hx_b`` are left alone.

    Args:
        table: observations with ``obs_error`` and ``hx_b``.
        factor: standard deviations allowed.
        background_error: σ_b by variable, SI units; the column ``hx_b_error`` where None, and that of the observation where
            there is no such column, or nothing in it.

    Raises:
        ValueError: for a table without ``hx_b``, a variable without σ_b, or as :func:`check_background`.
    """
    if "hx_b" not in table:
        raise ValueError("found no column 'hx_b', expected a background (--background)")
    rows = table["hx_b"].notna().to_numpy()
    part = table[rows]
    sigma = part["hx_b_error"].fillna(part["obs_error"]) if "hx_b_error" in part else part["obs_error"]
    if background_error is not None:
        lacking = sorted(set(part["variable"]) - set(background_error))
        if lacking:
            raise ValueError(f"background_error: found none of {lacking[0]!r}, expected one of each variable")
        sigma = part["variable"].map(background_error)
    quality = table["quality"].to_numpy(copy=True)
    checked = check_background(part, part["hx_b"].to_numpy(), np.nan_to_num(sigma.to_numpy(dtype=np.float64)), factor)
    quality[rows] = checked["quality"]
    return table.assign(quality=quality)


def check_levels(table: pd.DataFrame, levels: Sequence[float], exact: bool = False) -> pd.DataFrame:
    """:func:`~genda.observations.soundings.select_levels` with pressures in hPa, the unit of files.

    Args:
        table: observations.
        levels: of the model, hPa.
        exact: keep only values reported at a level.

    Raises:
        ValueError: for a level that can't be hPa, or as :func:`~genda.observations.soundings.select_levels`.
    """
    if max(levels, default=0.0) > _HIGHEST_HPA:
        raise ValueError(f"levels: found {max(levels):g}, expected pressures in hPa of at most {_HIGHEST_HPA:g}")
    return select_levels(table, [100.0 * level for level in levels], exact)


CHECKS: Mapping[str, Callable[..., pd.DataFrame]] = {
    "missing": check_missing,
    "bounds": check_bounds,
    "duplicates": check_duplicates,
    "window": check_window,
    "denied": check_denied,
    "hydrostatic": check_hydrostatic,
    "lapse-rate": check_lapse_rate,
    "temperature-spikes": check_temperature_spikes,
    "wind-spikes": check_wind_spikes,
    "saturation": check_saturation,
    "humidity-spikes": check_humidity_spikes,
    "departures": check_departures,
    "buddies": check_buddies,
    "domain": check_region,
    "elevation": check_elevation,
    "levels": check_levels,
    "thinning": thin,
    "superob": superob,
    "passive": mark_passive,
}
DEFAULT = (
    "missing", "bounds", "duplicates", "hydrostatic", "lapse-rate", "temperature-spikes", "wind-spikes", "saturation",
    "humidity-spikes", "buddies",
)  # fmt: skip


def read_checks(path: str | os.PathLike[str] | None = None) -> dict[str, Check]:
    """Read a list of checks, in order; :data:`DEFAULT` where there is no file.

    Returns:
        checks by name, a second one of a name as "name 2": for :func:`~genda.observations.quality.run_checks`. What they
        refuse when they run names the file and the check too.

    Raises:
        ValueError: one line naming the file, the check and the setting that is wrong.
        FileNotFoundError: where there is no such file.
    """
    if path is None:
        return make_checks(DEFAULT)
    given = read_yaml(path, "a list under 'checks'")
    if not isinstance(given, dict) or set(given) != {"checks"} or not isinstance(given["checks"], list):
        raise ValueError(f"{path}: found {given!r:.60}, expected a list under 'checks'")
    return make_checks(given["checks"], str(path))


def make_checks(entries: Sequence[str | Mapping[str, Any]], where: str = "checks") -> dict[str, Check]:
    """Checks from names, or mappings of a name to its settings; returns and raises as :func:`read_checks`."""
    made: dict[str, Check] = {}
    for entry in entries:
        given = {entry: None} if isinstance(entry, str) else entry
        if not isinstance(given, Mapping) or len(given) != 1 or next(iter(given)) not in CHECKS:
            expected = f"one of {', '.join(CHECKS)}, or one with its settings"
            raise ValueError(f"{where}: found check {entry!r:.60}, expected {expected}")
        name, settings = next(iter(given.items()))
        label = name if name not in made else f"{name} {sum(key.split()[0] == name for key in made) + 1}"
        made[label] = _named(CHECKS[name], {} if settings is None else settings, f"{where}: {label}")
    return made


def _named(check: Callable[..., pd.DataFrame], given: Any, where: str) -> Check:
    """A check with settings as its own annotations want them, whose complaints begin with ``where``.

    Raises:
        ValueError: for a setting that it lacks, does not have or cannot read.
    """
    hints = get_type_hints(check, include_extras=True)
    fields: dict[str, Any] = {
        name: (hints[name], ... if parameter.default is inspect.Parameter.empty else parameter.default)
        for name, parameter in list(inspect.signature(check).parameters.items())[1:]
    }
    try:
        settings = dict(create_model("Settings", __base__=Strict, **fields).model_validate(given))
    except ValidationError as error:
        raise ValueError(f"{where}: {first_complaint(error)}") from None

    @wraps(check)
    def named(table: pd.DataFrame) -> pd.DataFrame:
        try:
            return check(table, **settings)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None

    return named

"""From quantities reported at places to table rows: where every reader ends.

A place is a level of a sounding, a flight level or a surface station at a time. A reader hands over arrays, one entry a
place, in SI units under the names of :data:`QUANTITIES`, NaN where nothing was reported, and gets one row per scalar that
the table can hold: z t u v q on levels, t2m u10 v10 msl at the surface. A value that was reported but can't be used keeps
its row and says why in ``quality``:

- on a level without pressure, or a place without time or position: ``MISSING``;
- not convertible (wind direction 925, pressure ≤ 0, vapour pressure above the pressure): NaN, ``BOUNDS``.

What gives no row, a speed without its direction or humidity at the surface, is counted (``attrs["not_stored"]``).

Humidity comes from the first of specific humidity, mixing ratio, dew point, dew-point depression and relative humidity that
was reported, wind from its components or from direction and speed. Errors of what was reported become errors of what is
stored, to first order (:mod:`genda.observations.conversions`); that of the pressure counts as far as humidity depends on it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genda.observations.conversions import (
    saturation_slope,
    saturation_vapour_pressure,
    specific_humidity,
    specific_humidity_error,
    wind_component_errors,
    wind_components,
)
from genda.observations.flags import Flag
from genda.observations.table import DTYPES, count_not_stored, identified

Array = NDArray[np.float64]
QUANTITIES = (
    "geopotential", "temperature", "u", "v", "wind_direction", "wind_speed", "specific_humidity", "mixing_ratio",
    "dewpoint", "dewpoint_depression", "relative_humidity", "pressure_at_sea_level",
)  # fmt: skip
"""m² s⁻², K, m/s, m/s, degrees, m/s, kg/kg, kg/kg, K, K, a fraction of saturation over water, Pa."""
_STORED_AS = {
    "geopotential": ("z", None), "temperature": ("t", "t2m"), "u": ("u", "u10"), "v": ("v", "v10"),
    "wind_direction": ("u", "u10"), "wind_speed": ("u", "u10"), "pressure_at_sea_level": (None, "msl"),
}  # fmt: skip
"""Where a quantity goes on levels and at the surface; the others become q."""
_PARTNERS = {
    "wind_direction": "wind_speed", "wind_speed": "wind_direction", "dewpoint_depression": "temperature",
    "relative_humidity": "temperature",
}  # fmt: skip
"""What a quantity is nothing without."""
UPPER_AIR = ("z", "t", "u", "v", "q")
SURFACE = ("t2m", "u10", "v10", "msl")


@dataclass(frozen=True)
class Places:
    """One entry per place.

    Attributes:
        stations: distinct identifiers, empty where unknown. station: index into them.
        time: datetime64; NaT where unknown, with the day in ``date`` if that is known.
        latitude, longitude: degrees, any range of longitude; NaN where unknown.
        elevation: of the station, m; NaN where unknown.
        pressure: Pa as reported, NaN where not; None for places at the surface.
        date: the day, where the time of day is unknown.
        level_type: :class:`~genda.observations.flags.LevelType` of each, where the source tells.
    """

    stations: Sequence[str]
    station: NDArray[np.intp]
    time: NDArray[np.datetime64]
    latitude: Array
    longitude: Array
    elevation: Array
    pressure: Array | None
    date: NDArray[np.datetime64] | None = None
    level_type: NDArray[np.int8] | None = None


def observation_table(
    places: Places,
    reported: Mapping[str, Array],
    source: str,
    errors: Mapping[str, Array] | None = None,
    denied: Mapping[str, NDArray[np.bool_]] | None = None,
) -> pd.DataFrame:
    """The observation table, place by place, variables in the order of :data:`UPPER_AIR` or :data:`SURFACE`.

    Args:
        places: where and when.
        reported: arrays by the names of :data:`QUANTITIES`, (place,) each; what is absent was not reported.
        source: for the column of that name.
        errors: standard deviations by the same names and units, and of "pressure" in Pa; 0, NaN or absent where unknown.
        denied: what the source itself has rejected, by the same names; rows that need it are flagged ``DENIED``.

    Raises:
        ValueError: for a name that is no quantity.
    """
    unknown = (set(reported) | set(errors or {})) - {*QUANTITIES, "pressure"}
    if unknown:
        raise ValueError(f"quantity {min(unknown)!r}: expected one of {', '.join(QUANTITIES)}")
    on_levels = places.pressure is not None
    size = places.station.size
    raw = np.full(size, np.nan) if places.pressure is None else places.pressure
    pressure = np.where(raw > 0, raw, np.nan)
    not_stored = {f"error of {name}: 0 says nothing": (given == 0).sum() for name, given in (errors or {}).items()}
    errors = {name: np.where(given > 0, given, np.nan) for name, given in (errors or {}).items()}
    columns = _columns(reported, pressure, errors, on_levels)
    not_stored |= _not_stored(reported, columns, on_levels)
    known, value = (np.stack([column[k] for column in columns], axis=1) for k in (0, 1))
    usable = known
    if denied:
        left = {name: np.where(denied[name], np.nan, v) if name in denied else v for name, v in reported.items()}
        columns = _columns(left, pressure, errors, on_levels)
        usable = np.stack([column[0] for column in columns], axis=1)
        value = np.where(usable, np.stack([column[1] for column in columns], axis=1), value)
    place, variable = np.nonzero(known)
    observation = value[known]
    finite = np.isfinite(observation)

    time = places.time.astype("datetime64[ns]")
    lacking = np.isnat(time) | np.isnan(places.latitude) | np.isnan(places.longitude)
    if places.date is not None:
        time = np.where(np.isnat(time), places.date.astype("datetime64[ns]"), time)
    longitude = np.mod(places.longitude, 360.0)
    longitude[longitude >= 360.0] = 0.0  # the modulus of −1e-17 rounds to 360
    quality = np.where(finite, Flag.PASS, Flag.BOUNDS).astype(np.int16)
    quality[~usable[known]] = Flag.DENIED
    if on_levels:
        quality[(~np.isnan(raw) & np.isnan(pressure))[place]] = Flag.BOUNDS
        lacking |= np.isnan(raw)
    quality[lacking[place]] = Flag.MISSING
    obs_error = np.full(place.size, np.nan)
    if errors:
        sigma = np.stack([column[2] for column in columns], axis=1)[known]
        obs_error[sigma > 0] = sigma[sigma > 0]

    table = {
        "time": time[place],
        "latitude": places.latitude[place],
        "longitude": longitude[place],
        "pressure": pressure[place],
        "elevation": places.elevation[place],
        "variable": _names(UPPER_AIR if on_levels else SURFACE, variable),
        "observation": np.where(finite, observation, np.nan),
        "obs_error": obs_error,
        "station": _names(places.stations, places.station[place]),
        "source": _names((source,), np.zeros(place.size, dtype=np.intp)),
        "quality": quality,
    }
    table = {name: table[name] for name in DTYPES}
    if places.level_type is not None:
        table["level_type"] = places.level_type[place]
    whole = pd.DataFrame(table, copy=False)
    count_not_stored(whole, not_stored)
    return identified(whole) if any(not name.strip() for name in places.stations) else whole


def _not_stored(reported: Mapping[str, Array], columns: Sequence[Column], on_levels: bool) -> dict[str, int]:
    """How many values of every quantity gave no row, with the reason."""
    known = dict(zip(UPPER_AIR if on_levels else SURFACE, (column[0] for column in columns), strict=True))
    counts = {}
    for name, values in reported.items():
        stored = _STORED_AS.get(name, ("q", None))[0 if on_levels else 1]
        if stored is None:
            counts[f"{name}: needs {'a place at the surface' if on_levels else 'a pressure'}"] = (
                ~np.isnan(values)
            ).sum()
        elif name in _PARTNERS:
            counts[f"{name}: needs {_PARTNERS[name]}"] = (~np.isnan(values) & ~known[stored]).sum()
    return counts


def _names(names: Sequence[str], codes: NDArray[np.intp]) -> pd.Index:
    """Text of integer codes; taking from the few distinct strings is ten times faster than building them one by one."""
    return pd.Index(list(names), dtype="str").take(codes)


Column = tuple[NDArray[np.bool_], Array, Array]
"""Whether it was reported, its value, its error; (place,) each."""


def _columns(
    reported: Mapping[str, Array], pressure: Array, errors: Mapping[str, Array], on_levels: bool
) -> list[Column]:
    nothing = np.full(pressure.size, np.nan)
    column: dict[str, Column] = {}
    for name in ("geopotential", "temperature", "pressure_at_sea_level"):
        value = reported.get(name, nothing)
        column[name] = (~np.isnan(value), value, errors.get(name, nothing))
    u, v = _wind(reported, errors, nothing)
    if not on_levels:
        return [column["temperature"], u, v, column["pressure_at_sea_level"]]
    return [column["geopotential"], column["temperature"], u, v, _humidity(reported, pressure, errors, nothing)]


def _wind(reported: Mapping[str, Array], errors: Mapping[str, Array], nothing: Array) -> tuple[Column, Column]:
    direction, speed = reported.get("wind_direction", nothing), reported.get("wind_speed", nothing)
    by_speed = ~np.isnan(speed) & (~np.isnan(direction) | (speed == 0))
    from_speed = wind_components(direction, speed)
    sigmas = (nothing, nothing)
    if "wind_speed" in errors or "wind_direction" in errors:
        sigmas = wind_component_errors(
            direction, speed, errors.get("wind_direction", nothing), errors.get("wind_speed", nothing)
        )
    columns = []
    for name, value, sigma in zip(("u", "v"), from_speed, sigmas, strict=True):
        if name not in reported:
            columns.append((by_speed, value, sigma))
            continue
        given = ~np.isnan(reported[name])
        own = np.where(given, errors.get(name, nothing), sigma)
        columns.append((given | by_speed, np.where(given, reported[name], value), own))
    return columns[0], columns[1]


def _humidity(reported: Mapping[str, Array], pressure: Array, errors: Mapping[str, Array], nothing: Array) -> Column:
    temperature = reported.get("temperature", nothing)
    at_pressure = np.nan_to_num(errors.get("pressure", nothing)) if errors else 0.0
    known, q, sigma = np.zeros(nothing.size, dtype=bool), nothing.copy(), nothing.copy()
    for name in ("specific_humidity", "mixing_ratio", "dewpoint", "dewpoint_depression", "relative_humidity"):
        if name not in reported:
            continue
        given = ~np.isnan(reported[name]) & ~known
        if name in ("dewpoint_depression", "relative_humidity"):
            given &= ~np.isnan(temperature)
        rows = np.flatnonzero(given)
        value, own = reported[name][rows], errors.get(name, nothing)[rows]
        t, of_t, p = temperature[rows], errors.get("temperature", nothing)[rows], pressure[rows]
        known |= given
        if name == "specific_humidity":
            q[rows], sigma[rows] = value, own
        elif name == "mixing_ratio":
            q[rows], sigma[rows] = value / (1.0 + value), own / (1.0 + value) ** 2
        else:
            e, of_e = _vapour(name, value, own, t, of_t, bool(errors))
            q[rows] = specific_humidity(e, p)
            if errors:
                sigma[rows] = specific_humidity_error(e, p, of_e, np.broadcast_to(at_pressure, nothing.shape)[rows])
    return known, q, sigma


def _vapour(
    name: str, value: Array, error: Array, temperature: Array, temperature_error: Array, with_errors: bool
) -> tuple[Array, Array]:
    """Vapour pressure and its error; an unknown error of the temperature counts as none."""
    if name == "relative_humidity":
        saturation = saturation_vapour_pressure(temperature)
        if not with_errors:
            return value * saturation, error
        by_temperature = value * saturation_slope(temperature) * np.nan_to_num(temperature_error)
        return value * saturation, np.hypot(saturation * error, by_temperature)
    dewpoint = value if name == "dewpoint" else temperature - value
    if name == "dewpoint_depression":
        error = np.hypot(error, np.nan_to_num(temperature_error))
    return saturation_vapour_pressure(dewpoint), saturation_slope(dewpoint) * error if with_errors else error

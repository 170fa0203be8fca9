r"""Levels of a sounding held against each other: heights against temperatures, lapse rates, spikes.

Heights and temperatures of a sounding are redundant: between two levels

    Δz = R_d ∫ T_v d ln p

A wrong height disagrees with the thickness of the layer below and, the other way round, with that of the layer above. A wrong
temperature does so with the same sign in both, as far as no other temperature was reported there; a warm or cold spike
between its neighbours is what gives it away elsewhere, and so is a lapse rate that no air can keep.

Reference: Collins and Gandin 1990, Mon. Wea. Rev. 118, 2752 (comprehensive hydrostatic quality control).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genda.observations.conversions import saturation_vapour_pressure, specific_humidity
from genda.observations.flags import Flag, LevelType
from genda.observations.quality import set_flag
from genda.observations.table import soundings
from genda.variables import GAS_CONSTANT, STANDARD_GRAVITY

Array = NDArray[np.float64]
_VIRTUAL = 0.608
_WIDEST = 0.45
"""In ln p, between temperatures that say something about all between them: from 700 to 500 hPa it is 0.34."""


@dataclass(frozen=True)
class _Profile:
    """Passing rows of one variable, sounding by sounding upwards; ``neighbour`` where the next row is the level above."""

    row: NDArray[np.intp]
    sounding: NDArray[np.intp]
    log_pressure: Array
    value: Array

    @property
    def neighbour(self) -> NDArray[np.bool_]:
        return np.asarray(self.sounding[1:] == self.sounding[:-1])


def check_hydrostatic(table: pd.DataFrame, tolerance: float = 30.0, relative: float = 0.012) -> pd.DataFrame:
    """``PROFILE`` where a height, or the temperature at its level, is at odds with the thickness of its layers.

    Repeated without what was flagged till nothing more is: two wrong heights in a row hide each other. Heights of standard
    levels are held against each other only, and so are those of the other levels: TEMP reports the former alone, the latter
    are integrated later, from another station height at times, and a constant offset is no error of either's thickness.

    Args:
        table: observations; soundings are told apart by station, time and source, standard levels by ``level_type``.
        tolerance: of the thickness of a layer, m.
        relative: share of the thickness that is allowed besides (1.2 % is 3 K).

    Raises:
        ValueError: for a tolerance that is not positive.
    """
    if not (tolerance > 0 and relative >= 0):
        raise ValueError(
            f"tolerance: found {tolerance:g} m and {relative:g}, expected a positive and no negative number"
        )
    kinds = [np.ones(len(table), dtype=bool)]
    if "level_type" in table:
        standard = (table["level_type"] == LevelType.STANDARD).to_numpy()
        kinds = [standard, ~standard]
    for kind in kinds:
        while (wrong := _hydrostatic(table, kind, tolerance, relative)).any():
            table = set_flag(table, wrong, Flag.PROFILE)
    return table


def _hydrostatic(table: pd.DataFrame, among: NDArray[np.bool_], tolerance: float, relative: float) -> NDArray[np.bool_]:
    """Passing rows that the thicknesses between heights ``among`` all others contradict."""
    wrong = np.zeros(len(table), dtype=bool)
    height, temperature, humidity = _profile(table, "z", among), _profile(table, "t"), _profile(table, "q")
    if height.row.size < 2 or temperature.row.size < 2:
        return wrong
    virtual = temperature.value * (1.0 + _VIRTUAL * np.nan_to_num(_at(humidity, temperature)))
    integral, covered, gaps = _integral(replace(temperature, value=virtual), height)
    whole = height.neighbour & covered[1:] & covered[:-1] & (np.diff(gaps) == 0)
    thickness = np.where(whole, np.diff(integral), np.nan)
    gap = np.diff(height.value) / STANDARD_GRAVITY - thickness
    limit = tolerance + relative * np.abs(thickness)
    excess = np.where(np.abs(gap) > limit, gap, 0.0)
    known = ~np.isnan(gap)
    below, above = np.append(0.0, excess), np.append(excess, 0.0)
    known_below, known_above = np.append(False, known), np.append(known, False)
    wrong_height = (below * above < 0) & (np.abs(below + above) < 0.5 * (np.abs(below) + np.abs(above)))
    # At an end of the profile only one layer tells: the height is to blame where the other end of the layer is not.
    clear = known & (excess == 0.0)
    clear_below, clear_above = np.append(False, clear), np.append(clear, False)
    last = (below != 0) & ~known_above & np.append(False, clear_below[:-1])
    first = (above != 0) & ~known_below & np.append(clear_above[1:], False)
    wrong_height |= last | first
    # What a wrong height next to it explains is no temperature's fault; the next round shows.
    beside = np.pad(wrong_height, 1)
    both = (below * above > 0) & ~(wrong_height | beside[:-2] | beside[2:])
    wrong[height.row[wrong_height]] = True
    wrong[_same_level(temperature, height, both)] = True
    return wrong


def check_lapse_rate(table: pd.DataFrame, steepest: float = 15.0, slack: float = 3.0) -> pd.DataFrame:
    """``PROFILE`` on temperatures between which it falls faster with height than any air can for long.

    A dry parcel cools by 9.8 K/km; more is kept only by thin layers above hot ground. Of the two levels that one is flagged
    which lies further from the line through its other neighbours.

    Args:
        table: observations.
        steepest: K/km allowed.
        slack: K allowed besides, for thin layers.
    """
    profile = _profile(table, "t")
    wrong = np.zeros(len(table), dtype=bool)
    if profile.row.size < 3:
        return table
    depth = (
        GAS_CONSTANT
        / STANDARD_GRAVITY
        * 0.5
        * (profile.value[1:] + profile.value[:-1])
        * -np.diff(profile.log_pressure)
    )
    steep = profile.neighbour & (-np.diff(profile.value) > steepest * depth / 1000.0 + slack)
    distance = np.nan_to_num(np.abs(_from_line(profile)))
    for lower in np.flatnonzero(steep):
        wrong[profile.row[lower if distance[lower] > distance[lower + 1] else lower + 1]] = True
    return set_flag(table, wrong, Flag.PROFILE)


def check_temperature_spikes(table: pd.DataFrame, limit: float = 12.0, widening: float = 15.0) -> pd.DataFrame:
    """``PROFILE`` on temperatures further than a limit from the line in ln p through the levels above and below.

    Args:
        table: observations.
        limit: K, for close levels.
        widening: K more for each unit of ln p between the neighbours: inversions and the tropopause are turns, too.
    """
    profile = _profile(table, "t")
    wrong = np.zeros(len(table), dtype=bool)
    wrong[profile.row[_spikes(profile, np.abs(_from_line(profile)), limit, widening)]] = True
    return set_flag(table, wrong, Flag.PROFILE)


def check_wind_spikes(table: pd.DataFrame, limit: float = 12.0, widening: float = 20.0) -> pd.DataFrame:
    """``PROFILE`` on winds whose vector is further than a limit from the line in ln p through the levels above and below.

    Args:
        table: observations.
        limit: m/s, for close levels.
        widening: m/s more for each unit of ln p between the neighbours.
    """
    u, v = _profile(table, "u"), _profile(table, "v")
    if not np.array_equal(u.sounding, v.sounding) or not np.array_equal(u.log_pressure, v.log_pressure):
        both = _pairs(table)
        u, v = _profile(table, "u", both), _profile(table, "v", both)
    wrong = np.zeros(len(table), dtype=bool)
    spikes = _spikes(u, np.hypot(_from_line(u), _from_line(v)), limit, widening)
    wrong[u.row[spikes]] = wrong[v.row[spikes]] = True
    return set_flag(table, wrong, Flag.PROFILE)


def check_saturation(table: pd.DataFrame, excess: float = 0.2) -> pd.DataFrame:
    """``PROFILE`` where specific humidity exceeds saturation over water at its level's temperature by more than a share."""
    humidity, temperature = _profile(table, "q"), _profile(table, "t")
    pressure = np.exp(humidity.log_pressure)
    most = specific_humidity(saturation_vapour_pressure(_at(temperature, humidity)), pressure)
    wrong = np.zeros(len(table), dtype=bool)
    wrong[humidity.row[humidity.value > (1.0 + excess) * np.where(np.isnan(most), np.inf, most)]] = True
    return set_flag(table, wrong, Flag.PROFILE)


def check_humidity_spikes(table: pd.DataFrame, limit: float = 0.35, widening: float = 0.7) -> pd.DataFrame:
    """``PROFILE`` on humidities whose relative humidity is further than a limit from the line through the levels above and below.

    Args:
        table: observations.
        limit: fraction of saturation over water, for close levels.
        widening: fraction more for each unit of ln p between the neighbours.
    """
    humidity, temperature = _profile(table, "q"), _profile(table, "t")
    most = specific_humidity(saturation_vapour_pressure(_at(temperature, humidity)), np.exp(humidity.log_pressure))
    relative = replace(humidity, value=humidity.value / most)
    wrong = np.zeros(len(table), dtype=bool)
    wrong[humidity.row[_spikes(humidity, np.abs(_from_line(relative)), limit, widening)]] = True
    return set_flag(table, wrong, Flag.PROFILE)


def _spikes(profile: _Profile, distance: Array, limit: float, widening: float) -> NDArray[np.bool_]:
    """Levels too far from the line through their neighbours, but not those whose neighbour is further: it bent the line."""
    span = np.full(profile.row.size, np.nan)
    span[1:-1] = profile.log_pressure[:-2] - profile.log_pressure[2:]
    excess = np.nan_to_num(distance - limit - widening * span, nan=-1.0)
    inner = np.pad(excess, 1, constant_values=-1.0)
    same = np.pad(profile.neighbour, 1, constant_values=False)
    nearby = np.maximum(np.where(same[:-1], inner[:-2], -1.0), np.where(same[1:], inner[2:], -1.0))
    return (excess > 0) & (excess >= nearby)


def _from_line(profile: _Profile) -> Array:
    """Distance of every level from the line in ln p through its neighbours; NaN at the ends."""
    x, y = profile.log_pressure, profile.value
    distance = np.full(y.size, np.nan)
    if y.size < 3:
        return distance
    inner = profile.neighbour[1:] & profile.neighbour[:-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        part = (x[1:-1] - x[:-2]) / (x[2:] - x[:-2])
    distance[1:-1] = np.where(inner, y[1:-1] - y[:-2] - part * (y[2:] - y[:-2]), np.nan)
    return distance


def _profile(table: pd.DataFrame, variable: str, among: NDArray[np.bool_] | None = None) -> _Profile:
    """One variable's passing rows in order; of those ``among`` only, where given."""
    good = ((table["quality"] == Flag.PASS) & (table["variable"] == variable)).to_numpy()
    rows = np.flatnonzero(good if among is None else good & among)
    sounding = soundings(table)[rows]
    log_pressure = np.log(table["pressure"].to_numpy()[rows])
    order = np.lexsort((-log_pressure, sounding))
    rows, sounding, log_pressure = rows[order], sounding[order], log_pressure[order]
    return _Profile(rows, sounding, log_pressure, table["observation"].to_numpy()[rows])


def _pairs(table: pd.DataFrame) -> NDArray[np.bool_]:
    """Passing rows of u that have a passing v at their level, and the other way round."""
    wind = (table["variable"].isin(["u", "v"]) & (table["quality"] == Flag.PASS)).to_numpy()
    both = np.zeros(len(table), dtype=bool)
    level = soundings(table[wind], "pressure")
    both[wind] = table["variable"][wind].groupby(level).transform("nunique").to_numpy() == 2
    return both


def _key(profile: _Profile) -> Array:
    """A number that grows along all profiles in turn: within one, upwards."""
    return 100.0 * profile.sounding - profile.log_pressure


def _at(profile: _Profile, where: _Profile) -> Array:
    """A profile at the levels of another, linear in ln p; NaN outside or where there is none."""
    if not profile.row.size:
        return np.full(where.row.size, np.nan)
    key, wanted = _key(profile), _key(where)
    above = np.searchsorted(key, wanted - 1e-7).clip(0, key.size - 1)
    below = np.searchsorted(key, wanted + 1e-7, side="right").clip(1) - 1
    inside = (profile.sounding[above] == where.sounding) & (profile.sounding[below] == where.sounding)
    value = np.interp(wanted, key, profile.value)
    return np.where(inside & (wanted >= key[0] - 1e-7) & (wanted <= key[-1] + 1e-7), value, np.nan)


def _integral(temperature: _Profile, height: _Profile) -> tuple[Array, NDArray[np.bool_], NDArray[np.intp]]:
    """Height in m of every level of the heights above the first temperature, where it is known, and gaps in between so far."""
    key = _key(temperature)
    steps = 0.5 * (temperature.value[1:] + temperature.value[:-1]) * -np.diff(temperature.log_pressure)
    total = np.concatenate([[0.0], np.cumsum(np.where(temperature.neighbour, steps, 0.0))])
    wanted = _key(height)
    value = _at(temperature, height)
    below = np.searchsorted(key, wanted + 1e-7, side="right").clip(1) - 1
    rest = 0.5 * (temperature.value[below] + value) * (wanted - key[below])
    wide = np.append(temperature.neighbour & (-np.diff(temperature.log_pressure) > _WIDEST), False)
    gaps = np.concatenate([[0], np.cumsum(wide)])[below]
    return GAS_CONSTANT / STANDARD_GRAVITY * (total[below] + rest), ~np.isnan(value), gaps


def _same_level(profile: _Profile, where: _Profile, chosen: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Rows of a profile at the chosen levels of another."""
    near = np.isin(np.round(_key(profile), 6), np.round(_key(where)[chosen], 6))
    return profile.row[near]

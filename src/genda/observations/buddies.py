r"""Neighbours in space, height and time: the buddy check.

Departures d of a variable from a first guess have the covariance K = σ_b² ρ + σ_o², with a correlation ρ that
falls off with distance on the sphere, in ln p and in time. What the others lead one to expect of observation i, and how well,
is contained in the inverse:

    d_i − E[d_i | others] = (K^{-1} d)_i / (K^{-1})_ii,      variance 1 / (K^{-1})_ii

The observation with the largest ratio of the two is flagged if that exceeds a limit and leaves K by a rank-one downdate, till
none does: a wrong value can't condemn its neighbours. The first guess is the column ``hx_b`` where it is filled, else a fit to
the observations themselves, a polynomial in the sine of latitude and ln p that large departures pull less (Huber), and at the
surface linear in the elevation of the station. Its
coefficients b are unknown, too: K = σ_b² ρ + σ_o² + σ_∞² F Fᵀ for departures d = F b + …, so that what stands where the fit
has nothing else to hold to, as Antarctica does, is not judged by it.

Reference: Lorenc 1981, Mon. Wea. Rev. 109, 701 (the check); Gandin 1988, Mon. Wea. Rev. 116, 1137.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genda.grid import EARTH_RADIUS, unit_vectors
from genda.observations.conditions import Variables
from genda.observations.flags import Flag, LevelType
from genda.observations.quality import set_flag
from genda.variables import field

Array = NDArray[np.float64]
_LAYER = 0.25
"""Thickness in ln p of the layers that are checked one by one."""
_MOST = 1500
"""Observations at most that are held against each other (18 MB): a box of at most half of them and those around it."""
_REACH = 3.0
"""Lengths of the correlation, which falls to a fifth there, from a box within which others bear on what is in it."""
_FIT = 3
_VAGUE = 30.0
"""Standard deviation of the fit's coefficients in units of the departures': as good as unknown."""


def check_buddies(
    table: pd.DataFrame,
    factor: float = 5.5,
    background_error: float | None = None,
    length_km: float = 600.0,
    depth: float = 0.3,
    hours: float = 6.0,
    variables: Variables = ("z", "t", "u", "v", "t2m", "u10", "v10", "msl"),
) -> pd.DataFrame:
    """``BUDDY`` where a value is further from what its neighbours let expect than ``factor`` standard deviations.

    Args:
        table: observations with ``obs_error``.
        factor: standard deviations allowed.
        background_error: σ_b in units of the observation error; None takes what the departures of each layer show.
        length_km: L of ρ = (1 + r/L) exp(−r/L).
        depth: standard deviation of the correlation in ln p.
        hours: standard deviation of the correlation in time.
        variables: to check, by any of their names; humidity varies by itself as much as by error.

    Raises:
        ValueError: for a passing row without ``obs_error``, or a scale that is not positive.
    """
    for name, value in (("factor", factor), ("length_km", length_km), ("depth", depth), ("hours", hours)):
        if not value > 0:
            raise ValueError(f"{name}: found {value}, expected a number above 0")
    passed = (table["quality"] == Flag.PASS).to_numpy() & table["variable"].isin(
        [field(name).id for name in variables]
    ).to_numpy()
    if table["obs_error"].to_numpy()[passed].size and np.isnan(table["obs_error"].to_numpy()[passed]).any():
        raise ValueError("obs_error: found NaN on a passing row, expected assigned errors (assign_errors)")
    wrong = np.zeros(len(table), dtype=bool)
    for rows, judged in _boxes(table, passed, length_km, depth, hours):
        part = table.iloc[rows]
        sigma_o = part["obs_error"].to_numpy()
        departure, trend = _departures(part)
        scale = 1.4826 * float(np.median(np.abs(departure - np.median(departure))))
        spread = np.sqrt(max(scale**2 - float(np.median(sigma_o)) ** 2, 0.0))
        sigma_b = spread if background_error is None else background_error * sigma_o
        correlation = _correlation(part, length_km, depth, hours)
        covariance = correlation * np.outer(np.broadcast_to(sigma_b, rows.size), np.broadcast_to(sigma_b, rows.size))
        covariance[np.diag_indices(rows.size)] += sigma_o**2
        covariance += (_VAGUE * scale) ** 2 * trend @ trend.T
        found = outliers(np.asarray(np.linalg.inv(covariance), dtype=np.float64), departure, factor)
        wrong[rows[found[judged[found]]]] = True
    return set_flag(table, wrong, Flag.BUDDY)


def outliers(precision: Array, departure: Array, factor: float) -> NDArray[np.intp]:
    """Indices of departures that the others contradict, the worst first.

    Args:
        precision: K^{-1}, shape (n, n); is overwritten.
        departure: d, shape (n,).
        factor: standard deviations allowed.
    """
    pull = precision @ departure
    found: list[int] = []
    left = np.ones(departure.size, dtype=bool)
    while left.sum() > 1:
        diagonal = precision.diagonal()
        ratio = np.where(left, np.abs(pull) / np.sqrt(np.maximum(diagonal, 1e-300)), -1.0)
        worst = int(ratio.argmax())
        if ratio[worst] <= factor:
            break
        column = precision[:, worst] / np.sqrt(precision[worst, worst])
        pull -= column * (pull[worst] / np.sqrt(precision[worst, worst]))
        precision -= np.outer(column, column)
        found.append(worst)
        left[worst] = False
    return np.array(found, dtype=np.intp)


def _boxes(
    table: pd.DataFrame, passed: NDArray[np.bool_], length_km: float, depth: float, hours: float
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.bool_]]]:
    """Rows to hold against each other, and which of them are judged thereby: each row once, in a box with those around it."""
    for group in _groups(table, passed):
        if group.size <= _MOST:
            yield group, np.ones(group.size, dtype=bool)
            continue
        part = table.iloc[group]
        log_p = np.log(part["pressure"].fillna(1e5).to_numpy()) / depth
        position = np.column_stack([_points(part) * EARTH_RADIUS / (1000.0 * length_km), log_p, _hours(part) / hours])
        for box in _halved(position, np.arange(group.size)):
            low, high = position[box].min(axis=0), position[box].max(axis=0)
            away = np.linalg.norm(position - position.clip(low, high), axis=1)
            away[box] = -1.0  # its own first
            nearest = np.argsort(away, kind="stable")[:_MOST]
            nearest = nearest[away[nearest] <= _REACH]
            yield group[nearest], away[nearest] < 0


def _halved(position: Array, rows: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    """Boxes of at most half of what can be held against each other, each cut in two across its longest side."""
    if rows.size <= _MOST // 2:
        yield rows
        return
    side = np.ptp(position[rows], axis=0).argmax()
    ordered = rows[np.argsort(position[rows, side], kind="stable")]
    for half in np.array_split(ordered, 2):
        yield from _halved(position, half)


def _groups(table: pd.DataFrame, passed: NDArray[np.bool_]) -> Iterator[NDArray[np.intp]]:
    """Passing rows of one variable in one layer, where there are enough for a fit.

    Heights of standard levels are apart from the others, as in :func:`genda.observations.vertical.check_hydrostatic`.
    """
    layer = np.floor(np.log(table["pressure"].fillna(1.0).to_numpy() / 1e5) / _LAYER)
    apart = np.zeros(len(table), dtype=bool)
    if "level_type" in table:
        apart = ((table["variable"] == "z") & (table["level_type"] == LevelType.STANDARD)).to_numpy()
    frame = pd.DataFrame({"variable": table["variable"].to_numpy(), "layer": layer, "apart": apart})[passed]
    for rows in frame.groupby(list(frame), sort=True).indices.values():
        if len(rows) > _FIT + 2:
            yield np.flatnonzero(passed)[np.asarray(rows)]


def _departures(part: pd.DataFrame) -> tuple[Array, Array]:
    """From ``hx_b`` where every row has it, else from a robust fit; and the fit's terms, (n, terms), none with ``hx_b``."""
    value = part["observation"].to_numpy()
    if "hx_b" in part and part["hx_b"].notna().all():
        return np.asarray(value - part["hx_b"].to_numpy()), np.empty((value.size, 0))
    sine = np.sin(np.radians(part["latitude"].to_numpy()))
    log_p = np.log(part["pressure"].fillna(1e5).to_numpy())
    log_p = log_p - log_p.mean()
    height = part["elevation"].where(part["pressure"].isna())  # of stations at the surface
    height = height.fillna(height.mean()).fillna(0.0)
    terms = [np.ones_like(sine)]
    for term in [*(sine**k for k in range(1, _FIT + 1)), log_p, log_p * sine, height.to_numpy()]:
        if np.ptp(term) > 1e-6:
            terms.append((term - term.mean()) / term.std())
    basis = np.stack(terms, axis=1)
    weight = np.ones_like(value)
    residual = value - np.median(value)
    for _ in range(10):
        weighted = basis * weight[:, None]
        ridge = 1e-6 * value.size * np.eye(basis.shape[1])
        residual = value - basis @ np.linalg.solve(weighted.T @ basis + ridge, weighted.T @ value)
        scale = 1.4826 * np.median(np.abs(residual)) + 1e-300
        weight = 1.0 / np.maximum(1.0, np.abs(residual) / (1.5 * scale))
    return np.asarray(residual), basis


def _points(part: pd.DataFrame) -> Array:
    return unit_vectors(part["latitude"].to_numpy(), part["longitude"].to_numpy())


def _hours(part: pd.DataFrame) -> Array:
    return np.asarray((part["time"] - part["time"].min()).to_numpy() / np.timedelta64(1, "h"))


def _correlation(part: pd.DataFrame, length_km: float, depth: float, hours: float) -> Array:
    points = _points(part)
    chord = np.sqrt(np.maximum(2.0 - 2.0 * points @ points.T, 0.0)) * EARTH_RADIUS / (1000.0 * length_km)
    log_p = np.log(part["pressure"].fillna(1e5).to_numpy()) / depth
    time = _hours(part) / hours
    apart = np.subtract.outer(log_p, log_p) ** 2 + np.subtract.outer(time, time) ** 2
    return np.asarray((1.0 + chord) * np.exp(-chord - 0.5 * apart))

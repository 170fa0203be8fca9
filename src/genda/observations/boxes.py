r"""Fewer observations where they are dense: means over boxes, and the best sounding of a box.

A box is about square, ``box_km`` wide, and ``hours`` long; what a box holds of one source is a *column*, from which a model takes
one value a level and variable like from a sounding.

**Super-observations** are means level by level over the soundings of a column. The error of n values whose errors have
correlation c is σ √((1 + (n − 1) c) / n); c is what neighbours share, such as what no model of this resolution has.

**Thinning** keeps of each box the sounding that reports most, and others where it reports nothing.

Both stand in for levels of a sounding: what follows them (:func:`~genda.observations.soundings.select_levels`,
:func:`~genda.observations.errors.sounding_blocks`) treats a column as the sounding that it is.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genda.grid import EARTH_RADIUS
from genda.observations.flags import Flag, LevelType
from genda.observations.table import on_levels, soundings

Array = NDArray[np.float64]


def superob(
    table: pd.DataFrame,
    box_km: float = 200.0,
    depth: float = 0.1,
    hours: float = 1.0,
    correlation: float = 0.2,
    rise: float = 300.0,
) -> pd.DataFrame:
    """Means over the soundings of a box in place of their passing values, which become ``THINNED``; added below.

    Values at a pressure that two soundings or more report are averaged there, the others over layers, to which each sounding gives
    the value nearest to the middle; so levels of one ascent are never averaged with each other. A box with a single sounding
    or station is left alone. The means of a box and source have one station (``mean-0`` …), time and source (``igra-mean``);
    positions, elevations and ln p are means, and so is ``hx_b`` where all parts have it.

    Args:
        table: observations with ``obs_error``.
        box_km: size of the boxes, about square.
        depth: thickness of the layers in ln p.
        hours: length of the times.
        correlation: between the errors of the values of a mean.
        rise: m; surface stations whose elevations differ by more than that are not averaged.

    Raises:
        ValueError: for a size that is not positive, or a correlation outside [0, 1].
    """
    _positive(box_km=box_km, depth=depth, hours=hours, rise=rise)
    if not 0 <= correlation <= 1:
        raise ValueError(f"correlation: found {correlation}, expected 0 to 1")
    passed = np.flatnonzero((table["quality"] == Flag.PASS).to_numpy())
    part = table.iloc[passed].reset_index(drop=True)
    surface = ~on_levels(part)
    keys = _boxes(part, box_km, hours) | {
        "source": part["source"],
        "height": np.floor(part["elevation"] / rise).where(surface, 0.0),  # of unknown height: among themselves
    }
    log_p = np.log(part["pressure"].fillna(1.0))
    layer = np.floor(log_p / depth)
    part = part.assign(
        _column=pd.DataFrame(keys).groupby(list(keys), sort=False, dropna=False).ngroup(),
        _sounding=soundings(part),
        _log_p=log_p,
        _off=(log_p - (layer + 0.5) * depth).abs(),
    )
    several = (part.groupby("_column")["_sounding"].transform("nunique") > 1).to_numpy()
    if not several.any():
        return table
    passed, part, layer = passed[several], part[several], layer[several]
    level = ["_column", "variable", "pressure"]
    shared = part.groupby(level, dropna=False)["_sounding"].transform("nunique") > 1
    # A level that soundings share is told from a layer by its sign.
    part = part.assign(_level=part["pressure"].where(shared, -1.0 - layer).fillna(0.0))
    cell = ["_column", "variable", "_level"]
    parts = part.sort_values("_off", kind="stable").drop_duplicates([*cell, "_sounding"])
    new = _means(parts, cell, correlation)
    new["station"] = pd.Series([f"mean-{k}" for k in pd.factorize(new["_column"])[0]], dtype="str")
    times = part.groupby("_column")["time"].mean().astype("datetime64[ns]")
    new["time"] = new["_column"].map(times)
    thinned = table["quality"].to_numpy(copy=True)
    thinned[passed] = Flag.THINNED
    return pd.concat([table.assign(quality=thinned), new.reindex(columns=table.columns)], ignore_index=True)


def _means(parts: pd.DataFrame, cell: list[str], correlation: float) -> pd.DataFrame:
    """One row a cell, in order of columns, but for station and time."""
    parts = parts.assign(_variance=parts["obs_error"] ** 2, _turn=np.radians(parts["longitude"]))
    parts = parts.assign(_east=np.cos(parts["_turn"]), _north=np.sin(parts["_turn"]))
    grouped = parts.groupby(cell, sort=True)
    mean = grouped[["latitude", "_log_p", "elevation", "observation", "_variance", "_east", "_north"]].mean()
    count = grouped.size()
    ends = grouped["pressure"].agg(["min", "max"])
    new = mean.assign(
        pressure=np.exp(mean["_log_p"]).where(ends["min"] != ends["max"], ends["min"]).where(ends["min"].notna()),
        longitude=np.mod(np.degrees(np.arctan2(mean["_north"], mean["_east"])), 360.0),
        obs_error=np.sqrt(mean["_variance"] * (1 + (count - 1) * correlation) / count),
        source=(grouped["source"].first() + "-mean").astype("str"),
        quality=np.int16(Flag.PASS),
    )
    for column in ("hx_b", "hx_b_error", "hx_a"):
        if column in parts:
            new[column] = grouped[column].mean().where(grouped[column].count() == count)
    if "level_type" in parts:
        types = grouped["level_type"].agg(["min", "max"])
        new["level_type"] = types["min"].where(types["min"] == types["max"], LevelType.UNKNOWN).astype("int8")
    new = new.reset_index()
    return new.assign(variable=new["variable"].astype("str"))


def thin(table: pd.DataFrame, box_km: float = 200.0, depth: float = 0.1, hours: float = 1.0) -> pd.DataFrame:
    """``THINNED`` on all but the best of each box: the sounding or station with most passing values, of equals the middle one.

    Of the others stay values where those that are better report nothing of the variable: above a burst balloon, or at the
    levels of other aircraft.

    Args:
        table: observations.
        box_km: size of the boxes, about square.
        depth: in ln p; values nearer to those of a better sounding are not needed.
        hours: length of the times.

    Raises:
        ValueError: for a size that is not positive.
    """
    _positive(box_km=box_km, depth=depth, hours=hours)
    passed = np.flatnonzero((table["quality"] == Flag.PASS).to_numpy())
    part = table.iloc[passed].reset_index(drop=True)
    boxes = _boxes(part, box_km, hours)
    sounding = soundings(part)
    part = part.assign(
        _box=pd.DataFrame(boxes).groupby(list(boxes), sort=False).ngroup(),
        _sounding=sounding,
        _log_p=np.log(part["pressure"].fillna(1.0)),
        _size=np.bincount(sounding)[sounding],
        _off=_from_middle(part, box_km),
    )
    grouped = part.groupby(["_box", "variable", "_sounding"], sort=False)
    spans = grouped.agg(low=("_log_p", "min"), high=("_log_p", "max"), size=("_size", "first"), off=("_off", "first"))
    spans = spans.reset_index().sort_values(["size", "off", "_sounding"], ascending=[False, True, True], kind="stable")
    wrong = np.zeros(len(table), dtype=bool)
    rows_of, log_p = grouped.indices, part["_log_p"].to_numpy()
    better: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for span in spans.itertuples(index=False):
        rows = np.asarray(rows_of[(span[0], span[1], span[2])], dtype=np.intp)
        above = better.setdefault((span[0], span[1]), [])
        taken = np.zeros(rows.size, dtype=bool)
        for low, high in above:
            taken |= (log_p[rows] > low - depth) & (log_p[rows] < high + depth)
        wrong[passed[rows[taken]]] = True
        if not taken.all():
            left = log_p[rows[~taken]]
            above.append((left.min(), left.max()))
    quality = table["quality"].to_numpy(copy=True)
    quality[wrong] = Flag.THINNED
    return table.assign(quality=quality)


def _positive(**sizes: float) -> None:
    for name, value in sizes.items():
        if not value > 0:
            raise ValueError(f"{name}: found {value}, expected a number above 0")


def _boxes(table: pd.DataFrame, box_km: float, hours: float) -> dict[str, pd.Series]:
    """Band of latitude, box along it and time of every row."""
    band, width = _bands(table, box_km)
    return {
        "band": band,
        "box": table["longitude"] // width,
        "hour": (table["time"] - pd.Timestamp(0)) // pd.Timedelta(hours=hours),
        "aloft": on_levels(table),
    }


def _bands(table: pd.DataFrame, box_km: float) -> tuple[pd.Series, pd.Series]:
    """Number of the band of latitude, and the width of its boxes in degrees: a whole number of them around the globe."""
    step = np.degrees(1000.0 * box_km / EARTH_RADIUS)
    band = table["latitude"] // step
    width = step / np.maximum(np.cos(np.radians((band + 0.5) * step)), step / 360.0)
    return band, 360.0 / np.floor(360.0 / width)


def _from_middle(table: pd.DataFrame, box_km: float) -> Array:
    """Distance from the middle of the box, in sizes of it."""
    step = np.degrees(1000.0 * box_km / EARTH_RADIUS)
    band, width = _bands(table, box_km)
    east = table["longitude"] / width
    return np.asarray(np.hypot(table["latitude"] / step - band - 0.5, east % 1.0 - 0.5))

"""Can these files be used, and what is in them? One report for all that is wrong, instead of the first error.

Coordinates of every time are looked at, values of a sample of times. A *problem* makes reading fail, or is a value that no
atmosphere has at its level, such as geopotential height in the units of geopotential; a *remark* is neither.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from genda.files import Gridded, Times, open_gridded
from genda.grid import LatLonGrid
from genda.observations.quality import bounds_at
from genda.state import present_channels, read_field, spellings, variable_name
from genda.variables import FIELDS, STATIC_FIELDS, Field


@dataclass
class Inventory:
    """What was found.

    Attributes:
        grid: description of the grid.
        times: number, first and last, most frequent step, gaps.
        members: of the ensemble; None where there is none.
        variables: per field name, units, levels, smallest and largest value (own units), missing values.
        static: maps that never change.
        unknown: variables that are no field here.
        problems: why the files cannot be used.
        remarks: what else is worth knowing.
    """

    grid: dict[str, Any] = field(default_factory=dict)
    times: dict[str, Any] = field(default_factory=dict)
    members: int | None = None
    variables: dict[str, dict[str, Any]] = field(default_factory=dict)
    static: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def check_files(location: str | Path, samples: int = 50) -> Inventory:
    """Look at files as :func:`genda.files.open_gridded` opens them.

    Args:
        location: a file, store, folder or URL.
        samples: times whose values are read, evenly spread.

    Raises:
        FileNotFoundError, ModuleNotFoundError, ValueError: for what cannot be opened at all.
    """
    files, found = open_gridded(location), Inventory()
    _check_grid(files, found)
    _check_times(files, found)
    numbers = [np.atleast_1d(part["number"].values) for part in files.parts if "number" in part.dims]
    found.members = np.unique(np.concatenate(numbers)).size if numbers else None
    present = [item for item in FIELDS if any(name in p.data_vars for p in files.parts for name in spellings(item))]
    if not present:
        found.problems.append("variables: found none that is known, expected e.g. geopotential")
    times = files.times
    chosen = times[np.unique(np.linspace(0, max(0, times.size - 1), min(samples, times.size)).round().astype(int))]
    for item in present:
        _check_field(files, item, chosen, found)
    known = {name for item in FIELDS for name in spellings(item)} | {item.name for item in STATIC_FIELDS}
    found.static = [str(name) for name in files.static.data_vars]
    found.unknown = sorted({str(v) for p in files.parts for v in p.data_vars} - known - {"written", "split", "stream"})
    files.close()
    return found


def _check_grid(files: Gridded, found: Inventory) -> None:
    latitude, longitude = (files.parts[0][name].values for name in ("latitude", "longitude"))
    try:
        grid, rows, _ = LatLonGrid.from_coordinates(latitude, longitude)
    except ValueError as error:
        found.problems.append(str(error))
        return
    kind = "Gaussian" if grid.is_gaussian else "regular" if np.ptp(np.diff(grid.latitude)) < 2e-3 else "uneven rows"
    found.grid = {
        "latitudes": grid.shape[0],
        "longitudes": grid.shape[1],
        "kind": kind,
        "domain": "global" if grid.is_global else "region",
        "area": [round(v, 4) for v in (grid.latitude[0], grid.longitude[0], grid.latitude[-1], grid.longitude[-1])],
        "order": "north to south" if rows[0] == 0 else "south to north",
    }
    if rows[0] != 0:
        found.remarks.append("latitude runs from south to north; it is turned on reading")


def _check_times(files: Gridded, found: Inventory) -> None:
    times = files.times
    found.times = {"count": int(times.size)}
    if not times.size:
        found.remarks.append("time: found no coordinate; the files can be one state, not a training set")
        return
    found.times |= {"first": str(times[0])[:16], "last": str(times[-1])[:16]}
    for part in files.parts:
        if "time" in part.dims and (np.diff(part["time"].values.astype("datetime64[ns]").astype(np.int64)) < 0).any():
            found.remarks.append("time is not ascending; it is sorted on reading")
            break
    written = files.coordinate("written")
    if written is not None:
        found.times["written"] = int((written == 1).sum())
    if times.size < 3:
        return
    steps = np.diff(times)
    lengths, counts = np.unique(steps, return_counts=True)
    step = lengths[counts.argmax()]  # the shortest of those that are the most frequent
    gaps = np.flatnonzero(steps > 1.5 * step)
    found.times |= {"step_hours": round(step / np.timedelta64(1, "h"), 4), "gaps": int(gaps.size)}
    if gaps.size:
        lost = int((steps[gaps] / step - 1).round().sum())
        first = str(times[gaps[0]])[:16]
        found.remarks.append(f"time: found {gaps.size} gaps, {lost} times missing, the first after {first}")
    if (np.mod(steps, step) != np.timedelta64(0)).any():
        shortest, longest = (length / np.timedelta64(1, "h") for length in (lengths[0], lengths[-1]))
        found.remarks.append(f"time: found uneven steps, from {shortest:g} to {longest:g} h")


def _check_field(files: Gridded, item: Field, times: Times, found: Inventory) -> None:
    """Units, levels, bounds and missing values of a field; one problem for each kind."""
    entry: dict[str, Any] = {"values": 0, "missing": 0}
    low: NDArray[Any] = np.array([np.inf])  # of each level
    high, absent_at = -low, 0
    blocks: list[Times | None] = [times[i : i + 1] for i in range(times.size)] or [None]
    try:
        for block in blocks:
            dataset = files.at(block, spellings(item))
            values = _values(dataset, item, entry)
            missing = ~np.isfinite(values)
            entry["values"] += int(values.size)
            entry["missing"] += int(missing.sum())
            absent_at += bool(missing.any())
            others = tuple(axis for axis in range(values.ndim) if axis != values.ndim - 3)
            low = np.minimum(low, np.where(missing, np.inf, values).min(axis=others))
            high = np.maximum(high, np.where(missing, -np.inf, values).max(axis=others))
    except ValueError as error:
        found.problems.append(str(error))
    found.variables[item.name] = entry
    if entry.get("units") == "":
        found.remarks.append(f"{item.name}: found no units, taken for {item.units}")
    if entry["missing"]:
        found.problems.append(
            f"{item.name}: found {entry['missing']} missing values in {absent_at} of {len(blocks)} times read, expected none"
        )
    seen = low <= high
    if not seen.any():
        return
    lowest, highest = float(low[seen].min()), float(high[seen].max())
    entry |= {"min": float(f"{lowest:.6g}"), "max": float(f"{highest:.6g}")}
    if lowest < item.bounds[0] or highest > item.bounds[1]:
        expected = f"expected {item.bounds[0]:g} to {item.bounds[1]:g} {item.units}"
        found.problems.append(f"{item.name}: found values from {lowest:.4g} to {highest:.4g}, {expected}")
    elif item.on_levels:
        _check_levels(item, np.asarray(entry["levels"])[seen], low[seen], high[seen], found)


def _check_levels(item: Field, levels: NDArray[Any], low: NDArray[Any], high: NDArray[Any], found: Inventory) -> None:
    """The believable range at each level, that of observations; but humidity of a model may be beyond what sondes recorded."""
    if item.nonnegative:
        return
    bounds = bounds_at(item.id, 100.0 * levels)
    wrong = np.flatnonzero((low < bounds[0]) | (high > bounds[1]))
    if wrong.size:
        i = wrong[0]
        at = f"at {levels[i]} hPa and on {wrong.size - 1} other levels" if wrong.size > 1 else f"at {levels[i]} hPa"
        expected = f"expected {bounds[0][i]:.4g} to {bounds[1][i]:.4g} {item.units}"
        found.problems.append(f"{item.name}: found values from {low[i]:.4g} to {high[i]:.4g} {at}, {expected}")


def _values(dataset: xr.Dataset, item: Field, entry: dict[str, Any]) -> NDArray[np.float32]:
    name = variable_name(dataset, item)
    if name is None:
        raise ValueError(f"{item.name}: found it in no file of some time, expected it at all times")
    array = dataset[name]
    entry.setdefault("name", name)
    entry.setdefault("units", str(array.attrs.get("units", "")).strip())
    levels: list[int | None] = [None]
    if item.on_levels:
        held = [c.level_hpa for c in present_channels(dataset)]  # the axis is padded where fields have other levels
        levels = entry.setdefault("levels", held or array["level"].values.tolist())
    leading = tuple(name for name in ("time", "number") if name in array.dims)
    return read_field(dataset, item, levels, leading)

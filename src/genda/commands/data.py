"""``genda data``: look at gridded files, make a training store of them, and its statistics."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd

from genda.commands.outcome import Outcome, Progress, check_writable, iso
from genda.data.check import Inventory, check_files
from genda.data.prepare import Preparation, prepare_store, split_times
from genda.data.stats import data_statistics
from genda.files import Gridded, Times, open_gridded
from genda.grid import LatLonGrid
from genda.regrid import RegridMethod
from genda.state import read_times, spellings
from genda.variables import FIELDS, chosen_channels
from genda.variables import channels as parse_channels

_GRID = re.compile(r"(gaussian|regular)-(\d+)x(\d+)")


def check_data(location: str, samples: int) -> tuple[Outcome, bool]:
    """The report, and whether the files can be used."""
    found = check_files(location, samples)
    document = {"location": location, "usable": not found.problems, **asdict(found)}
    return Outcome("\n".join(_lines(location, found)), document), not found.problems


def prepare_data(
    source: str,
    out: Path,
    *,
    channels: str,
    grid: str,
    area: str | None,
    method: str,
    start: str | None,
    end: str | None,
    every: float | None,
    train_until: str | None,
    validation_until: str | None,
    gap_days: float,
    workers: int,
    dask: str | None,
    progress: Progress | None,
) -> Outcome:
    """Make or go on with a training store.

    Raises:
        ValueError, FileNotFoundError: for options or data that cannot be used.
    """
    if (train_until is None) != (validation_until is None):
        raise ValueError("split: found one of --train-until and --validation-until, expected both or neither")
    if method not in get_args(RegridMethod):
        raise ValueError(f"method: found {method!r}, expected one of {', '.join(get_args(RegridMethod))}")
    names = None if channels == "all" else chosen_channels(channels)
    dates = {"--start": start, "--end": end, "--train-until": train_until, "--validation-until": validation_until}
    start, end, train_until, validation_until = (_date(option, given) for option, given in dates.items())
    check_writable(out.absolute().parent)
    files = open_gridded(source)
    there = _chosen_times(_finished(files), start, end, every)
    times = there[np.isin(there, files.times_with(_variables(names)))]
    if not times.size:
        raise ValueError(f"time: found none of {there.size} that all of {channels} have, expected at least one")
    first = read_times(files, names, times[:1])
    target = _target(grid, area, first.grid)
    own, remark = files.coordinate("split"), ""
    if own is not None and train_until is None:
        split = own[np.isin(files.times, times)]
    else:
        until = None if train_until is None or validation_until is None else (train_until, validation_until)
        split = split_times(times, until, np.timedelta64(round(gap_days * 24), "h"))
        if (split == "train").all():
            remark = (
                f"; too few times for three splits with gaps of {gap_days:g} days (--gap-days), all are for training"
            )
    what = Preparation(
        source if "://" in source else str(Path(source).absolute()),
        out.absolute(),
        first.channels,
        target,
        method,  # type: ignore[arg-type]
        times,
        split,
    )
    files.close()
    frames = prepare_store(what, workers, dask, progress)
    shape = (target or first.grid).shape
    counts = {name: int((split == name).sum()) for name in ("train", "validation", "test", "gap")}
    document = {
        "out": str(out),
        "channels": list(first.channels),
        "grid": list(shape),
        "frames": len(times),
        "times_left_out": len(there) - len(times),
        "frames_written_now": frames,
        "first": iso(times[0]),
        "last": iso(times[-1]),
        "split": counts,
    }
    text = f"{out}: {len(times)} frames of {len(first.channels)} channels at {shape[0]} x {shape[1]}, {frames} written now; "
    text += ", ".join(f"{name} {count}" for name, count in counts.items()) + remark
    left_out = len(there) - len(times)
    if left_out:
        text += f"; {left_out} of {len(there)} times left out, which not all channels have"
    return Outcome(text, document)


def data_stats(
    location: str, channels: str, split: str | None, interval: float | None, progress: Progress | None
) -> Outcome:
    """Per-channel mean, standard deviation and the same of differences in time."""
    files = open_gridded(location)
    names = None if channels == "all" else chosen_channels(channels)
    times = _finished(files)
    times = times[np.isin(times, files.times_with(_variables(names)))]
    if split is not None:
        own = files.coordinate("split")
        if own is None:
            raise ValueError(f"{location}: found no coordinate 'split', expected one for --split {split}")
        chosen = times[np.isin(times, files.times[own == split])]
        if not chosen.size:
            held = ", ".join(dict.fromkeys(own[np.isin(files.times, times)])) or "none"
            raise ValueError(f"{location}: split: found no time of {split!r}, expected one of {held}")
        times = chosen
    files.close()
    step = None if interval is None else np.timedelta64(round(interval * 3600), "s")
    found = data_statistics(location, names, times, step, progress)
    columns = ("mean", "std", "difference_mean", "difference_std")
    rows = {
        name: {column: _number(float(getattr(found, column)[i])) for column in columns}
        for i, name in enumerate(found.channels)
    }
    members = "" if found.members is None else f" of {found.members} members"
    lines = [f"{location}: {found.times} times{members}, {found.pairs} differences over {found.interval:g} h"]
    lines += [f"{'':8}" + "".join(f"{c.replace('_', ' '):>18}" for c in columns)]
    for name, row in rows.items():
        lines.append(f"{name:8}" + "".join(f"{'-' if row[c] is None else format(row[c], '.6g'):>18}" for c in columns))
    document = {
        "times": found.times,
        "members": found.members,
        "pairs": found.pairs,
        "interval_hours": found.interval,
        "channels": rows,
    }
    return Outcome("\n".join(lines), document)


def _lines(location: str, found: Inventory) -> list[str]:
    times, grid = found.times, found.grid
    lines = [f"{location}: {'cannot be used' if found.problems else 'can be used'}"]
    if grid:
        lines.append(
            f"  grid: {grid['latitudes']} x {grid['longitudes']}, {grid['kind']}, {grid['domain']}, {grid['order']}"
        )
    if times["count"]:
        rest = "".join(
            f", {key.replace('_', ' ')} {times[key]}" for key in ("step_hours", "gaps", "written") if key in times
        )
        lines.append(f"  times: {times['count']}, {times['first']} to {times['last']}{rest}")
    if found.members:
        lines.append(f"  members: {found.members}")
    for name, entry in found.variables.items():
        levels = f", levels {' '.join(map(str, entry['levels']))}" if "levels" in entry else ""
        span = f", {entry['min']:g} to {entry['max']:g}" if "min" in entry else ""
        lines.append(f"  {name} ({entry.get('name', '?')}, {entry.get('units') or 'no units'}){levels}{span}")
    for label in ("static", "unknown"):
        if getattr(found, label):
            lines.append(f"  {label}: {', '.join(getattr(found, label))}")
    return lines + [f"  problem: {text}" for text in found.problems] + [f"  remark: {text}" for text in found.remarks]


def _finished(files: Gridded) -> Times:
    written = files.coordinate("written")
    return files.times if written is None else files.times[written == 1]


def _variables(names: Sequence[str] | None) -> list[str]:
    """Every name that the fields of channels are read under; of all fields that are known, where there are no channels."""
    fields = FIELDS if names is None else dict.fromkeys(c.field for c in parse_channels(names))
    return [name for item in fields for name in spellings(item)]


def _date(option: str, given: str | None) -> str | None:
    """A date as given, a year or a month too; one of another zone in UTC.

    Raises:
        ValueError: naming the option, for what is no date.
    """
    if given is None:
        return None
    try:
        stamp = pd.Timestamp(given)
        if not given[:4].isdigit() or pd.isna(stamp):  # pandas reads "now" too
            raise ValueError
    except (ValueError, OverflowError):
        raise ValueError(f"{option}: found {given!r}, expected an ISO date such as 2008-12-08T12") from None
    return given if stamp.tzinfo is None else stamp.tz_convert(None).isoformat()


def _chosen_times(times: Times, start: str | None, end: str | None, every: float | None) -> Times:
    """Times of a range of dates, both included, at whole multiples of a number of hours from the midnight before the first."""
    chosen = times[pd.DatetimeIndex(times).slice_indexer(start, end)]
    if every is not None and chosen.size:
        seconds = (chosen - chosen[0].astype("datetime64[D]")) / np.timedelta64(1, "s")
        chosen = chosen[np.mod(seconds, every * 3600) == 0]
    if not chosen.size:
        raise ValueError(f"time: found none from {start} to {end} every {every} h, expected at least one")
    return chosen


def _target(grid: str, area: str | None, own: LatLonGrid) -> LatLonGrid | None:
    """The grid to go to; None for the data's own."""
    target = own
    if grid != "same":
        match = _GRID.fullmatch(grid)
        if match is None:
            raise ValueError(f"grid: found {grid!r}, expected same, gaussian-48x96 or regular-121x240, for example")
        make = LatLonGrid.gaussian if match[1] == "gaussian" else LatLonGrid.equiangular
        target = make(int(match[2]), int(match[3]))
    if area is None:
        return None if grid == "same" else target
    try:
        north, west, south, east = (float(v) for v in area.split("/"))
    except ValueError:
        raise ValueError(
            f"area: found {area!r}, expected north/west/south/east in degrees, for example 72/-15/35/40"
        ) from None
    return target.within(north, west, south, east)


def _number(value: float) -> Any:
    return None if np.isnan(value) else float(f"{value:.8g}")

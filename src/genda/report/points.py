"""Stations: where they are, and analysed against observed values at assimilated and at withheld ones."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from genda.report.case import ReportCase
from genda.report.maps import draw_coast, frame_map, map_axes_size
from genda.report.style import (
    ANALYSIS_COLOUR,
    BACKGROUND_COLOUR,
    BASELINE_COLOURS,
    Picture,
    display_units,
    finish,
    label,
    new_figure,
)
from genda.variables import channel
from genda.verify.scores import Array
from genda.verify.stations import USED_QUALITY, LevelBin, assign_channels, level_bins

MOST_PANELS = 6
MOST_DOTS = 2500
FEWEST = 5


def station_map(case: ReportCase) -> Picture | None:
    """Places of assimilated and withheld observations; None without any."""
    tables = {"assimilated": case.observations, "withheld": case.withheld}
    present = {name: t for name, t in tables.items() if t is not None and len(t)}
    if not present:
        return None
    width, inner = 4.5, 3.98
    height = map_axes_size(case.grid, inner)
    total = height + 0.78
    figure = new_figure(width, total)
    ax = figure.add_axes((0.42 / width, 0.28 / total, inner / width, height / total))
    draw_coast(ax, case.land_sea_mask, case.grid)
    frame_map(ax, case.grid)
    parts = []
    looks = {"assimilated": (ANALYSIS_COLOUR, "o", 7), "withheld": (BASELINE_COLOURS[0], "^", 20)}
    for name, table in present.items():
        used = table[table["quality"] == 0] if name == "assimilated" else table
        places = used[["latitude", "longitude"]].drop_duplicates()
        lon = places["longitude"].to_numpy(dtype=np.float64)
        lon = np.where(lon >= 180, lon - 360, lon) if case.grid.periodic else lon
        colour, marker, size = looks[name]
        text = f"{name}: {len(places):,} places, {len(used):,} values"
        ax.scatter(lon, places["latitude"], s=size, c=colour, marker=marker, lw=0, alpha=0.85, label=text, zorder=3)
        parts.append(text)
    figure.legend(loc="upper left", bbox_to_anchor=(0.07, 1.0), ncols=1, handletextpad=0.2)
    return finish(figure, "Map of observation places. " + "; ".join(parts) + ".", "Observation places")


def scatter_picture(case: ReportCase, table: pd.DataFrame, where: str) -> Picture | None:
    """Model equivalents against observed values per channel, with the 1:1 line, RMSE, bias and count.

    Args:
        table: observations with hx_a, and hx_b where there was a background.
        where: "assimilated" or "withheld", for captions.

    Returns:
        the picture, or None where no channel has enough values.
    """
    if "hx_a" not in table.columns:
        return None
    columns = ["observation", "hx_a", *(["hx_b"] if "hx_b" in table.columns else [])]
    finite = np.isfinite(table[columns].to_numpy(dtype=np.float64)).all(axis=1)
    rows = table[finite & table["quality"].isin(USED_QUALITY if where == "withheld" else (0,))]
    if rows.empty:
        return None
    names = assign_channels(rows, _bins(case))
    counts = names.value_counts()
    chosen = _choose(case, counts[counts >= FEWEST])
    if not chosen:
        return None
    width = 2 if len(chosen) > 1 else 1
    lines = -(-len(chosen) // width)
    figure = new_figure(4.5, 2.35 * lines + 0.25)
    axes = figure.subplots(lines, width, squeeze=False).ravel()
    top = 1 - 0.42 / figure.get_figheight()
    bottom = 0.42 / figure.get_figheight()
    figure.subplots_adjust(left=0.13, right=0.98, top=top, bottom=bottom, hspace=0.3, wspace=0.3)
    notes = []
    for ax, name in zip(axes, chosen, strict=False):
        notes.append(_scatter(ax, rows[names == name], name, case.background_name if "hx_b" in columns else None))
    for ax in axes[len(chosen) :]:
        ax.set_axis_off()
    figure.supxlabel("observed", fontsize=8.5, y=0.005)
    figure.supylabel("model equivalent H(x)", fontsize=8.5, x=0.002)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper left", ncols=3, bbox_to_anchor=(0.08, 1.0))
    title = f"At {where} stations"
    return finish(figure, f"{title}: model equivalent against observation. " + "; ".join(notes) + ".", title)


def _scatter(ax: Axes, rows: pd.DataFrame, name: str, background: str | None) -> str:
    scale, units = display_units(name)
    observed = rows["observation"].to_numpy(dtype=np.float64) * scale
    stride = slice(None, None, -(-len(rows) // MOST_DOTS))
    looks = [("hx_b", background, BACKGROUND_COLOUR, "x")] if background else []
    looks.append(("hx_a", "analysis", ANALYSIS_COLOUR, "o"))
    notes, short, values = [], [], [observed]
    for column, word, colour, marker in looks:
        y = rows[column].to_numpy(dtype=np.float64) * scale
        ax.scatter(observed[stride], y[stride], s=8, c=colour, marker=marker, lw=0.6, alpha=0.6, label=word)
        rmse, bias = float(np.sqrt(np.mean((y - observed) ** 2))), float(np.mean(y - observed))
        notes.append(f"{word} RMSE {rmse:.3g}, bias {bias:+.2g}")
        short.append(f"{column[-1]}: RMSE {rmse:.3g}\n   bias {bias:+.2g}")
        values.append(y)
    low, high = _span(values)
    ax.plot([low, high], [low, high], color="#000000", lw=0.8, label="1:1")
    ax.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    ax.locator_params(nbins=4)
    ax.set_title(f"{name} [{units}]   N = {len(rows):,}", loc="left", y=1.0, fontsize=8, pad=3)
    ax.text(0.03, 0.97, "\n".join(short), transform=ax.transAxes, va="top", fontsize=6.8, linespacing=1.15)
    return f"{label(name)}: {', '.join(notes)} {units}, N = {len(rows)}"


def _span(values: list[Array]) -> tuple[float, float]:
    low, high = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
    margin = 0.04 * (high - low) or 1.0
    return low - margin, high + margin


def _bins(case: ReportCase) -> tuple[LevelBin, ...]:
    levels = [level for name in case.channels if (level := channel(name).level_hpa) is not None]
    return level_bins(levels) if levels else ()


def _choose(case: ReportCase, counts: pd.Series) -> list[str]:
    """Displayed channels first, then the best observed of every other variable, then the best observed of all."""
    available = [str(name) for name in counts.index]
    chosen = [name for name in case.displayed if name in available]
    for name in available:
        if channel(name).field not in [channel(c).field for c in chosen]:
            chosen.append(name)
    chosen += [name for name in available if name not in chosen]
    return sorted(chosen[:MOST_PANELS], key=lambda n: (case.channels.index(n) if n in case.channels else 999, n))

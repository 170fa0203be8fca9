"""Maps: input, truth, ensemble mean, a member, spread, errors, all of one channel on common colour scales.

One panel is one picture, so that a page can lay them side by side on a desk and one below the other on a phone. Fields
that are to be compared share limits: magnitudes one range, every difference one symmetric range, every spread one range
from zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from genda.grid import LatLonGrid
from genda.report.case import ReportCase
from genda.report.style import (
    DIFFERENCE,
    MAGNITUDE,
    SIGNED,
    SPREAD,
    Picture,
    display_units,
    finish,
    is_signed,
    label,
    new_figure,
    robust_limits,
    symmetric_limit,
)
from genda.verify.scores import Array

MOST_BASELINES = 3


@dataclass(frozen=True)
class Panel:
    """One field to draw; ``kind`` is "field", "difference" or "spread"."""

    title: str
    values: Array
    grid: LatLonGrid
    kind: str
    note: str = ""


def panels(case: ReportCase, name: str) -> list[Panel]:
    """The maps of a channel, in reading order, in display units."""
    i, grid = case.index(name), case.grid
    scale, units = display_units(name)
    mean = case.mean[i] * scale
    out: list[Panel] = []
    if case.coarse is not None:
        rows, columns = case.coarse[1].shape
        out.append(Panel(f"Coarse observations ({rows}×{columns})", case.coarse[0][i] * scale, case.coarse[1], "field"))
    if case.background is not None:
        out.append(Panel(_capital(case.background_name), case.background[i] * scale, grid, "field"))
    if case.truth is not None:
        out.append(Panel("Truth", case.truth[i] * scale, grid, "field"))
    many = len(case.members) > 1
    out.append(Panel(f"Analysis mean of {len(case.members)}" if many else "Analysis", mean, grid, "field"))
    if many:
        out.append(Panel("Member 1", case.members[0, i] * scale, grid, "field"))
    best = {key: value[i] * scale for key, value in case.methods().items()}
    baselines = list(case.baselines)[:MOST_BASELINES]
    out += [Panel(_capital(key), best[key], grid, "field") for key in baselines]
    if case.truth is not None:
        truth = case.truth[i] * scale
        for key in [k for k in best if k not in case.baselines or k in baselines]:
            error = best[key] - truth
            note = f"RMSE {_rms(error, grid):.3g} {units}"
            out.append(Panel(f"{_capital(key)} − truth", error, grid, "difference", note))
    if case.background is not None:
        increment = mean - case.background[i] * scale
        note = f"rms {_rms(increment, grid):.3g} {units}"
        out.append(Panel(f"Increment (analysis − {case.background_name})", increment, grid, "difference", note))
    if many:
        spread = case.members[:, i].std(axis=0, ddof=1) * scale
        out.append(Panel("Analysis spread (std)", spread, grid, "spread", f"rms {_rms(spread, grid):.3g} {units}"))
    return out


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def channel_maps(case: ReportCase, name: str) -> list[Picture]:
    """The panels of a channel as pictures."""
    drawn = panels(case, name)
    limits = _limits(drawn, name)
    frames: dict[tuple[str, LatLonGrid], _Frame] = {}
    pictures = []
    for panel in drawn:
        key = (panel.kind, panel.grid)
        frame = frames.get(key) or frames.setdefault(key, _Frame(case, name, panel, limits[panel.kind]))
        pictures.append(frame.picture(panel))
    return pictures


def overview(case: ReportCase, names: tuple[str, ...] = ()) -> Picture:
    """One picture of several channels: a row per channel, columns input, truth, mean, error and spread as far as given."""
    rows = [(n, panels(case, n)) for n in (names or case.displayed)]
    given = "Coarse" if case.coarse is not None else _capital(case.background_name)
    wanted = (given, "Truth", "Analysis mean", "Analysis − truth", "Analysis spread")
    rows = [(n, [p for w in wanted for p in ps if p.title.startswith(w)][: len(wanted)]) for n, ps in rows]
    columns = max(len(ps) for _, ps in rows)
    figure = new_figure(3.1 * columns, 2.25 * len(rows))
    axes = figure.subplots(len(rows), columns, squeeze=False)
    figure.subplots_adjust(left=0.035, right=0.99, top=0.97, bottom=0.05, wspace=0.16, hspace=0.25)
    for line, (name, drawn) in zip(axes, rows, strict=True):
        limits = _limits(drawn, name)
        for ax, panel in zip(line, drawn, strict=False):
            mesh = draw_map(ax, panel, limits[panel.kind], name, case.land_sea_mask, case.grid)
            ax.set_title(f"{panel.title}: {name} [{display_units(name)[1]}]", fontsize=8, loc="left", y=1.0)
            extend = "max" if panel.kind == "spread" else "both"
            bar = figure.colorbar(mesh, ax=ax, orientation="horizontal", fraction=0.06, pad=0.11, extend=extend)
            bar.ax.tick_params(labelsize=7, length=2, pad=1.5)
            ax.tick_params(labelsize=6.5)
        for ax in line[len(drawn) :]:
            ax.set_axis_off()
    return finish(figure, f"Overview maps of {', '.join(n for n, _ in rows)}", "Overview")


def _limits(drawn: list[Panel], name: str) -> dict[str, tuple[float, float]]:
    fields = [p.values for p in drawn if p.kind == "field"]
    differences = [p.values for p in drawn if p.kind == "difference"]
    spreads = [p.values for p in drawn if p.kind == "spread"]
    limits = {"field": robust_limits(*fields)}
    if is_signed(name):
        top = symmetric_limit(*fields)
        limits["field"] = (-top, top)
    if differences:
        top = symmetric_limit(*differences)
        limits["difference"] = (-top, top)
    if spreads:
        limits["spread"] = (0.0, symmetric_limit(*spreads))
    return limits


def _rms(values: Array, grid: LatLonGrid) -> float:
    return float(np.sqrt(np.average((values**2).mean(axis=-1), weights=grid.area_weights)))


def _centred(grid: LatLonGrid) -> tuple[Array, int]:
    """Column edges, and the roll that puts Greenwich in the middle of a map around the globe."""
    step = grid.longitude_step
    lon = np.asarray(grid.longitude)
    if not grid.periodic:
        return np.append(lon - step / 2, lon[-1] + step / 2), 0
    roll = int(np.argmax(lon >= 180.0)) if lon[-1] >= 180.0 else 0
    lon = np.roll(lon, -roll)
    first = lon[0] - 360.0 if lon[0] >= 180.0 else lon[0]
    return first + step * (np.arange(lon.size + 2) - 0.5), roll  # the first column again at the eastern edge


def _wrapped(values: Array, grid: LatLonGrid) -> Array:
    rolled = np.roll(values, -_centred(grid)[1], axis=1)
    return np.concatenate([rolled, rolled[:, :1]], axis=1) if grid.periodic else rolled


def draw_coast(ax: Axes, mask: Array | None, grid: LatLonGrid) -> None:
    """The land–sea mask's 0.5 contour."""
    if mask is None or mask.min() > 0.5 or mask.max() < 0.5:
        return
    edges, _ = _centred(grid)
    centres = 0.5 * (edges[:-1] + edges[1:])
    coast = ax.contour(centres, grid.latitude, _wrapped(mask, grid), levels=[0.5], colors="#111111", linewidths=0.6)
    coast.set_path_effects([withStroke(linewidth=1.5, foreground="white", alpha=0.55)])


def draw_map(
    ax: Axes, panel: Panel, limits: tuple[float, float], name: str, mask: Array | None, mask_grid: LatLonGrid
) -> QuadMesh:
    """Draw cells at their true edges, coastline, and degree labels."""
    colours = {"field": SIGNED if is_signed(name) else MAGNITUDE, "difference": DIFFERENCE, "spread": SPREAD}
    mesh = ax.pcolormesh(
        _centred(panel.grid)[0],
        panel.grid.row_edges,
        _wrapped(panel.values, panel.grid),
        cmap=colours[panel.kind],
        vmin=limits[0],
        vmax=limits[1],
        rasterized=True,
    )
    draw_coast(ax, mask, mask_grid)
    frame_map(ax, panel.grid)
    return mesh


def frame_map(ax: Axes, grid: LatLonGrid) -> None:
    """Limits and degree labels of a map of a grid's domain."""
    edges, _ = _centred(grid)
    if grid.periodic:
        ax.set_xlim(-180, 180)
        ax.set_xticks([-90, 0, 90], ["90°W", "0°", "90°E"])
    else:
        ax.set_xlim(edges[0], edges[-1])
        ax.xaxis.set_major_formatter("{x:g}°E")
    ax.set_ylim(grid.row_edges[-1], grid.row_edges[0])
    if grid.is_global:
        ax.set_yticks([-45, 0, 45], ["45°S", "0°", "45°N"])
    else:
        ax.yaxis.set_major_formatter("{x:g}°N")
    ax.tick_params(length=2, pad=2)
    for side in ("top", "right"):
        ax.spines[side].set_visible(True)


def map_axes_size(grid: LatLonGrid, width: float) -> float:
    """Height in inches of a plate carrée map ``width`` inches wide."""
    edges, _ = _centred(grid)
    across = 360.0 if grid.periodic else float(edges[-1] - edges[0])
    return width * float(grid.row_edges[0] - grid.row_edges[-1]) / across


class _Frame:
    """One figure whose map, coast and colour bar are drawn for panel after panel: building axes is what costs."""

    def __init__(self, case: ReportCase, name: str, first: Panel, limits: tuple[float, float]) -> None:
        width, left, right, above, below = 4.5, 0.42, 0.1, 0.28, 0.68
        inner = width - left - right
        height = map_axes_size(first.grid, inner)
        total = height + above + below
        self.figure = new_figure(width, total)
        ax = self.figure.add_axes((left / width, below / total, inner / width, height / total))
        self.mesh = draw_map(ax, first, limits, name, case.land_sea_mask, case.grid)
        top = 1 - (above - 0.08) / total
        self.title = self.figure.text(left / width, top, "", fontsize=9.5)
        self.note = self.figure.text(1 - right / width, top, "", fontsize=8, color="#444444", ha="right")
        bar = self.figure.add_axes((left / width, 0.35 / total, inner / width, 0.1 / total))
        extend = "max" if first.kind == "spread" else "both"
        ticks = [t for t in MaxNLocator(6).tick_values(*limits) if limits[0] <= t <= limits[1]]
        colourbar = self.figure.colorbar(self.mesh, cax=bar, orientation="horizontal", extend=extend, ticks=ticks)
        colourbar.ax.tick_params(length=2, pad=1.5)
        self.units, self.label, self.limits = display_units(name)[1], label(name), limits
        words = f"{self.label[:1].upper()}{self.label[1:]} [{self.units}]"
        self.figure.text((left + inner / 2) / width, 0.04 / total, words, ha="center", va="bottom")

    def picture(self, panel: Panel) -> Picture:
        self.mesh.set_array(_wrapped(panel.values, panel.grid))
        self.title.set_text(panel.title)
        self.note.set_text(panel.note)
        low, high = self.limits
        alt = f"Map of {self.label}: {panel.title}. Colour scale {low:.4g} to {high:.4g} {self.units}. {panel.note}"
        return finish(self.figure, alt.strip(), panel.title)

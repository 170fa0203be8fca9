"""Spectra and latitude traces: whether members have the truth's variability, and where the ensemble is unsure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from genda.report.case import ANALYSIS, ReportCase
from genda.report.style import (
    ANALYSIS_COLOUR,
    BACKGROUND_COLOUR,
    BASELINE_COLOURS,
    TRUTH_COLOUR,
    Picture,
    display_units,
    finish,
    label,
    new_figure,
    squared_units,
)
from genda.sphere import has_harmonics, triangular_limit
from genda.variables import channel
from genda.verify import spectra
from genda.verify.scores import Array

TRACE_LATITUDES = (45.0, 0.0, -45.0)


@dataclass(frozen=True)
class Quantity:
    """What a spectrum is of: a title, units, and (channel, lat, lon) fields to power by wavenumber."""

    title: str
    units: str
    power: Callable[[Array], Array]


def quantities(case: ReportCase) -> list[Quantity]:
    """Kinetic energy for winds (both components of a level, once), variance for everything else displayed."""
    total = has_harmonics(case.grid)
    if not (total or case.grid.periodic):
        return []
    out: list[Quantity] = []
    for name in case.displayed:
        parsed = channel(name)
        pair = {"u": ("u", "v"), "v": ("u", "v"), "u10": ("u10", "v10"), "v10": ("u10", "v10")}.get(parsed.field.id)
        names = tuple(f"{p}{parsed.level_hpa or ''}" for p in pair) if pair else ()
        if names and all(n in case.channels for n in names):
            height = "10 m" if parsed.level_hpa is None else f"{parsed.level_hpa} hPa"
            quantity = Quantity(f"{height} kinetic energy", "m² s⁻²", _kinetic(case, names, total))
        else:
            units = squared_units(display_units(name)[1])
            quantity = Quantity(f"{label(name)} variance", units, _variance(case, name, total))
        if quantity.title not in [q.title for q in out]:
            out.append(quantity)
    return out


def _kinetic(case: ReportCase, names: tuple[str, ...], total: bool) -> Callable[[Array], Array]:
    i, j = (case.index(n) for n in names)
    compute = spectra.kinetic_energy_spectrum if total else spectra.zonal_kinetic_energy_spectrum

    def power(fields: Array) -> Array:
        x = torch.as_tensor(fields)
        return compute(x[..., i, :, :], x[..., j, :, :], case.grid).numpy()

    return power


def _variance(case: ReportCase, name: str, total: bool) -> Callable[[Array], Array]:
    i, factor = case.index(name), display_units(name)[0]
    compute = spectra.spherical_power if total else spectra.zonal_power

    def power(fields: Array) -> Array:
        return compute(torch.as_tensor(fields[..., i, :, :]) * factor, case.grid).numpy()

    return power


def spectrum_picture(case: ReportCase, quantity: Quantity) -> Picture:
    """Members' range and mean, ensemble mean, truth, background and baselines; below, the ratio to the truth."""
    members = quantity.power(case.members)
    curves: list[tuple[str, Array, str, str]] = []
    if case.background is not None:
        curves.append((case.background_name, quantity.power(case.background), BACKGROUND_COLOUR, "-"))
    for colour, (name, values) in zip(BASELINE_COLOURS, case.baselines.items(), strict=False):
        power = quantity.power(values)
        suffix = " (members)" if values.ndim == 4 else ""
        curves.append((name + suffix, power.mean(axis=0) if values.ndim == 4 else power, colour, "-"))
    if len(members) > 1:
        curves.append(("analysis mean", quantity.power(case.mean), ANALYSIS_COLOUR, "--"))
    truth = None if case.truth is None else quantity.power(case.truth)
    height = 4.2 if truth is not None else 3.2
    figure = new_figure(4.5, height)
    grid = {"height_ratios": (2.4, 1), "hspace": 0.08} if truth is not None else {}
    axes = list(figure.subplots(2 if truth is not None else 1, 1, sharex=True, gridspec_kw=grid, squeeze=False)[:, 0])
    figure.subplots_adjust(left=0.15, right=0.97, top=1 - 0.5 / height, bottom=0.46 / height)
    k = np.arange(members.shape[-1], dtype=np.float64)
    resolved = triangular_limit(case.grid)
    _spectra_lines(axes[0], k, members, curves, truth, resolved)
    figure.text(0.15, 1 - 0.2 / height, quantity.title[:1].upper() + quantity.title[1:], fontsize=9.5)
    axes[0].set_ylabel(f"per wavenumber [{quantity.units}]")
    if truth is not None:
        _ratio_lines(axes[1], k, members, curves, truth, resolved)
    for ax in axes:
        ax.set_xlim(1, k[-1])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_minor_locator(NullLocator())
        _cut_offs(ax, case, named=ax is axes[0])
    kind = "total" if has_harmonics(case.grid) else "zonal"
    axes[-1].set_xlabel(f"{kind} wavenumber")
    axes[-1].set_xticks([n for n in (1, 2, 5, 10, 20, 50, 100, 200) if n <= k[-1]])
    axes[-1].xaxis.set_major_formatter("{x:g}")
    alt = f"Spectrum of {quantity.title} by {kind} wavenumber for the analysis members"
    alt += _versus(truth, members, case)
    return finish(figure, alt, quantity.title)


def _spectra_lines(
    ax: Axes,
    k: Array,
    members: Array,
    curves: list[tuple[str, Array, str, str]],
    truth: Array | None,
    resolved: int,
) -> None:
    shown = slice(1, None)
    ax.set(xscale="log", yscale="log")
    for name, power, colour, line in curves:
        ax.plot(k[shown], power[shown], color=colour, linestyle=line, label=name, linewidth=1.0)
    if len(members) > 1:
        ax.fill_between(
            k[shown], members.min(axis=0)[shown], members.max(axis=0)[shown], color=ANALYSIS_COLOUR, alpha=0.25, lw=0
        )
    name = f"analysis members (mean, range of {len(members)})" if len(members) > 1 else ANALYSIS
    ax.plot(k[shown], members.mean(axis=0)[shown], color=ANALYSIS_COLOUR, label=name, linewidth=1.5)
    everything = [members.mean(axis=0), *(c[1] for c in curves)]
    if truth is not None:
        ax.plot(k[shown], truth[shown], color=TRUTH_COLOUR, label="truth", linewidth=1.2, linestyle=(0, (4, 1)))
        everything.append(truth)
    top = max(float(p[1:].max()) for p in everything)
    bottom = min(float(p[1:resolved].min()) for p in everything)
    ax.set_ylim(max(bottom, top * 1e-8) / 10, top * 2)
    ax.legend(loc="lower left")


def _ratio_lines(
    ax: Axes, k: Array, members: Array, curves: list[tuple[str, Array, str, str]], truth: Array, resolved: int
) -> None:
    kept = (k > 0) & (k < resolved) & (truth > 1e-9 * truth[1:].max())
    ax.axhspan(0.9, 1.1, color="#000000", alpha=0.1, lw=0)
    ax.axhline(1.0, color=TRUTH_COLOUR, linewidth=0.8)
    for _, power, colour, line in curves:
        ax.plot(k[kept], power[kept] / truth[kept], color=colour, linestyle=line, linewidth=1.0)
    ax.plot(k[kept], members.mean(axis=0)[kept] / truth[kept], color=ANALYSIS_COLOUR, linewidth=1.5)
    ax.set(xscale="log", ylim=(0, 2), ylabel="ratio to truth")


def _cut_offs(ax: Axes, case: ReportCase, named: bool) -> None:
    """Where the coarse input ends (half its columns) and where the analysis grid stops being free of aliasing."""
    marks = [(triangular_limit(case.grid) - 1, f"T{triangular_limit(case.grid) - 1}")]
    if case.coarse is not None:
        marks.append((case.coarse[1].shape[1] // 2, "coarse input"))
    for position, text in marks:
        ax.axvline(position, color="#555555", linewidth=0.8, linestyle=":")
        if named:
            ax.text(position, 1.01, text, transform=ax.get_xaxis_transform(), fontsize=7, color="#333333", ha="center")


def _versus(truth: Array | None, members: Array, case: ReportCase) -> str:
    if truth is None:
        return "."
    last = triangular_limit(case.grid)
    kept = truth[1:last] > 1e-9 * truth[1:last].max()
    ratio = (members.mean(axis=0)[1:last] / truth[1:last])[kept]
    return f"; up to wavenumber {last - 1} their power is {ratio.min():.2f} to {ratio.max():.2f} times the truth's."


def trace_picture(case: ReportCase, name: str) -> Picture:
    """Values along three latitudes: truth, ensemble mean with one and two standard deviations, baselines."""
    i, (scale, units), title = case.index(name), display_units(name), label(name)
    rows = sorted({int(np.abs(np.asarray(case.grid.latitude) - lat).argmin()) for lat in TRACE_LATITUDES})
    height = 1.25 * len(rows) + 1.0
    figure = new_figure(4.5, height)
    axes = list(figure.subplots(len(rows), 1, sharex=True, squeeze=False)[:, 0])
    figure.subplots_adjust(left=0.13, right=0.98, top=1 - 0.88 / height, bottom=0.42 / height, hspace=0.34)
    lon = np.asarray(case.grid.longitude)
    mean = case.mean[i] * scale
    spread = case.members[:, i].std(axis=0, ddof=1) * scale if len(case.members) > 1 else np.zeros_like(mean)
    for ax, row in zip(axes, rows, strict=True):
        for width, alpha in ((2, 0.18), (1, 0.32)) if len(case.members) > 1 else ():
            low, high = mean[row] - width * spread[row], mean[row] + width * spread[row]
            ax.fill_between(lon, low, high, color=ANALYSIS_COLOUR, alpha=alpha, lw=0, label=f"±{width} std")
        if case.background is not None:
            values, name = case.background[i, row] * scale, case.background_name
            ax.plot(lon, values, color=BACKGROUND_COLOUR, label=name, lw=0.9, linestyle=":")
        best = case.methods()
        for colour, key in zip(BASELINE_COLOURS, list(case.baselines)[:3], strict=False):
            ax.plot(lon, best[key][i, row] * scale, color=colour, label=key, lw=0.9, linestyle="-.")
        ax.plot(lon, mean[row], color=ANALYSIS_COLOUR, label="analysis mean", lw=1.3)
        if case.truth is not None:
            ax.plot(lon, case.truth[i, row] * scale, color=TRUTH_COLOUR, label="truth", lw=1.0)
        ax.set_title(f"{_latitude(case.grid.latitude[row])} [{units}]", loc="left", y=1.0, fontsize=8, pad=2)
        ax.set_xlim(lon[0], lon[-1])
    axes[-1].set_xlabel("longitude [°E]")
    if case.grid.periodic:
        axes[-1].set_xticks(range(0, 360, 60))
    handles, names = axes[0].get_legend_handles_labels()
    figure.text(0.13, 1 - 0.19 / height, title[:1].upper() + title[1:], fontsize=9.5)
    figure.legend(handles, names, loc="upper left", ncols=3, bbox_to_anchor=(0.1, 1 - 0.2 / height), columnspacing=1.2)
    where = ", ".join(_latitude(case.grid.latitude[row]) for row in rows)
    alt = f"{title} along {where}: analysis mean with one and two standard deviations"
    return finish(figure, alt + (", and the truth." if case.truth is not None else "."), title[:1].upper() + title[1:])


def _latitude(value: float) -> str:
    return f"{abs(value):.1f}°{'N' if value >= 0 else 'S'}"

"""Statistics of gridded forecasts and ensembles, one date at a time.

What is averaged here is what every score of :mod:`genda.verify.metrics` is made of.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genda.grid import LatLonGrid
from genda.sphere import has_harmonics, triangular_limit
from genda.verify import ensemble, scores
from genda.verify.balance import level_winds, residuals
from genda.verify.decomposition import crps_bins
from genda.verify.scores import Array
from genda.verify.specdiv import sample_spectral_divergence
from genda.verify.spectra import kinetic_energy_bands
from genda.verify.statistics import Statistics
from genda.verify.tendencies import tendency_scores


def field_statistics(
    forecast: Tensor,
    truth: Tensor,
    *,
    times: NDArray[np.datetime64],
    channels: Sequence[str],
    grid: LatLonGrid,
    weights: Tensor | Array | None = None,
    std: Tensor | Array | None = None,
    climate: Tensor | None = None,
    min_degree: int | None = 13,
    antithetic: bool = False,
) -> Statistics:
    """Every statistic of gridded forecasts or ensembles, one row per date, computed one date at a time.

    Args:
        forecast: shape (time, channel, lat, lon), or (time, member, channel, lat, lon) for an ensemble, physical units.
        truth: shape (time, channel, lat, lon).
        times: valid times, shape (time,).
        channels: identifiers, in order.
        grid: where the values stand.
        weights: shape (lat,) or (lat, lon); default the grid's area weights. Give a map to score a region.
        std: standard deviation of each channel, shape (channel,), whose units the energy score is in; None leaves it out.
        climate: mean state of each date, shape (time, channel, latitude or 1, longitude or 1); the spectral divergence of
            departures from it, from degree 1 on, is taken too; None leaves that out.
        min_degree: first degree of the per-sample spectral divergence; None leaves it out, as does a grid without
            spherical harmonics of that degree.
        antithetic: members 2k and 2k + 1 come from opposite noise. The spread counts the sampling error that the mean of all has
            left, by that of the pairs' means; what takes members as independent (fair CRPS, ranks, fair energy score) is taken of
            the even and of the odd members, and averaged. The CRPS's decomposition, which depends on how many members there
            are, is left out.

    Returns:
        errors of the forecast or of the ensemble mean; squared spread, rank histogram and bins of the CRPS of an ensemble; fair
        CRPS and fair energy score (of a deterministic forecast: absolute error and norm of the error); SpecDiv of fields and of
        anomalies, averaged over members, and of the mean; kinetic energy by band, averaged over levels and members, and of the
        truth; squared residuals of geostrophic and hydrostatic balance, averaged over members, and of the truth, and squared
        errors and sizes of tendencies, averaged over members, where grid and channels allow.

    Raises:
        ValueError: for shapes that do not agree, or a value that is not finite (channel and time named).
    """
    expected = (len(times), len(channels), *grid.shape)
    if tuple(truth.shape) != expected:
        raise ValueError(f"truth: found shape {tuple(truth.shape)}, expected (time, channel, lat, lon) = {expected}")
    if forecast.ndim not in (4, 5) or (forecast.shape[0], *forecast.shape[-3:]) != expected:
        found = tuple(forecast.shape)
        raise ValueError(f"forecast: found shape {found}, expected (time, [member,] channel, lat, lon) = {expected}")
    scale = None if std is None else torch.as_tensor(std, dtype=torch.float64, device=truth.device)
    if scale is not None and scale.shape != (len(channels),):
        raise ValueError(f"std: found shape {tuple(scale.shape)}, expected ({len(channels)},)")
    if antithetic and (forecast.ndim == 4 or forecast.shape[1] % 2 or forecast.shape[1] < 4):
        count = 1 if forecast.ndim == 4 else forecast.shape[1]
        raise ValueError(f"forecast: found {count} antithetic members, expected an even number from 4")
    area = grid.area_weights if weights is None else weights
    resolved = has_harmonics(grid) and min_degree is not None and min_degree < triangular_limit(grid) - 1
    first = min_degree if resolved else None
    rows: list[dict[str, Array]] = []
    climates = [None] * len(times) if climate is None else climate
    for x, y, mean_state, time in zip(forecast, truth, climates, times, strict=True):
        for name, field in (("forecast", x), ("truth", y)):
            bad = ~torch.isfinite(field).flatten(-2).all(dim=-1).reshape(-1, len(channels)).all(dim=0)
            if bool(bad.any()):
                where = f"{channels[int(bad.nonzero()[0])]} at {time}"
                raise ValueError(f"{name}: found a value that is not finite in {where}")
        rows.append(
            {
                name: v.cpu().numpy()
                for name, v in _one_date(x, y, area, grid, channels, scale, mean_state, first, antithetic).items()
            }
        )
    values = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    samples = tuple(np.asarray(times, dtype="datetime64[ns]"))
    return Statistics(samples, tuple(channels), values, np.ones((len(times), len(channels))))


def _one_date(
    x: Tensor,
    y: Tensor,
    area: Tensor | Array,
    grid: LatLonGrid,
    channels: Sequence[str],
    std: Tensor | None,
    climate: Tensor | None,
    min_degree: int | None,
    antithetic: bool,
) -> dict[str, Tensor]:
    best = x.double().mean(dim=0) if x.ndim == 4 else x.double()
    out = {
        "squared_error": scores.mse(best, y, area),
        "absolute_error": scores.mae(best, y, area),
        "error": scores.bias(best, y, area),
    }
    several = x.ndim == 4 and x.shape[0] > 1
    independent = [x[0::2], x[1::2]] if antithetic else [x]
    if several:
        out["squared_spread"] = scores.area_mean(_expected_error(x, antithetic), area)
        parts = [_of_independent(part, y, area, std) for part in independent]
        out |= {name: torch.stack([part[name] for part in parts]).mean(dim=0) for name in parts[0]}
        if not antithetic:
            out["crps_alpha"], out["crps_beta"] = crps_bins(x, y, area)
    else:
        out["crps"] = out["absolute_error"]
        if std is not None:
            out["energy_score"] = (out["squared_error"] / std**2).mean().sqrt().unsqueeze(0)
    if min_degree is not None:
        out |= _spectral("specdiv", x, best, y, grid, min_degree)
        # The climate itself has no anomalies.
        if climate is not None and bool((x - climate).flatten(-2).any(dim=-1).all()):
            out |= _spectral("specdiv_anomaly", x - climate, best - climate, y - climate, grid, 1)
    wind = level_winds(channels)
    if wind and has_harmonics(grid):
        u, v = (list(part) for part in zip(*wind, strict=True))
        for name, field in (("kinetic_energy", x), ("kinetic_energy_truth", y)):
            energy = kinetic_energy_bands(field[..., u, :, :], field[..., v, :, :], grid).mean(dim=-2)
            out[name] = (energy.mean(dim=0) if field.ndim == 4 else energy).unsqueeze(0)
    expected = residuals(y, channels, grid, area)
    for name, found in residuals(x, channels, grid, area).items():
        out[name] = (found.mean(dim=0) if x.ndim == 4 else found).unsqueeze(0)
        out[f"{name}_truth"] = expected[name].unsqueeze(0)
    told = tendency_scores(x, y, channels, grid, area)
    for name, found in zip(("tendency_error", "tendency_size"), told or (), strict=False):  # none, or both
        out[name] = (found.mean(dim=0) if x.ndim == 4 else found).unsqueeze(0)
    return out


def _spectral(name: str, x: Tensor, best: Tensor, y: Tensor, grid: LatLonGrid, first: int) -> dict[str, Tensor]:
    """SpecDiv of the members (or of the one state), averaged, and of their mean."""
    members = sample_spectral_divergence(x, y, grid, first)
    return {
        name: members.mean(dim=0) if x.ndim == 4 else members,
        f"{name}_mean": sample_spectral_divergence(best, y, grid, first),
    }


def _of_independent(x: Tensor, y: Tensor, area: Tensor | Array, std: Tensor | None) -> dict[str, Tensor]:
    """Scores that take members (member, channel, lat, lon) as independent."""
    energy = {} if std is None else {"energy_score": ensemble.energy_score(x, y, area, std).unsqueeze(0)}
    return energy | {
        "crps": scores.area_mean(ensemble.fair_crps(x, y), area),
        "rank_histogram": ensemble.rank_histogram(x, y, area),
    }


def _expected_error(x: Tensor, antithetic: bool) -> Tensor:
    """Squared error that the spread of the members leads one to expect of their mean, (channel, lat, lon)."""
    if not antithetic:
        return ensemble.squared_spread(x)
    even, odd = x[0::2].double(), x[1::2].double()
    means = 0.5 * (even + odd)
    return 0.5 * (even.var(dim=0) + odd.var(dim=0)) + means.var(dim=0) / len(means)

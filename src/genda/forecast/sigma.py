r"""From changes of fields on pressure levels, such as an analysis makes, to changes on a model's sigma levels.

The way back from :mod:`genda.forecast.pressure`. What pressure levels and surface fields show of a column's change δ is W δ:
interpolation linear in ``ln p`` between the model's levels, and at the ground what a model of this kind makes of its lowest levels,
``u10`` and ``v10`` a share of the lowest wind, ``t2m`` the temperature of the lowest two continued to σ = 0.99. A pressure
level below the ground shows the lowest level. The change is the likeliest that shows the fields y given,

    δ = C Wᵀ (W C Wᵀ + ε diag(W C Wᵀ))⁻¹ y,        C_ij = s_i s_j exp(−|ln σ_i − ln σ_j| / L)

with s = 1, for humidity σ³. Interpolating y itself would smooth twice: at the tropopause half the temperature would be lost.
Between the lowest pressure level and the ground C carries humidity, which has no field there; above the highest pressure level
changes fade with a scale of L, since what the levels tell of the stratosphere is little.

Surface pressure follows from pressure at mean sea level by :func:`~genda.forecast.pressure.mean_sea_level_pressure`, with the
lowest temperature before and after the change. Geopotential is not read: it is the hydrostatic integral of the temperature and
the surface pressure that are changed already, and where an analysis says otherwise the model could not hold it.

Arrays are numpy, float64, SI units, north to south; levels of the model run from its top to the ground.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from genda.forecast.pressure import Array, mean_sea_level_pressure, surface_temperature

REACH = 0.5
"""L, in ln p: of 0.5, 1 and 2 the best for differences of a day's forecasts."""
_TOLERANCE = 0.01
_T2M_SIGMA = 0.99  # SPEEDY's near-surface temperature


@dataclass(frozen=True)
class Ground:
    """The columns that are changed.

    Attributes:
        sigma: pressure divided by surface pressure, top to bottom, shape (sigma,).
        surface_pressure: Pa, shape (lat, lon).
        temperature: of the lowest level, K, shape (lat, lon).
        geopotential: of the surface, m² s⁻², shape (lat, lon).
        wind_reduction: wind at 10 m divided by that of the lowest level.
    """

    sigma: Array
    surface_pressure: Array
    temperature: Array
    geopotential: Array
    wind_reduction: float


@dataclass(frozen=True)
class SigmaChange:
    """Changes of what a model predicts: ``temperature u v q`` (sigma, lat, lon) and ``log_surface_pressure`` (lat, lon)."""

    temperature: Array
    u: Array
    v: Array
    q: Array
    log_surface_pressure: Array


def to_sigma_levels(change: Mapping[str, Array], levels: Sequence[float], ground: Ground) -> SigmaChange:
    """Changes on sigma levels.

    Args:
        change: ``t u v q`` of shape (level, lat, lon), ``t2m u10 v10 msl`` of shape (lat, lon), as
            :func:`~genda.forecast.pressure.to_pressure_levels` names them.
        levels: pressures in Pa.
        ground: of the state that is changed.
    """
    x = np.log(ground.sigma)
    shown = _shown(x, np.log(np.asarray(levels)[:, None, None] / ground.surface_pressure))
    correlation = np.exp(-np.abs(x[:, None] - x) / REACH)
    lowest, beyond = np.zeros_like(x), (np.log(_T2M_SIGMA) - x[-1]) / (x[-1] - x[-2])
    lowest[-1] = 1.0
    near_ground = (1.0 + beyond) * lowest - beyond * np.roll(lowest, -1)
    with_t2m, with_wind = (_joined(shown, row) for row in (near_ground, ground.wind_reduction * lowest))
    temperature = _likeliest(with_t2m, [*change["t"], change["t2m"]], correlation)
    u, v = (_likeliest(with_wind, [*change[name], change[f"{name}10"]], correlation) for name in ("u", "v"))
    moist = ground.sigma**3
    q = _likeliest(shown, list(change["q"]), moist[:, None] * correlation * moist)
    before = _log_reduction(ground, ground.temperature)
    after = _log_reduction(ground, ground.temperature + temperature[-1])
    raised = np.log1p(change["msl"] / (ground.surface_pressure * np.exp(before)))
    return SigmaChange(temperature, u, v, q, raised - (after - before))


def _shown(x: Array, targets: Array) -> Array:
    """W: what targets (level, lat, lon) show of nodes ``x``, linear between, constant beyond; shape (lat, lon, level, node)."""
    targets = np.moveaxis(targets, 0, -1)
    above = np.clip(np.searchsorted(x, targets) - 1, 0, x.size - 2)
    w = np.clip((targets - x[above]) / (x[above + 1] - x[above]), 0.0, 1.0)
    weights = np.zeros((*targets.shape, x.size))
    np.put_along_axis(weights, above[..., None], 1.0 - w[..., None], axis=-1)
    np.put_along_axis(weights, above[..., None] + 1, w[..., None], axis=-1)
    return weights


def _joined(weights: Array, row: Array) -> Array:
    return np.concatenate([weights, np.broadcast_to(row, (*weights.shape[:2], 1, row.size))], axis=-2)


def _likeliest(weights: Array, fields: Sequence[Array], covariance: Array) -> Array:
    """δ from the fields W δ, each (lat, lon); shape (sigma, lat, lon)."""
    cross = covariance @ np.swapaxes(weights, -1, -2)
    seen = weights @ cross
    diagonal = np.einsum("...ii->...i", seen)  # a view
    seen = seen + _TOLERANCE * diagonal[..., None] * np.eye(seen.shape[-1])
    found = cross @ np.linalg.solve(seen, np.stack(fields, axis=-1)[..., None])
    return np.moveaxis(found[..., 0], -1, 0)


def _log_reduction(ground: Ground, temperature: Array) -> Array:
    """Logarithm of mean sea level pressure over surface pressure, for a temperature of the lowest level."""
    ps = ground.surface_pressure
    t_surface = surface_temperature(temperature, ground.sigma[-1] * ps, ps)
    return np.asarray(np.log(mean_sea_level_pressure(ps, t_surface, ground.geopotential) / ps))

"""From a model's sigma levels to pressure levels and to mean sea level.

With ``x = ln p``, temperature, wind and humidity are interpolated linearly in ``x`` between model levels, and
geopotential by the hydrostatic integral of that temperature, which passes through the model's own geopotential at
both levels::

    dΦ/dx = −R T,  T linear in x   ⇒   Φ(x) = linear + ½ R (dT/dx) (x − x_k)(x_{k+1} − x)

(linear interpolation alone sets the 500 hPa surface about 15 m too low). The surface is one more node: pressure
``p_s``, geopotential ``Φ_s``, the lowest level's wind and humidity, and a temperature extrapolated from the lowest
level with 6.5 K/km. Below the surface wind and humidity are held constant; temperature, geopotential and the pressure
at mean sea level follow ECMWF's formulas as given by Trenberth, Berry and Buja (1993), NCAR/TN-396: with
``y = ln(p / p_s)`` and ``α = R Γ / g``, the lapse rate reduced over hot ground,

    T(p) = T* exp(α y) to third order,   Φ(p) = Φ_s − R T* y (1 + αy/2 + (αy)²/6)

Arrays are numpy, levels run from the top of the model to the lowest level.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genda.variables import GAS_CONSTANT, STANDARD_GRAVITY

Array = NDArray[np.float64]
LAPSE_RATE = 0.0065
"""K m⁻¹, the standard atmosphere's troposphere."""
_ALPHA = GAS_CONSTANT * LAPSE_RATE / STANDARD_GRAVITY
_WARM, _COLD = 290.5, 255.0  # K: surface temperatures beyond which the lapse rate below ground is limited


@dataclass(frozen=True)
class SigmaFields:
    """Instantaneous model fields on sigma levels, north to south, float64, SI units.

    Attributes:
        sigma: pressure divided by surface pressure, ascending (top to bottom), shape (sigma,).
        surface_geopotential: m² s⁻², shape (lat, lon).
        surface_pressure: Pa, shape (time, lat, lon).
        geopotential, temperature, u, v, q: shape (time, sigma, lat, lon).
        t2m, u10, v10: shape (time, lat, lon).
    """

    sigma: Array
    surface_geopotential: Array
    surface_pressure: Array
    geopotential: Array
    temperature: Array
    u: Array
    v: Array
    q: Array
    t2m: Array
    u10: Array
    v10: Array


def surface_temperature(temperature: Array, lowest_pressure: Array, surface_pressure: Array) -> Array:
    """Air temperature at the surface from the lowest level (K), by the standard lapse rate."""
    return temperature * (1.0 + _ALPHA * (surface_pressure / lowest_pressure - 1.0))


def below_ground(t_surface: Array, geopotential: Array) -> tuple[Array, Array]:
    """Effective surface temperature ``T*`` and exponent ``α`` for the atmosphere imagined below the ground.

    Args:
        t_surface: air temperature at the surface, K.
        geopotential: of the surface, m² s⁻², same shape.
    """
    t_sea_level = t_surface + LAPSE_RATE * geopotential / STANDARD_GRAVITY
    flat = np.abs(geopotential) < 1.0
    safe = np.where(flat, 1.0, geopotential)
    warm_below = t_sea_level > _WARM
    hot = warm_below & (t_surface > _WARM)
    alpha = np.where(warm_below, GAS_CONSTANT * (_WARM - t_surface) / safe, _ALPHA)
    alpha = np.where(hot, 0.0, alpha)
    t_star = np.where(hot, 0.5 * (_WARM + t_surface), t_surface)
    t_star = np.where(t_surface < _COLD, 0.5 * (_COLD + t_surface), t_star)
    return np.where(flat, t_surface, t_star), np.where(flat, _ALPHA, alpha)


def mean_sea_level_pressure(surface_pressure: Array, t_surface: Array, geopotential: Array) -> Array:
    """Surface pressure reduced to mean sea level (Pa), by ``p_s exp[Φ_s/(R T*) (1 − x/2 + x²/3)]``.

    Here ``x = α Φ_s / (R T*)``.
    """
    t_star, alpha = below_ground(t_surface, geopotential)
    scaled = geopotential / (GAS_CONSTANT * t_star)
    x = alpha * scaled
    return np.asarray(surface_pressure * np.exp(scaled * (1.0 - x / 2.0 + x * x / 3.0)))


def to_pressure_levels(fields: SigmaFields, levels: Sequence[float]) -> dict[str, Array]:
    """The five level fields and four surface fields of :mod:`genda.variables`, by identifier.

    Args:
        fields: one or more instants on sigma levels.
        levels: pressures in Pa, in the order wanted.

    Returns:
        ``z t u v q``: shape (time, level, lat, lon); ``t2m u10 v10 msl``: shape (time, lat, lon).

    Raises:
        ValueError: where a level lies above the model's top level anywhere.
    """
    sigma, ps = fields.sigma, fields.surface_pressure
    top = float(sigma[0] * ps.max())
    if min(levels) < top:
        raise ValueError(f"levels: found {min(levels):g} Pa, expected at least {top:g} Pa, the model's top level")
    nodes = np.append(sigma, 1.0)[None, :, None, None] * ps[:, None]
    x = np.log(nodes)
    t_surface = surface_temperature(fields.temperature[:, -1], nodes[:, -2], ps)
    phi_s = np.broadcast_to(fields.surface_geopotential, ps.shape)
    columns = {
        "z": np.concatenate([fields.geopotential, phi_s[:, None]], axis=1),
        "t": np.concatenate([fields.temperature, t_surface[:, None]], axis=1),
        **{k: np.concatenate([c, c[:, -1:]], axis=1) for k, c in (("u", fields.u), ("v", fields.v), ("q", fields.q))},
    }
    t_star, alpha = below_ground(t_surface, phi_s)
    out: dict[str, list[Array]] = {name: [] for name in columns}
    for level in levels:
        target = np.log(level)
        k = np.clip((x < target).sum(axis=1, keepdims=True) - 1, 0, sigma.size - 1)
        x0, x1 = (np.take_along_axis(x, k + i, axis=1)[:, 0] for i in (0, 1))
        w = np.clip((target - x0) / (x1 - x0), 0.0, 1.0)
        ends = {n: tuple(np.take_along_axis(c, k + i, axis=1)[:, 0] for i in (0, 1)) for n, c in columns.items()}
        at = {name: (1.0 - w) * a + w * b for name, (a, b) in ends.items()}
        t0, t1 = ends["t"]
        at["z"] = at["z"] + 0.5 * GAS_CONSTANT * (t1 - t0) * (x1 - x0) * w * (1.0 - w)
        y = target - np.log(ps)
        under = y > 0.0
        ay = alpha * np.maximum(y, 0.0)
        at["t"] = np.where(under, t_star * (1.0 + ay + ay**2 / 2.0 + ay**3 / 6.0), at["t"])
        at["z"] = np.where(under, phi_s - GAS_CONSTANT * t_star * y * (1.0 + ay / 2.0 + ay**2 / 6.0), at["z"])
        for name, value in at.items():
            out[name].append(value)
    return {
        **{name: np.stack(values, axis=1) for name, values in out.items()},
        "t2m": fields.t2m,
        "u10": fields.u10,
        "v10": fields.v10,
        "msl": mean_sea_level_pressure(ps, t_surface, phi_s),
    }

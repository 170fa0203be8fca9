"""Flows on the sphere whose tendencies are known in closed form, with c = cos φ, s = sin φ and λ east."""

from __future__ import annotations

import torch

from genda.grid import EARTH_RADIUS as A
from genda.variables import channel

OMEGA = 7.292115e-5
R_D, C_P = 287.05, 1004.675
SURFACE = 101325.0


def angles(grid):
    """φ and λ in radians, each (lat, lon)."""
    latitude, longitude = (torch.deg2rad(torch.tensor(c, dtype=torch.float64)) for c in (grid.latitude, grid.longitude))
    return torch.meshgrid(latitude, longitude, indexing="ij")


def state(names, grid, **fields):
    """A batch of one: each field a number, a map, or a function of the pressure in Pa."""
    values = []
    for name in names:
        parsed = channel(name)
        field = fields.get(parsed.field.id, 0.0)
        value = field(parsed.pressure) if callable(field) else field
        values.append(torch.as_tensor(value, dtype=torch.float64).expand(grid.shape))
    return torch.stack(values).unsqueeze(0)


def level_names(fields, levels):
    return [f"{field}{level}" for field in fields for level in levels]


def isothermal(t=260.0):
    """Geopotential by pressure of air at one temperature above z = 0 at the surface."""
    return lambda p: R_D * t * torch.log(torch.tensor(SURFACE / p, dtype=torch.float64))


def rossby_haurwitz(grid):
    """The wave of order 4 with its balanced geopotential (Phillips 1959; Williamson et al. 1992, test 6), and their derivatives.

    ψ = a² (-w s + K c⁴ s cos 4λ), u = -ψ_φ / a, v = ψ_λ / (a c). Its geopotential makes the tendency of the divergence
    vanish, so that all of it turns eastward at the rate ν = (28 w - 2Ω) / 30: u_t = -ν u_λ and v_t = -ν v_λ.
    """
    latitude, longitude = angles(grid)
    c, s = latitude.cos(), latitude.sin()
    cos4, sin4, cos8, sin8 = (4 * longitude).cos(), (4 * longitude).sin(), (8 * longitude).cos(), (8 * longitude).sin()
    w = k = 7.848e-6
    mean = w / 2 * (2 * OMEGA + w) * c**2 + k**2 / 4 * (5 * c**10 + 26 * c**8 - 32 * c**6)
    mean_slope = -s * (w * (2 * OMEGA + w) * c + k**2 / 4 * (50 * c**9 + 208 * c**7 - 192 * c**5))
    four, four_slope = (
        (OMEGA + w) * k / 15 * (26 * c**4 - 25 * c**6),
        -s * (OMEGA + w) * k / 15 * (104 * c**3 - 150 * c**5),
    )
    eight, eight_slope = k**2 / 4 * (5 * c**10 - 6 * c**8), -s * k**2 / 4 * (50 * c**9 - 48 * c**7)
    return {
        "u": A * w * c + A * k * (4 * c**3 - 5 * c**5) * cos4,
        "u_lon": -4 * A * k * (4 * c**3 - 5 * c**5) * sin4,
        "u_lat": -A * w * s - A * k * s * (12 * c**2 - 25 * c**4) * cos4,
        "v": -4 * A * k * c**3 * s * sin4,
        "v_lon": -16 * A * k * c**3 * s * cos4,
        "v_lat": -4 * A * k * (4 * c**4 - 3 * c**2) * sin4,
        "z": A**2 * (mean + four * cos4 + eight * cos8),
        "z_lon": -(A**2) * (4 * four * sin4 + 8 * eight * sin8),
        "z_lat": A**2 * (mean_slope + four_slope * cos4 + eight_slope * cos8),
        "rate": (28 * w - 2 * OMEGA) / 30,
    }


def rms(x, grid, limit=85.0):
    """Root mean square by area within a latitude."""
    latitude = torch.tensor(grid.latitude, dtype=torch.float64)
    weights = (torch.as_tensor(grid.area_weights) * (latitude.abs() <= limit)).view(-1, 1).expand(grid.shape)
    return float(((x**2 * weights).flatten(-2).sum(dim=-1) / weights.sum()).mean().sqrt())

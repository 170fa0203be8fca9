"""Condensation keeps rising saturated air saturated, and its moist static energy what it was."""

import torch

from analytic_flows import C_P, R_D, level_names, state
from genda.grid import LatLonGrid
from genda.physics import PrimitiveEquations
from genda.physics.condensation import condensation_rate, saturation
from genda.physics.constants import LATENT_HEAT

T = torch.tensor([230.0, 260.0, 285.0, 300.0], dtype=torch.float64)
P = torch.tensor([25000.0, 50000.0, 80000.0, 95000.0], dtype=torch.float64)
OMEGA = torch.tensor([-0.1, -0.3, -0.5, -0.2], dtype=torch.float64)


def test_saturated_humidity_at_known_points():
    """Over water the vapour pressure is 611.2 Pa at 0 °C, 2339 Pa at 20 °C, 4247 Pa at 30 °C; with a constant L 3 % more."""
    t = torch.tensor([273.15, 293.15, 303.15], dtype=torch.float64)
    e = torch.tensor([611.2, 2339.0, 4247.0], dtype=torch.float64)
    found, _ = saturation(t, torch.tensor(1e5, dtype=torch.float64))
    torch.testing.assert_close(found, 0.622 * e / (1e5 - 0.378 * e), rtol=3e-2, atol=0)


def test_rising_saturated_air_stays_saturated():
    q, _ = saturation(T, P)
    rate = condensation_rate(T, q, OMEGA, P)
    warming = R_D * T * (1 + 0.608 * q) * OMEGA / (C_P * P) + LATENT_HEAT * rate / C_P
    _, along = torch.func.jvp(lambda t, p: saturation(t, p)[0], (T, P), (warming, OMEGA))
    torch.testing.assert_close(along, -rate, rtol=1e-10, atol=0)
    assert bool((rate > 0).all())


def test_no_rain_falls_from_sinking_or_unsaturated_air():
    q, _ = saturation(T, P)
    assert float(condensation_rate(T, q, -OMEGA, P).abs().max()) == 0
    assert float(condensation_rate(T, 0.99 * q, OMEGA, P).abs().max()) == 0


def test_rain_warms_by_the_latent_heat_of_what_it_takes():
    grid, names = LatLonGrid.gaussian(16, 32), level_names("uvtq", (850, 700, 500, 300))
    x = state(names, grid, t=285.0, q=0.02)
    x[:, :8] += 5 * torch.randn(1, 8, *grid.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    dry, moist = (PrimitiveEquations(grid, names, condensation=c).terms(x) for c in (False, True))
    rain = -moist["q"]["condensation"]
    assert float(rain.min()) == 0
    assert float(rain.max()) > 0
    torch.testing.assert_close(moist["t"]["condensation"], LATENT_HEAT / C_P * rain)
    assert "condensation" not in dry["t"] | dry["q"]

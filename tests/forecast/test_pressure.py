"""Interpolation to pressure against atmospheres with closed-form profiles."""

from dataclasses import replace

import numpy as np
import pytest

from genda.forecast.pressure import GAS_CONSTANT, LAPSE_RATE, SigmaFields, mean_sea_level_pressure, to_pressure_levels
from genda.variables import STANDARD_GRAVITY

SIGMA = np.array([0.025, 0.095, 0.2, 0.34, 0.51, 0.685, 0.835, 0.95])
EXPONENT = STANDARD_GRAVITY / (GAS_CONSTANT * LAPSE_RATE)


def standard_height(pressure):
    """Height (m) of a pressure in an atmosphere of 288.15 K and 1013.25 hPa at sea level with 6.5 K/km throughout."""
    return 288.15 / LAPSE_RATE * (1.0 - (pressure / 101325.0) ** (1.0 / EXPONENT))


def standard_atmosphere(ground_height):
    """Sigma fields over ground at the given heights (m), shape (lat, lon)."""
    ground = np.asarray(ground_height, dtype=np.float64)
    ps = 101325.0 * (1.0 - LAPSE_RATE * ground / 288.15) ** EXPONENT
    pressure = SIGMA[None, :, None, None] * ps[None, None]
    height = standard_height(pressure)
    zero = np.zeros((1, *ground.shape))
    return SigmaFields(
        sigma=SIGMA,
        surface_geopotential=STANDARD_GRAVITY * ground,
        surface_pressure=ps[None],
        geopotential=STANDARD_GRAVITY * height,
        temperature=288.15 - LAPSE_RATE * height,
        u=3.0 - 10.0 * np.log(pressure / 1e5),
        v=np.zeros_like(pressure),
        q=np.full_like(pressure, 1e-3),
        t2m=zero,
        u10=zero,
        v10=zero,
    )


def test_temperature_linear_in_log_pressure_gives_exact_geopotential():
    """For T = a + b ln p the hydrostatic integral is a parabola, which the interpolation reproduces exactly."""
    base = standard_atmosphere(np.zeros((2, 3)))
    pressure = SIGMA[None, :, None, None] * base.surface_pressure[:, None]
    x = np.log(pressure / 1e5)

    def exact(x):
        return 250.0 + 40.0 * x, 5.0e4 - GAS_CONSTANT * (250.0 * x + 20.0 * x**2)

    fields = replace(base, temperature=exact(x)[0], geopotential=exact(x)[1])
    levels = [70000.0, 50000.0, 30000.0, 20000.0]
    result = to_pressure_levels(fields, levels)
    for i, level in enumerate(levels):
        t, z = exact(np.log(level / 1e5))
        np.testing.assert_allclose(result["t"][:, i], t, rtol=1e-12)
        np.testing.assert_allclose(result["z"][:, i], z, rtol=1e-12)
        np.testing.assert_allclose(result["u"][:, i], 3.0 - 10.0 * np.log(level / 1e5), rtol=1e-12)


@pytest.mark.parametrize("ground", [0.0, 300.0, 1500.0, 2500.0])
def test_standard_atmosphere_over_and_under_ground(ground):
    """A 6.5 K/km atmosphere: within 2 m and 0.2 K of its closed form, also where 850 hPa lies below a plateau."""
    result = to_pressure_levels(standard_atmosphere(np.full((2, 2), ground)), [85000.0, 70000.0, 50000.0])
    for i, level in enumerate([85000.0, 70000.0, 50000.0]):
        height = standard_height(level)
        assert abs(result["z"][0, i, 0, 0] / STANDARD_GRAVITY - height) < 2.0
        assert abs(result["t"][0, i, 0, 0] - (288.15 - LAPSE_RATE * height)) < 0.2
    assert abs(result["msl"][0, 0, 0] - 101325.0) < 30.0


def test_fields_are_continuous_where_a_level_meets_the_ground():
    fields = standard_atmosphere(np.array([[1200.0, 1200.0], [1200.0, 1200.0]]))
    ps = float(fields.surface_pressure.max())
    above, below = (to_pressure_levels(fields, [ps * factor]) for factor in (1.0 - 1e-9, 1.0 + 1e-9))
    for name in ("z", "t", "u", "q"):
        np.testing.assert_allclose(above[name], below[name], rtol=1e-6)
    np.testing.assert_allclose(above["z"][0, 0], fields.surface_geopotential, rtol=1e-6)


def test_reduction_to_sea_level_keeps_pressure_at_sea_level_and_limits_hot_ground():
    ps, zero = np.array([101000.0]), np.array([0.0])
    np.testing.assert_allclose(mean_sea_level_pressure(ps, np.array([310.0]), zero), ps)
    plateau = np.array([1.5e4])
    surface = np.array([85000.0])
    cool, hot, hotter = (mean_sea_level_pressure(surface, np.array([t]), plateau)[0] for t in (275.0, 300.0, 310.0))
    assert cool > hot > hotter  # warmer air below ground weighs less
    isothermal = 85000.0 * np.exp(1.5e4 / (GAS_CONSTANT * 0.5 * (290.5 + 300.0)))
    assert hot == pytest.approx(isothermal)


def test_level_above_the_model_top_is_refused():
    with pytest.raises(ValueError, match="levels: found 1000 Pa, expected at least"):
        to_pressure_levels(standard_atmosphere(np.zeros((2, 2))), [1000.0])

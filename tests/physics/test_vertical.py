"""Derivatives and integrals of columns against the fields for which they are exact, and their order for others."""

import numpy as np
import pytest
import torch

from analytic_flows import R_D, SURFACE
from genda.physics import Column
from genda.variables import ERA5_LEVELS

UNEVEN = Column(tuple(100.0 * level for level in ERA5_LEVELS))
FIVE = Column((85000.0, 70000.0, 50000.0, 30000.0, 20000.0))


def column(values):
    return torch.as_tensor(values, dtype=torch.float64).view(1, -1, 1, 1)


def refined(count):
    """Uneven levels from 1000 to 100 hPa: twice as many have half the spacing everywhere."""
    return Column(tuple(1e5 - 9e4 * np.linspace(0, 1, count) ** 1.3))


@pytest.mark.parametrize("levels", [UNEVEN, FIVE])
def test_derivatives_of_parabolas_in_ln_p_are_exact_at_every_level(levels):
    p = np.asarray(levels.pressure)
    x, slope = 3 + 2 * np.log(p) - 0.7 * np.log(p) ** 2, (2 - 1.4 * np.log(p)) / p
    torch.testing.assert_close(levels.derivative(column(x)), column(slope), rtol=1e-9, atol=0)


@pytest.mark.parametrize("levels", [UNEVEN, FIVE])
def test_the_mass_above_is_exact_for_what_grows_with_pressure_and_goes_on_below_the_lowest_level(levels):
    """∫_0^p k p' dp' = k p² / 2; below the lowest level p_1 the value k p_1 goes on."""
    p = np.asarray(levels.pressure)
    torch.testing.assert_close(levels.mass_above(column(2e-3 * p)), column(1e-3 * p**2), rtol=1e-12, atol=0)
    whole = 1e-3 * p[0] ** 2 + 2e-3 * p[0] * (SURFACE - p[0])
    assert float(levels.mass(column(2e-3 * p))) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("levels", [UNEVEN, FIVE])
def test_an_isothermal_column_has_the_thickness_of_the_barometric_formula(levels):
    thickness = R_D * levels.depth_below(column(np.full(len(levels.pressure), 250.0)))
    torch.testing.assert_close(thickness, column(R_D * 250 * np.log(SURFACE / np.asarray(levels.pressure))))


def test_integrals_and_derivatives_are_of_second_order():
    """x = (p / p_s)^κ with κ = 0.19, the temperature of a constant lapse rate: ∫ x dln p = x / κ and ∫ x dp = p x / (1 + κ)."""
    kappa, errors = 0.19, []
    for count in (65, 129, 257):
        levels = refined(count)
        p = np.asarray(levels.pressure)
        x = (p / SURFACE) ** kappa
        slope = float((levels.derivative(column(x)) - column(kappa * x / p)).abs().mul(column(p)).max())
        depth = levels.depth_below(column(x))  # relative to the lowest level, below which x is taken as constant
        depth = depth - depth[:, :1] - column((x[0] - x) / kappa)
        mass = levels.mass_above(column(x))
        mass = mass - mass[:, -1:] - column((p * x - p[-1] * x[-1]) / (1 + kappa))
        errors.append([slope, float(depth.abs().max()), float(mass.abs().max())])
    orders = np.log2(np.asarray(errors[:-1]) / np.asarray(errors[1:]))
    assert (orders[-1] > 1.8).all(), orders


@pytest.mark.parametrize(
    ("pressure", "message"),
    [
        ((85000.0, 50000.0), "levels: found 2, expected at least 3"),
        ((20000.0, 50000.0, 85000.0), "expected falling pressures"),
        ((85000.0, 85000.0, 50000.0), "expected falling pressures"),
        ((110000.0, 85000.0, 50000.0), "between the surface"),
        ((85000.0, 50000.0, 0.0), "and 0"),
    ],
)
def test_columns_that_are_none_are_refused(pressure, message):
    with pytest.raises(ValueError, match=message):
        Column(pressure)

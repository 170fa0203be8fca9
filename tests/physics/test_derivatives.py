"""Gradients against analytic fields that reach across the poles; the order of the differences; the filter's closed form."""

import math

import numpy as np
import pytest
import torch

from analytic_flows import A, angles, rms, rossby_haurwitz
from genda.grid import LatLonGrid
from genda.physics import Derivatives, Differentiation

GAUSSIAN = LatLonGrid.gaussian(32, 64)
POLES = LatLonGrid.equiangular(33, 64)
STRADDLING = LatLonGrid.equiangular(32, 64)
DIFFERENCES = Differentiation(meridional="differences")


def scalar(grid):
    """x = s + c³ sin 3λ + s c cos λ and a times its gradient."""
    latitude, longitude = angles(grid)
    c, s = latitude.cos(), latitude.sin()
    x = s + c**3 * (3 * longitude).sin() + s * c * longitude.cos()
    east = 3 * c**2 * (3 * longitude).cos() - s * longitude.sin()
    north = c - 3 * c**2 * s * (3 * longitude).sin() + (2 * latitude).cos() * longitude.cos()
    return x, east, north


def over_the_poles(grid):
    """Solid-body rotation about an axis in the equator, u = s cos λ and v = -sin λ, with a times the components' derivatives."""
    latitude, longitude = angles(grid)
    c, s = latitude.cos(), latitude.sin()
    u, u_east, u_north = s * longitude.cos(), -s / c * longitude.sin(), c * longitude.cos()
    v, v_east, v_north = -longitude.sin(), -longitude.cos() / c, torch.zeros_like(s)
    return [torch.stack(parts) for parts in ((u, v), (u_east, v_east), (u_north, v_north))]


@pytest.mark.parametrize("grid", [GAUSSIAN, POLES])
def test_harmonics_give_the_gradient_of_a_smooth_scalar_up_to_the_poles(grid):
    x, east, north = scalar(grid)
    inside = (torch.tensor(grid.latitude).abs() < 89.9).view(-1, 1)
    found_east, found_north = Derivatives(grid).gradient(torch.stack([x, 2 * x]))
    assert float((A * found_north[1] - 2 * north * inside).abs().max()) < 1e-10
    below_the_cap = (torch.tensor(grid.latitude).abs() < 84).view(-1, 1)  # which cuts wave 3 off in the last rows
    assert float(((A * found_east[0] - east) * below_the_cap).abs().max()) < 1e-10
    whole = Derivatives(grid, Differentiation(polar_cap=False)).gradient(x)[0]
    assert float((A * whole - east * inside).abs().max()) < 1e-10


@pytest.mark.parametrize("grid", [GAUSSIAN, POLES])
def test_harmonics_give_the_gradient_of_wind_across_the_poles(grid):
    x, east, north = over_the_poles(grid)
    inside = (torch.tensor(grid.latitude).abs() < 89.9).view(-1, 1)
    found_east, found_north = Derivatives(grid).gradient(x, wind=True)
    assert float((A * found_east - east)[:, inside[:, 0]].abs().max()) < 1e-9
    assert float((A * found_north - north * inside).abs().max()) < 1e-9


@pytest.mark.parametrize("make", [LatLonGrid.gaussian, LatLonGrid.equiangular])
@pytest.mark.parametrize("odd", [0, 1])
def test_differences_across_the_poles_are_of_fourth_order(make, odd):
    errors = []
    for rows in (24, 48, 96):
        grid = make(rows + odd, 32)
        derivatives = Derivatives(grid, DIFFERENCES)
        (x, _, north), (wind, _, wind_north) = scalar(grid), over_the_poles(grid)
        inside = (torch.tensor(grid.latitude).abs() < 89.9).view(-1, 1)
        found = derivatives.gradient(x)[1], derivatives.gradient(wind, wind=True)[1]
        errors.append(
            [float((A * f - e * inside).abs().max()) for f, e in zip(found, (north, wind_north), strict=True)]
        )
    orders = np.log2(np.asarray(errors[:-1]) / np.asarray(errors[1:]))
    assert (orders > 3.5).all(), orders
    assert max(errors[-1]) < 1e-4


def test_rows_beyond_a_pole_change_the_sign_of_the_wind_alone():
    """v = -sin λ is the same wind all over a pole: taken as a scalar it would jump there."""
    v = over_the_poles(STRADDLING)[0][1]
    derivatives = Derivatives(STRADDLING, DIFFERENCES)
    assert float(A * derivatives.gradient(v, wind=True)[1].abs().max()) < 1e-10
    assert float(A * derivatives.gradient(v)[1].abs().max()) > 1


@pytest.mark.parametrize(("order", "cap"), [(16, True), (8, True), (8, False), (None, True)])
def test_the_filter_multiplies_a_wave_by_its_closed_form(order, cap):
    derivatives = Derivatives(GAUSSIAN, Differentiation(filter_order=order, polar_cap=cap))
    latitude, longitude = angles(GAUSSIAN)
    for m in (2, 12, 25):
        found = A * latitude.cos() * derivatives.gradient((m * longitude).sin())[0]
        for row in (0, 3, 16):
            limit = math.ceil(32 * float(latitude[row, 0].cos())) if cap else 32
            kept = float(m <= limit) * (1.0 if order is None else math.exp(-36 * (m / 32) ** order))
            torch.testing.assert_close(found[row], kept * m * (m * longitude[row]).cos(), rtol=0, atol=1e-10)


def test_a_smooth_flow_keeps_its_derivatives_under_the_filter():
    grid = LatLonGrid.gaussian(48, 96)
    wave = rossby_haurwitz(grid)
    east = Derivatives(grid).gradient(wave["u"], wind=True)[0]
    expected = wave["u_lon"] / (A * angles(grid)[0].cos())
    assert rms(east - expected, grid, limit=90) < 1e-3 * rms(expected, grid, limit=90)


@pytest.mark.parametrize("settings", [Differentiation(), DIFFERENCES])
def test_rows_on_a_pole_have_no_gradient_and_stay_finite(settings):
    x = torch.randn(2, *POLES.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for wind in (False, True):
        for part in Derivatives(POLES, settings).gradient(x, wind=wind):
            assert torch.isfinite(part).all()
            assert float(part[:, [0, -1]].abs().max()) == 0


@pytest.mark.parametrize(
    ("grid", "settings", "message"),
    [
        (LatLonGrid(tuple(np.arange(60.0, 30, -3)), tuple(np.arange(0.0, 40, 3))), {}, "grid: found a region"),
        (LatLonGrid.gaussian(16, 31), {}, "expected at least 4 rows and an even number of columns"),
        (STRADDLING, {"meridional": "harmonics"}, "expect a global Gaussian grid or rows at both poles"),
        (GAUSSIAN, {"degrees": 40}, "found 40 degrees, expected at most 32"),
        (GAUSSIAN, {"meridional": "spline"}, "meridional: found 'spline'"),
        (GAUSSIAN, {"filter_order": 0}, "filter_order: found 0"),
    ],
)
def test_what_cannot_be_differentiated_is_refused(grid, settings, message):
    with pytest.raises(ValueError, match=message):
        Derivatives(grid, Differentiation(**settings))


def test_a_grid_without_harmonics_is_differenced():
    """Rows at half a spacing from the poles, as of ERA5 on 128×256."""
    x = torch.randn(2, *STRADDLING.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    usual, differenced = (Derivatives(STRADDLING, settings).gradient(x) for settings in (None, DIFFERENCES))
    for found, expected in zip(usual, differenced, strict=True):
        assert torch.equal(found, expected)

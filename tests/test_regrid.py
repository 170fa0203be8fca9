"""Regridding against conserved integrals, closed forms, scipy and the spectrum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.interpolate import RegularGridInterpolator

from genda.files import open_gridded
from genda.grid import LatLonGrid
from genda.regrid import regrid, regridder
from genda.sphere import SphericalTransform, degree_power
from genda.state import State, from_dataset
from shared_data import shared

QUARTER = LatLonGrid.equiangular(181, 360)
GAUSSIAN = LatLonGrid.gaussian(48, 96)
COARSE = LatLonGrid.equiangular(121, 240)
THREE_DEGREES = LatLonGrid.equiangular(61, 120)


def area_mean(fields, grid):
    return (torch.as_tensor(grid.area_weights).view(-1, 1) * fields.double()).mean(dim=(-2, -1))


@pytest.mark.parametrize(
    ("source", "target"),
    [(QUARTER, GAUSSIAN), (THREE_DEGREES, COARSE), (LatLonGrid.gaussian(64, 128), GAUSSIAN), (GAUSSIAN, QUARTER)],
)
def test_conservative_regridding_keeps_area_means_and_constants(source, target):
    fields = 280 + 20 * torch.randn(3, *source.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moved = regridder(source, target)(fields, False)
    torch.testing.assert_close(area_mean(moved, target), area_mean(fields, source), rtol=1e-14, atol=0)
    constant = regridder(source, target)(torch.full((1, *source.shape), 271.25), False)
    torch.testing.assert_close(constant, torch.full_like(constant, 271.25), rtol=1e-14, atol=0)


def test_conservative_regridding_of_a_zonal_field_is_the_integral_over_each_cell():
    """The mean of sin φ between two latitudes is the mean of their sines."""
    fine = LatLonGrid.equiangular(1800, 8)
    sine = torch.as_tensor(np.sin(np.radians(fine.latitude))).view(-1, 1).expand(fine.shape)
    moved = regridder(fine, GAUSSIAN)(sine, False)
    edges = np.sin(np.radians(GAUSSIAN.row_edges))
    np.testing.assert_allclose(moved[:, 0], 0.5 * (edges[1:] + edges[:-1]), atol=5e-6)


@pytest.mark.parametrize("target", [GAUSSIAN, COARSE])
def test_bilinear_regridding_reproduces_what_is_linear_in_latitude(target):
    linear = torch.as_tensor(np.asarray(QUARTER.latitude)).view(-1, 1).expand(QUARTER.shape)
    moved = regridder(QUARTER, target, "bilinear")(linear, False)
    np.testing.assert_allclose(moved, np.broadcast_to(np.reshape(target.latitude, (-1, 1)), target.shape), atol=1e-12)


def test_bilinear_regridding_into_a_region_agrees_with_scipy():
    region = LatLonGrid(tuple(np.arange(60.3, 39.0, -1.7)), tuple(np.arange(11.1, 40.0, 1.3)))
    fields = np.random.default_rng(0).normal(size=QUARTER.shape)
    ascending = RegularGridInterpolator((QUARTER.latitude[::-1], QUARTER.longitude), fields[::-1])
    expected = ascending(np.stack(np.meshgrid(region.latitude, region.longitude, indexing="ij"), axis=-1))
    moved = regridder(QUARTER, region, "bilinear")(torch.as_tensor(fields), False)
    np.testing.assert_allclose(moved, expected, atol=1e-12)


def test_the_wind_across_a_pole_keeps_its_direction():
    """A uniform flow over the north pole is u = -sin λ, v = -cos λ there, also between rows on either side."""
    source, target = LatLonGrid.gaussian(16, 64), LatLonGrid.gaussian(64, 64)
    longitude = np.radians(source.longitude)
    moved = regridder(source, target, "bilinear")(torch.as_tensor(-np.sin(longitude)).expand(source.shape), True)
    np.testing.assert_allclose(moved[0], -np.sin(np.radians(target.longitude)), atol=1e-12)


@pytest.mark.parametrize("target", [GAUSSIAN, COARSE])
def test_spectral_regridding_keeps_every_coefficient_below_the_truncation(target):
    source = LatLonGrid.gaussian(64, 128)
    there, back = SphericalTransform(source).double(), SphericalTransform(target).double()
    limit = min(there.lmax, back.lmax)
    fields = there.synthesis(there.analysis(torch.randn(2, *source.shape, dtype=torch.float64)))
    moved = regridder(source, target, "spectral")(fields, False)
    expected, found = there.analysis(fields)[:, :limit, :limit], back.analysis(moved)[:, :limit, :limit]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3 if target is COARSE else 1e-12)


@pytest.mark.parametrize("target", [GAUSSIAN, COARSE])
def test_era5_keeps_area_means_and_spectra(target):
    """Ten members of ERA5: conservative keeps the area means, spectral the power of every degree; see docs/results/gridded.md."""
    pytest.importorskip("cfgrib")
    state = from_dataset(open_gridded(shared("era5-levels-members.grib")).at())
    assert state.values.shape == (4, 10, 4, 61, 120)
    conserved = regrid(state, target, regridder(state.grid, target))
    torch.testing.assert_close(
        area_mean(conserved.values, target), area_mean(state.values, state.grid), rtol=1e-7, atol=0
    )
    spectral = regrid(state, target, regridder(state.grid, target, "spectral"))
    before, after = (
        degree_power(SphericalTransform(s.grid, 31).double().analysis(s.values.double())) for s in (state, spectral)
    )
    torch.testing.assert_close(after, before, rtol=2e-3, atol=0)


@pytest.mark.parametrize("target", [GAUSSIAN, THREE_DEGREES])
@pytest.mark.parametrize("method", ["conservative", "bilinear", "spectral"])
def test_a_wind_over_the_poles_is_the_same_wind_on_another_grid(target, method):
    """Solid rotation about an axis in the equator: u = sin φ cos λ, v = -sin λ, as strong at the poles as anywhere."""

    def rotation(grid):
        latitude, longitude = np.meshgrid(np.radians(grid.latitude), np.radians(grid.longitude), indexing="ij")
        return torch.as_tensor(np.stack([np.sin(latitude) * np.cos(longitude), -np.sin(longitude)]))

    state = State(rotation(COARSE)[None].float(), ("u500", "v500"), COARSE, np.array(["2001-01-01"], "datetime64[ns]"))
    moved = regrid(state, target, regridder(COARSE, target, method))
    expected = rotation(target)[None].float()
    torch.testing.assert_close(moved.values, expected, rtol=0, atol=1e-6 if method == "spectral" else 0.02)
    with pytest.raises(ValueError, match="expected both u and v"):
        regrid(state.select(["u500"]), target, regridder(COARSE, target, "spectral"))


@pytest.mark.parametrize("method", ["bilinear", "spectral"])
def test_columns_need_not_begin_at_the_prime_meridian(method):
    source = LatLonGrid(GAUSSIAN.latitude, tuple(v + 1.25 for v in GAUSSIAN.longitude))

    def wave(grid):
        return torch.as_tensor(np.outer(np.cos(np.radians(grid.latitude)), np.cos(np.radians(grid.longitude))))

    moved = regridder(source, GAUSSIAN, method)(wave(source), False)
    torch.testing.assert_close(moved, wave(GAUSSIAN), rtol=0, atol=1e-12 if method == "spectral" else 1e-3)


@pytest.mark.parametrize("method", ["conservative", "bilinear"])
def test_a_region_that_crosses_the_prime_meridian_covers_both_sides(method):
    source = LatLonGrid(tuple(np.arange(60.0, 30.0, -1.0)), tuple(np.arange(340.0, 381.0)))
    target = LatLonGrid(tuple(np.arange(58.0, 34.0, -2.0)), tuple(np.arange(5.0, 16.0, 2.0)))
    fields = torch.as_tensor(np.broadcast_to(np.asarray(source.longitude) - 360, source.shape).copy())
    moved = regridder(source, target, method)(fields, False)
    np.testing.assert_allclose(moved, np.broadcast_to(target.longitude, target.shape), atol=1e-10)


def test_slightly_negative_humidity_is_conserved_and_ripples_are_cut_off():
    """Spectral models leave values below zero: an average keeps them, harmonics add none that are lower."""
    source = LatLonGrid.gaussian(64, 128)
    values = 1e-4 * torch.randn(1, 1, *source.shape, generator=torch.Generator().manual_seed(0))
    state = State(values, ("q850",), source, np.array(["2001-01-01"], "datetime64[ns]"))
    averaged = regrid(state, GAUSSIAN, regridder(source, GAUSSIAN))
    torch.testing.assert_close(area_mean(averaged.values, GAUSSIAN), area_mean(values, source), rtol=0, atol=1e-12)
    dry = State((values > 1e-4) * values, *(getattr(state, k) for k in ("channels", "grid", "times")))
    assert float(regridder(source, GAUSSIAN, "spectral")(dry.values, False).min()) < -1e-5
    assert float(regrid(dry, GAUSSIAN, regridder(source, GAUSSIAN, "spectral")).values.min()) == 0


def test_a_target_outside_the_data_and_an_unknown_method_are_named():
    region = LatLonGrid(tuple(np.arange(60.0, 30.0, -2.0)), tuple(np.arange(0.0, 40.0, 2.0)))
    with pytest.raises(ValueError, match="outside the data"):
        regridder(region, GAUSSIAN, "bilinear")
    with pytest.raises(ValueError, match="method: found 'nearest'"):
        regridder(QUARTER, GAUSSIAN, "nearest")
    with pytest.raises(ValueError, match="spherical harmonics"):
        regridder(region, region, "spectral")

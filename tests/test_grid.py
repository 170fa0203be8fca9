"""Grids against integrals and coordinates known in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from genda.grid import LatLonGrid

GRIDS = [LatLonGrid.gaussian(48, 96), LatLonGrid.equiangular(121, 240), LatLonGrid.equiangular(128, 256)]


@pytest.mark.parametrize("grid", GRIDS)
def test_area_mean_of_sine_squared_is_a_third(grid):
    sine = np.sin(np.radians(grid.latitude))
    exact_on_gaussian = 1e-12 if grid.is_gaussian else 2e-4
    assert (grid.area_weights * sine**2).mean() == pytest.approx(1 / 3, abs=exact_on_gaussian)
    assert grid.area_weights.mean() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("grid", GRIDS)
def test_any_file_order_gives_the_same_grid_and_the_same_field(grid):
    lat, lon = np.asarray(grid.latitude), np.asarray(grid.longitude)
    values = np.sin(np.radians(lat))[:, None] + np.cos(np.radians(lon))[None]
    shuffled_lon = np.where(lon >= 180, lon - 360, lon)
    order = np.argsort(shuffled_lon)
    found, rows, columns = LatLonGrid.from_coordinates(lat[::-1], shuffled_lon[order])
    np.testing.assert_allclose(found.latitude, lat)
    np.testing.assert_allclose(found.longitude, lon, atol=1e-9)
    np.testing.assert_allclose(values[::-1][:, order][rows][:, columns], values)


def test_a_region_across_the_prime_meridian_stays_in_one_piece():
    lon = np.arange(-20.0, 31.0, 2.5)
    grid, _, columns = LatLonGrid.from_coordinates(np.arange(60.0, 30.0, -2.5), np.mod(lon, 360))
    assert grid.longitude[0] == 340.0
    np.testing.assert_allclose(np.diff(grid.longitude), 2.5)
    assert not grid.periodic
    assert not grid.is_global
    assert grid.contains(np.array([45.0, 45.0, 45.0]), np.array([0.0, 339.0, 330.0])).tolist() == [True, True, False]
    np.testing.assert_allclose(np.mod(lon, 360)[columns], np.mod(grid.longitude, 360))


def test_blocks_keep_the_area():
    grid = LatLonGrid.gaussian(48, 96)
    blocks = grid.area_weights.reshape(12, 4).mean(axis=1)
    np.testing.assert_allclose(grid.coarsened(4).area_weights, blocks, rtol=0.03)


@pytest.mark.parametrize(
    ("latitude", "longitude", "message"),
    [
        ([10.0, 10.0, 0.0], [0.0, 1.0], "duplicates"),
        ([91.0, 0.0], [0.0, 1.0], "latitude: found 91"),
        ([10.0, 0.0], [0.0, 1.0, 3.0], "evenly spaced"),
        ([10.0, np.nan], [0.0, 1.0], "not finite"),
        ([10.0, 0.0], [0.0, 360.0], "duplicates"),
    ],
)
def test_bad_coordinates_are_named(latitude, longitude, message):
    with pytest.raises(ValueError, match=message):
        LatLonGrid.from_coordinates(latitude, longitude)

"""Simulated networks: distinct places, the distribution each promises, splits by station."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from genda.grid import EARTH_RADIUS, LatLonGrid
from genda.observations import (
    columns_table,
    distance_to_sites,
    land_weighted,
    random_columns,
    station_network,
    validate,
    withhold,
)
from genda.observations.stations import shipped_stations
from genda.variables import EMBEDDED_CHANNELS, ERA5_CHANNELS

GRID = LatLonGrid.gaussian(48, 96)


def draws(function, n: int = 200) -> pd.DataFrame:
    return pd.concat([function(np.random.default_rng(seed)) for seed in range(n)], ignore_index=True)


@pytest.mark.parametrize("density", [0.1, 0.02, 0.005])
def test_random_columns_are_distinct_grid_points(density):
    found = random_columns(GRID, density, np.random.default_rng(3))
    assert len(found) == round(density * 48 * 96)
    assert found["station"].is_unique
    assert not found[["latitude", "longitude"]].duplicated().any()
    assert set(found["latitude"]) <= set(GRID.latitude)
    assert set(found["longitude"]) <= set(GRID.longitude)
    again = random_columns(GRID, density, np.random.default_rng(3))
    pd.testing.assert_frame_equal(found, again)


def test_columns_are_uniform_by_point_or_by_area():
    """North of 60° lie a third of the rows (by count) but 6.7 % of the sphere."""
    rows = (np.asarray(GRID.latitude) > 60).mean()
    by_point = draws(lambda g: random_columns(GRID, 0.02, g))
    by_area = draws(lambda g: random_columns(GRID, 0.02, g, area_weighted=True))
    assert (by_point["latitude"] > 60).mean() == pytest.approx(rows, abs=0.01)
    assert (by_area["latitude"] > 60).mean() == pytest.approx((1 - np.sin(np.radians(60))) / 2, abs=0.01)
    for longitudes in (by_point["longitude"], by_area["longitude"]):
        assert (longitudes < 180).mean() == pytest.approx(0.5, abs=0.02)


def test_land_weighted_follows_land_and_area():
    mask = np.zeros(GRID.shape)
    mask[:, :48] = 1.0
    found = draws(lambda g: land_weighted(GRID, mask, 100, g, ocean_share=0.1))
    # Drawn without replacement, a little less than the 10 : 1 of a single draw.
    assert (found["longitude"] < 180).mean() == pytest.approx(10 / 11, abs=0.01)
    assert (found["latitude"] > 60).mean() == pytest.approx((1 - np.sin(np.radians(60))) / 2, abs=0.01)
    only = land_weighted(GRID, mask, 500, np.random.default_rng(0), ocean_share=0.0)
    assert (only["longitude"] < 180).all()
    with pytest.raises(ValueError, match="land_sea_mask: found shape"):
        land_weighted(GRID, mask.T, 10, np.random.default_rng(0))
    with pytest.raises(ValueError, match="outside 0 to 1"):
        land_weighted(GRID, mask * 100, 10, np.random.default_rng(0))
    with pytest.raises(ValueError, match="count"):
        land_weighted(GRID, mask, 5000, np.random.default_rng(0))


def test_density_is_checked():
    for density in (0.0, 1.5, np.nan, 1e-6):
        with pytest.raises(ValueError, match="density"):
            random_columns(GRID, density, np.random.default_rng(0))


def test_real_network():
    stations = station_network()
    assert 900 <= len(stations) <= 1000
    assert stations["station"].is_unique
    assert stations["elevation"].between(-450, 5200).all()
    assert stations["longitude"].between(0, 360, inclusive="left").all()
    # The network is a northern, continental one.
    assert (stations["latitude"] > 0).mean() > 0.7
    known = shipped_stations().set_index("station")
    assert known.loc["AUM00011035", "elevation"] == pytest.approx(200.0)
    assert known.loc["USM00072451", ["latitude", "longitude"]].tolist() == pytest.approx(
        [37.7614, 360 - 99.9689], abs=0.05
    )


def test_real_network_filters():
    some = station_network(count=100, generator=np.random.default_rng(0))
    assert len(some) == some["station"].nunique() == 100
    europe, _, _ = LatLonGrid.from_coordinates(np.arange(70.0, 34, -1), np.arange(-10.0, 31))
    inside = station_network(grid=europe)
    assert 50 < len(inside) < 200
    assert inside["latitude"].between(34.5, 70.5).all()
    assert len(station_network(minimum_soundings=20000)) < len(station_network())
    with pytest.raises(ValueError, match="no station active since 2100"):
        station_network(active_since=2100)
    with pytest.raises(ValueError, match="generator"):
        station_network(count=5)
    with pytest.raises(ValueError, match="count: found 5000"):
        station_network(count=5000, generator=np.random.default_rng(0))


@pytest.mark.parametrize("channels", [EMBEDDED_CHANNELS, ERA5_CHANNELS])
def test_columns_hold_every_channel_at_every_location(channels):
    places = station_network(count=7, generator=np.random.default_rng(0))
    table = columns_table(places, channels, np.datetime64("2003-02-01T12"))
    validate(table, complete=False)
    assert len(table) == 7 * len(channels)
    names = [f"{v}{p / 100:.0f}" if p == p else v for v, p in zip(table["variable"], table["pressure"], strict=True)]
    assert names == list(channels) * 7
    assert table["station"].tolist() == np.repeat(places["station"].tolist(), len(channels)).tolist()
    assert table["observation"].isna().all()
    assert (table["time"] == pd.Timestamp("2003-02-01T12")).all()
    with pytest.raises(ValueError, match="expected at least one of each"):
        columns_table(places.iloc[:0], channels, "2003-02-01")
    with pytest.raises(ValueError, match="time"):
        columns_table(places, channels, "NaT")


def test_distance_is_to_the_nearest_site():
    poles = pd.DataFrame({"latitude": [90.0, -90.0], "longitude": [0.0, 123.0]})
    colatitude = np.radians(90 - np.abs(GRID.latitude))
    expected = np.broadcast_to(EARTH_RADIUS * colatitude[:, None], GRID.shape)
    np.testing.assert_allclose(distance_to_sites(GRID, poles), expected, rtol=1e-9)
    equator = pd.DataFrame({"latitude": [0.0], "longitude": [-90.0]})
    there = distance_to_sites(LatLonGrid((1.0, 0.0), (260.0, 270.0)), equator)
    np.testing.assert_allclose(there[1], [np.radians(10) * EARTH_RADIUS, 0.0], atol=1.0)


def test_withholding_splits_stations_not_rows():
    table = columns_table(station_network(), ("z500", "t850", "t2m"), "2003-02-01")
    kept, held = withhold(table, 0.1, np.random.default_rng(5))
    assert set(kept["station"]).isdisjoint(held["station"])
    assert held["station"].nunique() == round(0.1 * table["station"].nunique())
    pd.testing.assert_frame_equal(pd.concat([kept, held]).sort_index(), table)
    shuffled = table.sample(frac=1, random_state=0)
    assert set(withhold(shuffled, 0.1, np.random.default_rng(5))[1]["station"]) == set(held["station"])
    few = table[table["station"].isin(table["station"].unique()[:2])]
    assert withhold(few, 0.01, np.random.default_rng(0))[1]["station"].nunique() == 1
    with pytest.raises(ValueError, match="fraction"):
        withhold(table, 1.0, np.random.default_rng(0))
    with pytest.raises(ValueError, match="at least 2"):
        withhold(few.iloc[:1], 0.5, np.random.default_rng(0))

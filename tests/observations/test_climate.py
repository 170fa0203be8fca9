"""The climate mapping against a difference that was planted."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from genda.observations.climate import ClimateMapping


def _table(count=3000, seed=0):
    rng = np.random.default_rng(seed)
    latitude = np.degrees(np.arcsin(rng.uniform(-1, 1, count)))
    return pd.DataFrame(
        {
            "variable": rng.choice(["t", "u"], count),
            "pressure": rng.choice([85000.0, 50000.0], count),
            "latitude": latitude,
            "observation": 0.0,
        }
    )


def test_a_planted_difference_of_low_order_is_found():
    table = _table()
    sine = np.sin(np.radians(table["latitude"]))
    planted = np.where(table["variable"] == "t", 3 + 5 * sine**2, -2 * sine)
    noise = np.random.default_rng(1).normal(size=len(table))
    mapping = ClimateMapping.fit(table.assign(observation=250 + planted + 0.5 * noise), np.full(len(table), 250.0))
    np.testing.assert_allclose(mapping.at(table), planted, atol=0.45)


def test_a_gap_in_the_network_is_not_extrapolated():
    north = _table(4000)
    north = north[north["latitude"] > 20].reset_index(drop=True)
    noise = np.random.default_rng(2).normal(size=len(north))
    mapping = ClimateMapping.fit(north.assign(observation=2 + noise), np.zeros(len(north)))
    south = north.assign(latitude=-north["latitude"])
    assert np.abs(mapping.at(south)).max() < 8


def test_fields_and_observations_are_moved_alike():
    table = _table()
    mapping = ClimateMapping.fit(
        table.assign(observation=3 * np.sin(np.radians(table["latitude"]))), np.zeros(len(table))
    )
    latitude = [60.0, 0.0, -45.0]
    shift = mapping.on_channels(["t850", "z500", "t2m"], latitude)
    at_points = mapping.at(pd.DataFrame({"variable": "t", "pressure": 85000.0, "latitude": latitude}))
    np.testing.assert_allclose(shift[0], at_points)
    assert (shift[1:] == 0).all()


def test_unknown_levels_are_left_alone_and_an_empty_table_is_refused():
    table = _table()
    mapping = ClimateMapping.fit(table.assign(observation=1.0), np.zeros(len(table)))
    assert (mapping.at(table.assign(pressure=20000.0)) == 0).all()
    with pytest.raises(ValueError, match="empty"):
        ClimateMapping.fit(table.iloc[:0], np.zeros(0))


def test_a_planted_amplitude_is_taken_out_and_put_back():
    table = _table().assign(obs_error=1.5)
    rng = np.random.default_rng(3)
    mean = 250 + 10 * np.cos(np.radians(table["latitude"].to_numpy()))
    model_anomaly = rng.normal(size=len(table))
    earth = table.assign(observation=mean + 4 + 1.5 * model_anomaly)
    mapping = ClimateMapping.fit(earth, mean, amplitude=1.5)
    mapped = mapping.to_model(earth, mean)
    np.testing.assert_allclose(mapped["observation"], mean + model_anomaly, atol=0.5)
    np.testing.assert_allclose(mapped["obs_error"], 1.0)
    np.testing.assert_allclose(mapping.to_earth(earth, mapped["observation"].to_numpy(), mean), earth["observation"])
    with pytest.raises(ValueError, match="amplitude: found 0"):
        ClimateMapping({}, 0.0)

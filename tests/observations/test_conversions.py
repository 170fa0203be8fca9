"""Errors of reported quantities against the spread of many perturbed reports put through the conversions themselves."""

from __future__ import annotations

import numpy as np
import pytest

from genda.observations.conversions import saturation_slope, saturation_vapour_pressure, standard_pressure
from genda.observations.places import Places, observation_table

DRAWS = 40_000
CASES = {
    "dewpoint": ({"temperature": 285.0, "dewpoint": 280.0}, {"temperature": 0.3, "dewpoint": 0.5, "pressure": 200.0}),
    "depression": (
        {"temperature": 260.0, "dewpoint_depression": 4.0},
        {"temperature": 0.4, "dewpoint_depression": 0.6, "pressure": 100.0},
    ),
    "relative humidity": (
        {"temperature": 290.0, "relative_humidity": 0.6},
        {"temperature": 0.3, "relative_humidity": 0.02, "pressure": 300.0},
    ),
    "specific humidity": ({"specific_humidity": 5e-3}, {"specific_humidity": 2e-4}),
    "mixing ratio": ({"mixing_ratio": 0.01}, {"mixing_ratio": 5e-4}),
    "wind": ({"wind_direction": 240.0, "wind_speed": 25.0}, {"wind_direction": 3.0, "wind_speed": 1.0}),
    "components": ({"u": 5.0, "v": -3.0}, {"u": 1.0, "v": 2.0}),
    "height": ({"geopotential": 5e4, "temperature": 250.0}, {"geopotential": 80.0, "temperature": 0.5}),
}


def table(reported: dict[str, np.ndarray], pressure: np.ndarray, errors: dict[str, np.ndarray] | None = None):
    zeros = np.zeros(pressure.size)
    time = np.full(pressure.size, np.datetime64("2020-01-01", "ns"))
    places = Places(["a"], zeros.astype(np.intp), time, zeros, zeros, zeros, pressure)
    return observation_table(places, reported, "x", errors)


@pytest.mark.parametrize("name", CASES)
def test_first_order_errors_match_perturbed_reports(name):
    reported, errors = CASES[name]
    draw = np.random.default_rng(0).standard_normal
    one = {key: np.array([value]) for key, value in reported.items()}
    assigned = table(one, np.array([85000.0]), {key: np.array([sigma]) for key, sigma in errors.items()})
    noisy = {key: value + errors.get(key, 0.0) * draw(DRAWS) for key, value in reported.items()}
    many = table(noisy, 85000.0 + errors.get("pressure", 0.0) * draw(DRAWS))
    spread = many.groupby("variable")["observation"].std()
    expected = assigned.set_index("variable")["obs_error"]
    assert sorted(expected.index) == sorted(spread.index)
    for variable in expected.index:
        assert expected[variable] == pytest.approx(spread[variable], rel=0.02)


@pytest.mark.parametrize("direction", [0.0, 90.0, 225.0, 270.0, 300.0])
def test_an_error_of_speed_alone_is_one_of_both_components(direction):
    """What nobody knows across the wind is not 0, which an analysis would take for certainty."""
    wind = {"wind_direction": np.array([direction]), "wind_speed": np.array([10.0])}
    for turn in ({}, {"wind_direction": np.array([0.0])}, {"wind_direction": np.array([np.nan])}):
        found = table(wind, np.array([5e4]), turn | {"wind_speed": np.array([1.5])})
        np.testing.assert_allclose(found["obs_error"], 1.5)
    for speed in ({}, {"wind_speed": np.array([0.0])}):
        found = table(wind, np.array([5e4]), speed | {"wind_direction": np.array([5.0])})
        assert found["obs_error"].isna().all()  # the default will do


def test_a_wind_weaker_than_its_error_has_no_direction():
    """Speeds from 0 up: errors never fall below the smaller of the speed's and what the direction makes of that speed."""
    speed = np.array([0.0, 1e-6, 0.4, 0.5, 0.6])
    wind = {"wind_direction": np.full(5, 360.0), "wind_speed": speed}
    found = table(wind, np.full(5, 5e4), {"wind_direction": np.full(5, 5.0), "wind_speed": np.full(5, 0.5)})
    u, v = (found.loc[found["variable"] == name, "obs_error"].to_numpy() for name in "uv")
    np.testing.assert_allclose(v, 0.5)
    np.testing.assert_allclose(u, [0.5, 0.5, 0.5, 0.5, 0.6 * np.radians(5.0)])


def test_slope_of_saturation_is_its_derivative():
    t = np.linspace(200.0, 310.0, 23)
    step = 1e-3
    centred = (saturation_vapour_pressure(t + step) - saturation_vapour_pressure(t - step)) / (2 * step)
    np.testing.assert_allclose(saturation_slope(t), centred, rtol=1e-7)


def test_pressure_altitudes_of_the_standard_atmosphere():
    """ICAO Doc 7488: heights of standard pressures, and what lies outside."""
    heights = np.array([0.0, 1457.3, 5574.4, 11784.1, 16179.8])
    np.testing.assert_allclose(standard_pressure(heights), [101325, 85000, 50000, 20000, 10000], rtol=2e-4)
    assert np.isnan(standard_pressure(np.array([-6000.0, 25000.0, np.nan]))).all()


def test_what_a_source_denies_is_kept_and_flagged():
    reported = {"temperature": np.array([280.0, 281.0]), "dewpoint_depression": np.array([2.0, 2.0])}
    zeros = np.zeros(2)
    places = Places(["a"], zeros.astype(np.intp), np.full(2, np.datetime64("2020-01-01", "ns")), zeros, zeros, zeros,
                    np.full(2, 85000.0))  # fmt: skip
    denied = {"temperature": np.array([False, True])}
    found = observation_table(places, reported, "x", denied=denied)
    assert found["quality"].tolist() == [0, 0, 14, 14]  # humidity needs the temperature
    assert found["observation"].notna().all()

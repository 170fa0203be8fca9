"""What an observation is compared with before it is used: backgrounds, their errors by level, and the model's own climatology."""

from __future__ import annotations

import tracemalloc
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

import small_model
from genda.commands.observations import nearest_background
from genda.demo import simulate_columns
from genda.observable import with_background
from genda.observations import Flag, assign_errors, check_bounds, check_duplicates, check_missing
from genda.observations.checks import check_departures, make_checks
from genda.state import State
from genda.usable import as_reported, usable_observations

TIME = np.datetime64("2001-01-01", "ns")


@pytest.fixture(scope="module")
def model():
    return small_model.build()


@pytest.fixture(scope="module")
def columns(model):
    table = simulate_columns(model, small_model.states(1, seed=9), seed=0)
    return table[table["variable"] != "z"].reset_index(drop=True)  # random heights are not within all bounds


def _members(*offsets):
    """Members that differ by a constant, which grows from channel to channel."""
    base = small_model.states(1, seed=1)
    step = torch.arange(1.0, 1 + len(small_model.CHANNELS)).view(-1, 1, 1)
    values = torch.stack([base.values[0] + offset * step for offset in offsets]).unsqueeze(0)
    return State(values, base.channels, base.grid, base.times)


def test_the_error_of_a_background_is_its_members_spread_level_by_level(columns):
    filled = with_background(columns, _members(-1.0, 0.0, 4.0), TIME, 3.0)
    alone = with_background(columns, _members(1.0), TIME, 3.0)
    np.testing.assert_allclose(filled["hx_b"], alone["hx_b"], rtol=1e-6, atol=1e-5)
    levels = pd.Series(dict(zip(small_model.CHANNELS, range(1, 8), strict=True)))
    hpa = (columns["pressure"] / 100).map("{:.0f}".format).where(columns["pressure"].notna(), "")
    names = columns["variable"] + hpa
    expected = np.std([-1.0, 0.0, 4.0], ddof=1) * names.map(levels)
    apart = columns["latitude"].abs() < 65  # across a pole winds turn
    np.testing.assert_allclose(filled["hx_b_error"][apart], expected[apart], rtol=1e-3)
    assert alone["hx_b_error"].isna().all()


def test_what_cannot_be_seen_or_is_flagged_is_left_empty(columns):
    table = columns.head(6).copy()
    table["quality"] = np.array([0, 1, 12, 0, 0, 0], dtype=np.int16)
    table.loc[3, "time"] += pd.Timedelta(days=1)
    table.loc[4, "variable"] = "msl"
    filled = with_background(table, _members(0.0), TIME, 3.0)
    assert filled["hx_b"].notna().tolist() == [True, True, False, False, False, True]


def test_departures_are_judged_by_the_error_at_their_level(columns):
    """The same 2.5 K are too much where members agree and nothing where they don't: thresholds on both sides of each level."""
    background = _members(-1.0, 1.0)
    exact = with_background(columns, background, TIME, 3.0)
    table = assign_errors(columns.assign(observation=exact["hx_b"], obs_error=0.5))
    limit = 4 * np.hypot(exact["hx_b_error"], 0.5)
    checks = [partial(check_departures, factor=4.0)]
    for share, flag in ((0.99, Flag.PASS), (1.01, Flag.BACKGROUND)):
        moved = table.assign(observation=exact["hx_b"] + share * limit)
        judged = check_departures(with_background(moved, background, TIME, 3.0))
        assert (judged["quality"] == flag).all()
        used, _ = usable_observations(
            small_model.build(), moved, TIME, 3.0, checks=checks, background=background, gross_factor=1e9
        )
        assert (used["quality"] == flag).all()
    by_variable = partial(check_departures, background_error={"t": 1e3, "u": 1e3, "v": 1e3, "t2m": 1e3})
    assert (by_variable(with_background(moved, background, TIME, 3.0))["quality"] == Flag.PASS).all()


@pytest.mark.parametrize("amplitude", [1.0, 1.5])
def test_without_a_background_departures_are_from_the_climatology_of_the_observations(model, columns, amplitude):
    """Of another climate, 20 K warmer and with larger anomalies; a row 4.5 standard deviations of that climate off is found."""
    plain, _ = usable_observations(model, columns, TIME, 3.0, checks=[check_departures])
    climate = plain["hx_b"].to_numpy()
    warm = (
        climate + 0.7 * amplitude * (columns["observation"].to_numpy() - climate) + 20.0 * (columns["variable"] == "t")
    )
    std = plain["hx_b_error"].to_numpy()
    row = int(np.flatnonzero(columns["variable"] == "t")[5])
    warm[row] = climate[row] + 20.0 + 4.6 * amplitude * std[row]
    table = columns.assign(observation=warm, obs_error=0.1)
    checks = [check_missing, check_duplicates, check_departures]
    found, mapping = usable_observations(model, table, TIME, 3.0, map_climate=True, amplitude=amplitude, checks=checks)
    assert mapping is not None
    assert np.flatnonzero(found["quality"] == Flag.BACKGROUND).tolist() == [row]
    np.testing.assert_allclose(found["hx_b_error"], amplitude * std)
    t = columns["variable"] == "t"
    assert (found["hx_b"] - climate)[t].mean() == pytest.approx(20.0, abs=1.0)
    without, _ = usable_observations(model, table, TIME, 3.0, map_climate=True, amplitude=amplitude, checks=checks[:2])
    assert (without["quality"] == Flag.PASS).all()
    assert "hx_b" not in without
    listed = make_checks(["missing", "duplicates", {"departures": {"factor": 4.0}}]).values()
    again, _ = usable_observations(model, table, TIME, 3.0, map_climate=True, amplitude=amplitude, checks=listed)
    pd.testing.assert_frame_equal(again, found)


def test_a_table_keeps_its_own_background_and_one_of_the_model_goes_with_no_mapping(model, columns):
    own = columns.assign(hx_b=columns["observation"] + 100.0)
    found, _ = usable_observations(model, own, TIME, 3.0, checks=[check_bounds, check_departures])
    assert (found["quality"] == Flag.BACKGROUND).all()
    with pytest.raises(ValueError, match="background: found one with a mapping"):
        usable_observations(model, columns, TIME, 3.0, map_climate=True, background=_members(0.0))


def test_errors_grow_by_what_the_grid_cannot_follow(model, columns):
    """A quarter of the climatological std in variance whatever the climate; by spacing the two-thirds law of 16 rows."""
    table = columns.assign(obs_error=0.5)
    std = with_background(table, small_model.states(1), TIME, 3.0, model.normalisation.std.view(-1, 1, 1))["hx_b_error"]
    plain, _ = usable_observations(model, table, TIME, 3.0, representativeness=0.25)
    np.testing.assert_allclose(plain["obs_error"], np.hypot(0.5, 0.25 * std))
    mapped, mapping = usable_observations(
        model, table, TIME, 3.0, map_climate=True, amplitude=1.6, representativeness=0.25
    )
    assert mapping is not None
    np.testing.assert_allclose(mapped["obs_error"], np.hypot(0.5 / 1.6, 0.25 * std))
    np.testing.assert_allclose(as_reported(mapped)["obs_error"], np.hypot(0.5, 1.6 * 0.25 * std))
    grown, _ = usable_observations(model, table, TIME, 3.0, representativeness="spacing")
    rows_km = np.pi * 6371.2 / 16.4  # Gaussian rows are π / (n + 0.5) apart but at the poles, to a few thousandths
    assert grown["obs_error"].iloc[0] == pytest.approx(0.5 * np.sqrt(0.5 + 0.5 * (rows_km / 100) ** (2 / 3)), rel=0.01)
    with pytest.raises(ValueError, match=r"representativeness: found -0\.1"):
        usable_observations(model, table, TIME, 3.0, representativeness=-0.1)


def test_a_background_of_many_times_is_compared_at_the_nearest_in_little_memory(columns):
    """Each time's state differs by a constant, which tells the time that a row was compared with."""
    base = small_model.states(1).select(["t500"])
    count = 1460
    times = base.times[0] + np.arange(count) * np.timedelta64(6, "h")
    offset = torch.arange(float(count)).view(-1, 1, 1, 1)
    shuffled = np.random.default_rng(0).permutation(count)
    states = State((base.values + offset)[shuffled], base.channels, base.grid, times[shuffled])
    some = columns[(columns["variable"] == "t") & (columns["pressure"] == 5e4)].head(50)
    table = pd.concat([some] * 400, ignore_index=True)
    hours = np.random.default_rng(1).choice([0.0, 2.9, 3.1, 599.0, 8754.0 - 2.0], len(table))
    table["time"] = pd.Timestamp(times[0]) + pd.to_timedelta(hours, unit="h")
    tracemalloc.start()
    filled = nearest_background(table, states)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    at_first = with_background(table.assign(time=times[0]), base, times[0], 3.0)["hx_b"]
    np.testing.assert_allclose(filled["hx_b"] - at_first, np.round(hours / 6), atol=1e-3)
    assert peak < 60e6  # rows × times would be 230 MB

"""Observations of another climate than the prior's are told, a few stations of unusual weather are not."""

from __future__ import annotations

import numpy as np
import pytest

import genda
from genda.assets import DEMO_OBSERVATIONS
from genda.demo import simulate_columns
from genda.foreign_climate import foreign_climate
from genda.observations.table import read_table
from genda.sample import read_sample
from genda.state import State
from shared_data import shared

TIME = np.datetime64("2008-12-08T12", "ns")


@pytest.fixture(scope="module")
def model():
    return genda.load("embedded")


def test_the_priors_own_world_is_not_foreign_on_any_sample_date(model):
    truth = read_sample(channels=model.channels).truth
    for i, time in enumerate(truth.times):
        state = State(truth.values[i : i + 1], truth.channels, truth.grid, truth.times[i : i + 1])
        table = simulate_columns(model, state, seed=i, stations=300)
        assert foreign_climate(model, table, time) is None
        europe = table["latitude"].between(35, 60) & ((table["longitude"] < 30) | (table["longitude"] > 350))
        assert foreign_climate(model, table[europe], time) is None
    demo = read_table(DEMO_OBSERVATIONS)
    assert foreign_climate(model, demo, np.datetime64(demo["time"].iloc[0], "ns")) is None


def test_a_planted_shift_is_found_with_its_size_where_boxes_are_many(model):
    """One standard deviation at 500 hPa, less 2 % for the errors of the observations and the mean of the day."""
    truth = read_sample(channels=model.channels).truth
    state = State(truth.values[:1], truth.channels, truth.grid, truth.times[:1])
    table = simulate_columns(model, state, seed=0, stations=300)
    shifted = (table["variable"] == "t") & (table["pressure"] == 5e4)
    warm = table.assign(observation=table["observation"] + 10 * table["obs_error"] * shifted)
    said = foreign_climate(model, warm, truth.times[0])
    assert said is not None
    assert "t500 +" in said
    assert float(said.split("t500 ")[1].split()[0]) == pytest.approx(1.0, abs=0.2)
    assert foreign_climate(model, warm[warm["station"] == warm["station"].iloc[0]], truth.times[0]) is None


def test_real_ascents_are_foreign_until_they_are_mapped(model):
    table = genda.read_observations(shared("temp.bufr"))
    plain, _ = genda.usable_observations(model, table, TIME, 3.0)
    assert "t300 -2.1, t200" in str(foreign_climate(model, plain, TIME))
    mapped, _ = genda.usable_observations(model, table, TIME, 3.0, map_climate=True)
    assert foreign_climate(model, mapped, TIME) is None

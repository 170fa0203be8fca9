"""The twin experiment with ERA5 as truth: which columns are simulated, and that they help where they are."""

from __future__ import annotations

import numpy as np
import torch
from benchmarks.era5_twin import AMPLITUDE, CHANNELS, CLIMATE, analyses, columns, era5, regions, score

import genda
from genda.grid import LatLonGrid
from genda.observations.errors import default_error
from genda.observations.networks import station_network
from genda.state import State
from genda.variables import STANDARD_GRAVITY
from genda.verify import RMSE
from shared_data import shared


def test_columns_end_at_the_ground_and_have_the_errors_they_claim():
    levels = torch.tensor([5500 * STANDARD_GRAVITY, 1505 * STANDARD_GRAVITY, 255.0, 280.0])
    truth = State(
        levels.view(1, -1, 1, 1).expand(1, 4, 48, 96),
        CHANNELS,
        LatLonGrid.gaussian(48, 96),
        np.array(["2017-01-01"], dtype="datetime64[ns]"),
    )
    table = columns(truth, seed=0)
    sites = station_network()
    high = set(sites.loc[sites["elevation"] > 1505, "station"])
    assert len(high) > 20
    low = table[table["pressure"] == 85000.0]
    assert set(low["station"]) == set(sites["station"]) - high
    assert set(table["station"]) == set(sites["station"])
    t850 = low[low["variable"] == "t"]["observation"]
    assert abs(t850.mean() - 280) < 0.2
    assert abs(t850.std() / default_error("t", 85000.0) - 1) < 0.1


def test_columns_of_era5_are_worth_having_near_the_sites():
    model = genda.load("embedded")
    truths = era5(shared("era5-levels-members.grib"), model.grid, member=0)
    truth = State(truths.values[:1], CHANNELS, model.grid, truths.times[:1])
    with torch.no_grad():
        made = analyses(model, truth, AMPLITUDE, {"optimal interpolation": "optimal-interpolation"})
    near = regions(model.grid)["Within 500 km of a site"]
    table = score([made], truth, near)
    assert table.reference == CLIMATE
    ratio = table.ratio("optimal interpolation", RMSE).mean
    assert (ratio < [0.25, 0.25, 0.4, 0.5]).all(), dict(zip(CHANNELS, ratio, strict=True))

"""The table of variables against what ERA5 is: names, units and bounds."""

import numpy as np
import pandas as pd
import pytest

from genda.observations.flags import Flag
from genda.observations.quality import check_bounds
from genda.observations.table import DTYPES
from genda.variables import ERA5_CHANNELS, channels
from shared_data import shared

KINDS = ("normalize_mean", "normalize_std", "normalize_diff_std_6", "normalize_diff_std_24")


@pytest.fixture(scope="module")
def era5():
    """Mean, standard deviation and that of changes over 6 and 24 h by the names of WeatherBench 2, (channel,) each."""
    found = {}
    for kind in KINDS:
        with np.load(shared(f"era5-normalization/{kind}.npz")) as file:
            assert len(file.files) == 109
            names = [c.field.name if c.level_hpa is None else f"{c.field.name}_{c.level_hpa}" for c in PARSED]
            found[kind] = np.array([file[name].item() for name in names])
    return found


PARSED = channels(ERA5_CHANNELS)


def test_the_bounds_of_every_channel_hold_what_era5_has_there(era5):
    assert len(PARSED) == 69
    mean, std = era5["normalize_mean"], era5["normalize_std"]
    values = np.stack([mean, mean - std, mean + std])  # further out nothing is: these are not normal
    table = pd.DataFrame(
        {
            "time": np.datetime64("2015-01-01", "ns"), "latitude": 50.0, "longitude": 10.0, "obs_error": 1.0,
            "elevation": 0.0, "station": "a", "source": "era5", "quality": 0, "observation": values.ravel(),
            "pressure": [np.nan if c.pressure is None else c.pressure for c in PARSED] * 3,
            "variable": [c.field.id for c in PARSED] * 3,
        }
    )[list(DTYPES)].astype(DTYPES)  # fmt: skip
    humidity_below_zero = (table["variable"] == "q") & (table["observation"] < 0)
    assert ((check_bounds(table)["quality"] == Flag.PASS) | humidity_below_zero).all()


def test_a_day_changes_what_six_hours_change_and_less_than_all_there_is(era5):
    assert (era5["normalize_diff_std_6"] < era5["normalize_diff_std_24"] * 1.5).all()
    assert (era5["normalize_diff_std_24"] < era5["normalize_std"] * 2**0.5).all()

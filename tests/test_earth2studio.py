"""The adapter against the shape of Earth2Studio's protocol, written down here, and against the analysis of the library itself."""

from __future__ import annotations

import inspect
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import genda
import small_latent
import small_model
from genda.earth2studio import _table
from genda.observations.table import DTYPES


@runtime_checkable
class AssimilationModel(Protocol):
    """Methods and arguments as in Earth2Studio's documentation of data assimilation models."""

    def __call__(self, *args: Any) -> tuple[Any, ...]: ...
    def create_generator(self) -> Any: ...
    def init_coords(self) -> tuple[Any, ...] | None: ...
    def input_coords(self) -> tuple[Any, ...]: ...
    def output_coords(self, input_coords: tuple[Any, ...], *args: Any, **kwargs: Any) -> tuple[Any, ...]: ...
    def to(self, device: Any) -> Any: ...


TIME = np.datetime64("2001-01-03T12", "ns")


@pytest.fixture(scope="module")
def model():
    return small_model.build()


@pytest.fixture(scope="module")
def adapter(model):
    return genda.Earth2StudioModel(model, members=2)


def observations(request_time=TIME):
    table = pd.DataFrame(
        {
            "time": TIME,
            "lat": np.float32([50.0, -20.0, 10.0, 40.0]),
            "lon": np.float32([-10.0, 100.0, 200.0, 359.0]),
            "pres": np.float32([85000.0, np.nan, np.nan, 50000.0]),
            "observation": np.float32([266.0, 285.0, 9.0, 9.0]),
            "variable": ["t", "t2m", "u500", "nonsense"],
        }
    )
    table.attrs["request_time"] = np.atleast_1d(request_time)
    return table


def test_it_has_the_protocols_methods_and_coordinates(adapter):
    assert isinstance(adapter, AssimilationModel)
    for name in ("create_generator", "init_coords", "input_coords", "to"):
        assert [*inspect.signature(getattr(AssimilationModel, name)).parameters][1:] == [
            *inspect.signature(getattr(adapter, name)).parameters
        ]
    assert adapter.init_coords() is None
    (table,) = adapter.input_coords()
    assert {"time", "lat", "lon", "observation", "variable"} <= set(table)
    assert {"t", "t850", "t2m"} <= set(table["variable"])
    (out,) = adapter.output_coords((table,), request_time=np.array([TIME]), request_lead_time=None)
    assert list(out) == ["ensemble", "time", "variable", "lat", "lon"]
    assert adapter.to("cpu") is adapter


def test_the_generator_gives_the_librarys_analysis(model, adapter, caplog):
    generator = adapter.create_generator()
    assert generator.send(None) is None
    (analysis,) = generator.send(observations())
    assert "1 of 4 left out, of variables that no model knows: nonsense" in caplog.text
    expected_table = pd.DataFrame(
        {
            "time": TIME,
            "latitude": [50.0, -20.0, 10.0],
            "longitude": [350.0, 100.0, 200.0],
            "pressure": [85000.0, np.nan, 50000.0],
            "elevation": np.nan,
            "variable": ["t", "t2m", "u"],
            "observation": [266.0, 285.0, 9.0],
            "obs_error": np.nan,
            "station": "",
            "source": "",
            "quality": 0,
        }
    ).astype(DTYPES)
    used, _ = genda.usable_observations(model, expected_table, TIME, 3.0)
    assert (used["quality"] == 0).all()
    source = genda.point_source(model, used, TIME)
    expected = genda.assimilate(model, [source], TIME, members=2, seed=0, device="cpu")
    np.testing.assert_allclose(analysis.sel(time=TIME), expected.members.values[0], rtol=1e-5)
    assert analysis.sizes["ensemble"] == 2
    generator.close()


def test_observations_without_identifiers_are_all_used(model, adapter):
    """Earth2Studio's required columns name no station: 40 places at one time are 40 stations, each with two fields."""
    rng = np.random.default_rng(0)
    places = {"lat": rng.uniform(-60, 60, 40), "lon": rng.uniform(-180, 180, 40)}
    aloft = pd.DataFrame(places | {"variable": "t", "pres": rng.uniform(51000.0, 84000.0, 40), "observation": 265.0})
    ground = pd.DataFrame(places | {"variable": "t2m", "pres": np.nan, "observation": 285.0})
    table = pd.concat([aloft, ground], ignore_index=True).assign(time=TIME)
    for given in (table, table.assign(station=None), table.assign(station=" ")):
        used, _ = genda.usable_observations(model, _table(given), TIME, 3.0, gross_factor=1e9)
        assert (used["quality"] == 0).all()
        assert used["station"].nunique() == 40


def test_requested_times_and_lead_times_are_analysed_and_no_observations_sample_the_prior(adapter):
    table = observations([TIME, TIME + np.timedelta64(12, "h")])
    table.attrs["request_lead_time"] = np.array([np.timedelta64(6, "h")])
    (analysis,) = adapter(table.iloc[:0])
    np.testing.assert_array_equal(
        analysis["time"], np.array([TIME, TIME + 12 * np.timedelta64(1, "h")]) + np.timedelta64(6, "h")
    )


def test_a_method_that_samples_nothing_gives_one_analysis(model):
    adapter = genda.Earth2StudioModel(model, members=2, method="optimal-interpolation")
    (announced,) = adapter.output_coords(adapter.input_coords())
    (analysis,) = adapter(observations())
    assert analysis.sizes["ensemble"] == len(announced["ensemble"]) == 1


def test_faulty_values_and_places_are_counted_aloud_and_other_times_are_not(adapter, caplog):
    table = observations().iloc[[0, 1, 2, 0, 1, 2]].reset_index(drop=True)
    table.attrs["request_time"] = TIME
    table.loc[3:, "lon"] = [30.0, 40.0, 50.0]
    table.loc[3, "lat"], table.loc[4, "observation"], table.loc[5, "observation"] = 95.0, 2.0, np.nan
    adapter(table)
    assert "2001-01-03T12:00: 3 of 6 observations used (missing 1, bounds 2)" in caplog.text
    caplog.clear()
    adapter(table.iloc[:3].assign(time=[TIME, TIME, TIME + np.timedelta64(2, "D")]))
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_a_prior_of_errors_takes_the_background_first(tmp_path):
    truth = small_model.states(1)
    model = genda.load(small_latent.saved(tmp_path))
    adapter = genda.Earth2StudioModel(model, members=2)
    forecast = small_latent.background(truth)
    coordinates, _ = adapter.input_coords()
    assert list(coordinates) == ["time", "variable", "lat", "lon"]
    background = xr.DataArray(
        forecast.values.numpy(),
        dims=["time", "variable", "lat", "lon"],
        coords={**coordinates, "time": forecast.times},
    )
    generator = adapter.create_generator()
    generator.send(None)
    (analysis,) = generator.send((background, None))
    expected = genda.assimilate(model, [], forecast.times[0], members=2, background=forecast.select(model.channels))
    np.testing.assert_allclose(analysis[:, 0], expected.members.values[0], rtol=1e-5)
    lead = np.timedelta64(24, "h")
    (led,) = adapter(background.assign_coords(time=forecast.times - lead).expand_dims(lead_time=[lead], axis=1), None)
    np.testing.assert_array_equal(led["time"], forecast.times)
    np.testing.assert_array_equal(led, analysis)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="lat"), "found no column lat"),
        (lambda t: t.to_numpy(), "found ndarray, expected a DataFrame"),
        (lambda t: None, "found None, expected a table, if empty, with .* 'request_time'"),
    ],
)
def test_bad_requests_are_named(adapter, change, message):
    with pytest.raises(ValueError, match=message):
        adapter(change(observations()))
    with pytest.raises(ValueError, match="arguments: found 2"):
        adapter(None, observations())

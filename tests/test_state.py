"""States between files and tensors, and the seasonal normalisation, against what was put in."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from genda.grid import LatLonGrid
from genda.state import Normalisation, State, from_dataset, read_state, season, to_dataset, write_dataset

GRID = LatLonGrid.gaussian(8, 16)
CHANNELS = ("z500", "t850", "t500", "msl")


def _state(count=4, seed=0):
    rng = np.random.default_rng(seed)
    means = np.array([5.4e4, 280.0, 255.0, 1.01e5])[:, None, None]
    values = means + np.array([500.0, 3.0, 3.0, 600.0])[:, None, None] * rng.normal(size=(count, 4, *GRID.shape))
    times = np.datetime64("2001-03-01", "ns") + np.arange(count) * np.timedelta64(12, "h")
    return State(torch.as_tensor(values, dtype=torch.float32), CHANNELS, GRID, times)


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_a_file_gives_back_the_state_it_was_written_from(tmp_path, suffix):
    state = _state()
    path = tmp_path / f"state{suffix}"
    if suffix == ".nc":
        write_dataset(to_dataset(state), path)
    else:
        to_dataset(state).to_zarr(path, zarr_format=3, consolidated=False)
    found = read_state(path)
    assert found.grid == state.grid
    torch.testing.assert_close(found.select(CHANNELS).values, state.values, rtol=0, atol=0)


def test_latitude_order_longitude_range_and_level_order_do_not_matter():
    state = _state()
    dataset = to_dataset(state)
    shifted = dataset.assign_coords(longitude=(dataset.longitude + 180) % 360 - 180).sortby("longitude")
    turned = shifted.isel(latitude=slice(None, None, -1)).isel(level=slice(None, None, -1))
    torch.testing.assert_close(from_dataset(turned, CHANNELS).values, state.values, rtol=0, atol=0)


def test_geopotential_height_in_metres_is_converted():
    dataset = to_dataset(_state())
    height = (dataset["geopotential"] / 9.80665).assign_attrs(units="m")
    converted = from_dataset(dataset.drop_vars("geopotential").assign(geopotential=height), ["z500"])
    np.testing.assert_allclose(converted.values[:, 0], dataset["geopotential"].sel(level=500), rtol=1e-6)


@pytest.mark.parametrize(("units", "factor"), [("gpm", 9.80665), (None, 9.80665), ("m**2 s**-2", 1.0)])
def test_a_variable_named_for_height_is_taken_at_its_units(units, factor):
    dataset = to_dataset(_state())
    height = dataset["geopotential"] / factor
    height.attrs = {} if units is None else {"units": units}
    converted = from_dataset(dataset.drop_vars("geopotential").assign(gh=height), ["z500"])
    np.testing.assert_allclose(converted.values[:, 0], dataset["geopotential"].sel(level=500), rtol=1e-6)


def test_a_damaged_chunk_is_one_clear_error(tmp_path):
    path = tmp_path / "damaged.zarr"
    to_dataset(_state()).to_zarr(path)
    for chunk in (path / "temperature" / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(chunk.read_bytes()[:20])
    with pytest.raises(ValueError, match=r"damaged\.zarr: temperature: found values that cannot be read"):
        read_state(path)


def test_ensembles_keep_their_members():
    state = _state()
    members = State(torch.stack([state.values, state.values + 1], dim=1), CHANNELS, GRID, state.times)
    torch.testing.assert_close(from_dataset(to_dataset(members), CHANNELS).values, members.values)


def test_a_value_that_is_not_finite_never_reaches_a_file(tmp_path):
    state = _state()
    state.values[1, 2, 3, 4] = float("nan")
    with pytest.raises(FloatingPointError, match="t500"):
        write_dataset(to_dataset(state), tmp_path / "never.nc")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.assign(temperature=d.temperature.assign_attrs(units="degC")), "temperature: found units 'degC'"),
        (
            lambda d: d.assign(mean_sea_level_pressure=d.mean_sea_level_pressure / 100),
            r"found values from .* expected 85000",
        ),
        (lambda d: d.sel(level=[500]), r"expected 850 hPa"),
        (lambda d: d.isel(latitude=[0, 0, 1, 2]), "duplicates"),
        (lambda d: d.isel(time=[0, 0]), "duplicate times"),
        (lambda d: d.drop_vars("geopotential"), "geopotential is missing"),
    ],
)
def test_bad_data_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        from_dataset(change(to_dataset(_state())), CHANNELS)


def test_seasonal_normalisation_recovers_the_cycle_and_the_std():
    times = np.datetime64("2001-01-01", "ns") + np.arange(1461) * np.timedelta64(1, "D")
    phase = 2 * np.pi * (times - np.datetime64("2000-01-01", "ns")) / np.timedelta64(1, "D") / 365.2425
    rng = np.random.default_rng(0)
    cycle = 280 + 10 * np.cos(phase) - 4 * np.sin(2 * phase)
    values = cycle[:, None, None, None] + 2.5 * rng.normal(size=(len(times), 1, 4, 8))
    grid = LatLonGrid.gaussian(4, 8)
    state = State(torch.as_tensor(values, dtype=torch.float32), ("t850",), grid, times)
    fitted = Normalisation.fit(state, harmonics=2)
    assert fitted.std.item() == pytest.approx(2.5, rel=0.02)
    np.testing.assert_allclose(fitted.mean_at(times)[:, 0].mean(dim=(1, 2)), cycle, atol=0.15)
    torch.testing.assert_close(
        fitted.physical(fitted.normalise(state.values, times), times), state.values, atol=1e-3, rtol=0
    )


def test_season_is_a_point_on_the_circle_that_returns_after_a_year():
    times = np.array(["2001-01-01", "2001-07-02", "2002-01-01"], dtype="datetime64[ns]")
    phase = season(times)
    torch.testing.assert_close((phase**2).sum(-1), torch.ones(3))
    assert (phase[0] - phase[2]).abs().max() < 0.02
    assert (phase[0] + phase[1]).abs().max() < 0.05


def test_a_damaged_file_is_one_clear_error(tmp_path):
    path = tmp_path / "damaged.nc"
    path.write_bytes(b"CDF\x01 not really")
    with pytest.raises(ValueError, match=r"damaged\.nc"):
        read_state(path)
    with pytest.raises(FileNotFoundError):
        read_state(tmp_path / "nothing.nc")

"""Store, climate figures and sample case on fields with known statistics; needs no model."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from genda.forecast.backgrounds import create_group, plan
from genda.forecast.climate import channel_values, climate_summary, open_backgrounds, open_nature_run
from genda.forecast.sample_case import STEP, open_sample_case, packing, write_sample_case
from genda.forecast.store import Run, create_store, write_frames
from genda.forecast.timeline import CHUNK_DAYS, FRAMES_PER_DAY, Timeline
from genda.grid import LatLonGrid
from genda.variables import EMBEDDED_CHANNELS, EMBEDDED_LEVELS, FIELDS, channel

AMPLITUDE = {"z": 600.0, "t": 3.0, "u": 6.0, "v": 6.0, "q": 1e-3, "t2m": 2.0, "u10": 4.0, "v10": 4.0, "msl": 500.0}
OFFSET = {"z": 5.0e4, "t": 260.0, "u": 5.0, "v": 0.0, "q": 5e-3, "t2m": 287.0, "u10": 0.0, "v10": 0.0, "msl": 101100.0}
ERROR = 0.2  # of the amplitude


def wave(name, shape, frame):
    """A constant plus a travelling wave of zonal wavenumber 3 with the same variance everywhere."""
    phase = 2 * np.pi * (3 * np.arange(shape[-1]) / shape[-1] - frame / 10.0)
    return np.broadcast_to(OFFSET[name] + np.sqrt(2) * AMPLITUDE[name] * np.cos(phase), shape)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("nature") / "small.zarr"
    grid = LatLonGrid.gaussian(8, 16)
    model = SimpleNamespace(grid=grid, surface_geopotential=np.zeros(grid.shape), land_sea_mask=np.ones(grid.shape))
    timeline = Timeline(1, 0, year_days=30)
    run = Run(out, timeline, "t31")
    create_store(run, model)
    stream = timeline.streams[0]
    chunk = CHUNK_DAYS * FRAMES_PER_DAY

    def fields(frame):
        shapes = {f.id: ((len(EMBEDDED_LEVELS),) if f.on_levels else ()) + grid.shape for f in FIELDS}
        return {name: wave(name, shape, frame) for name, shape in shapes.items()}

    for day in range(0, stream.days - CHUNK_DAYS, CHUNK_DAYS):  # the last chunk stays unfinished
        frames = [{k: v[None] for k, v in fields(day * FRAMES_PER_DAY + i).items()} for i in range(chunk)]
        write_frames(run, stream, day, frames)
    pairs = plan(timeline, {"train": 4, "validation": 3, "test": 6})
    create_group(run, model, pairs, "b")
    import zarr

    group = zarr.open_group(out, mode="r+", path="background")
    for i, pair in enumerate(pairs):
        for name, values in fields(pair.frame).items():
            field = next(f for f in FIELDS if f.id == name)
            group[field.name][i] = np.stack([values + k * ERROR * AMPLITUDE[name] for k in (1.0, -2.0)])
        group["written"][i] = 1
    return out


def test_only_finished_frames_are_opened_and_names_and_units_are_those_of_the_table(store):
    finished, everything = open_nature_run(store), xr.open_zarr(store, chunks=None)
    assert everything.time.size - finished.time.size == CHUNK_DAYS * FRAMES_PER_DAY
    for name in EMBEDDED_CHANNELS:
        field = channel(name).field
        assert finished[field.name].attrs["units"] == field.units
        assert np.isfinite(channel_values(finished, name)).all()
    assert np.isnan(everything["msl" if "msl" in everything else "mean_sea_level_pressure"].values[-1]).all()
    assert list(finished.level.values) == [850, 700, 500, 300, 200]
    assert finished.latitude.values[0] > finished.latitude.values[-1]


def test_climate_figures_are_those_of_the_fields(store):
    summary = climate_summary(store, "test")
    for name in EMBEDDED_CHANNELS:
        field = channel(name).field.id
        assert summary.transient_std[name] == pytest.approx(AMPLITUDE[field], rel=1e-3)
        assert summary.mean[name] == pytest.approx(OFFSET[field], rel=1e-5, abs=1e-3 * AMPLITUDE[field])
        assert summary.background_rmse[24][name] == pytest.approx(ERROR * AMPLITUDE[field], rel=2e-3)
        assert summary.background_rmse[48][name] == pytest.approx(2 * ERROR * AMPLITUDE[field], rel=2e-3)
        assert summary.lead_correlation[name] == pytest.approx(-1.0, abs=1e-3)
    assert summary.z500_std == pytest.approx(600.0 / 9.80665, rel=1e-3)
    assert "| z500 |" in summary.table()


def test_sample_case_keeps_every_channel_to_a_thousandth_of_its_transient_std(store, tmp_path):
    out = tmp_path / "sample.nc"
    write_sample_case(store, out, dates=4)
    case = open_sample_case(out)
    truth = open_nature_run(store, "test").sel(time=case.truth.time)
    background = open_backgrounds(store, "test").sel(time=case.truth.time)
    for name in EMBEDDED_CHANNELS:
        std = case.transient_std[name]
        error = channel_values(case.truth, name) - channel_values(truth, name)
        limit = 0.51 * STEP * std + 1e-6 * np.abs(channel_values(truth, name)).max()
        assert np.abs(error).max() <= limit
        assert np.sqrt((error**2).mean()) <= 1e-3 * std + 1e-7 * np.abs(channel_values(truth, name)).max()
        moved = np.moveaxis(channel_values(background, name), 1, 0)
        assert np.abs(channel_values(case.background, name) - moved).max() <= limit
    assert set(case.background.dims) == {"lead", "time", "level", "latitude", "longitude"}
    np.testing.assert_allclose(case.std.geopotential, 600.0, rtol=0.02)
    assert not list(tmp_path.glob(".*partial*"))


def test_too_many_dates_and_a_range_beyond_16_bits_are_refused(store, tmp_path):
    with pytest.raises(ValueError, match="dates: found 40, expected 1 to"):
        write_sample_case(store, tmp_path / "sample.nc", dates=40)
    with pytest.raises(ValueError, match="q850: found a range of"):
        packing(np.array([0.0, 1.0]), 1e-6, "q850")
    assert not list(tmp_path.iterdir())


def test_a_store_of_another_run_is_refused(store):
    grid = LatLonGrid.gaussian(8, 16)
    with pytest.raises(ValueError, match="found seed = 0, expected 1"):
        create_store(Run(store, Timeline(1, 1, year_days=30), "t31"), SimpleNamespace(grid=grid))


def test_a_field_that_is_not_finite_never_reaches_the_store(store):
    timeline = Timeline(1, 0, year_days=30)
    frames = [{f.id: np.full((1, *(((5,) if f.on_levels else ()) + (8, 16))), np.nan) for f in FIELDS}] * 10
    with pytest.raises(FloatingPointError, match="of truth-0 is not finite in the five days from day 85"):
        write_frames(Run(store, timeline, "t31"), timeline.streams[0], 85, frames)
    assert not xr.open_zarr(store, chunks=None).written.values[-10:].any()


def test_missing_and_unfinished_stores_are_errors_that_say_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such nature run"):
        open_nature_run(tmp_path / "none.zarr")
    with pytest.raises(FileNotFoundError, match="no such sample case"):
        open_sample_case(tmp_path / "none.nc")

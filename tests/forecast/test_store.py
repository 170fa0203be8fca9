"""Store, climate figures and sample case on fields with known statistics; needs no model."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

from genda.forecast.backgrounds import create_group, plan
from genda.forecast.climate import channel_values, climate_summary, open_backgrounds, open_nature_run
from genda.forecast.nature_run import groups
from genda.forecast.sample_case import ROUNDING, open_sample_case, write_sample_case
from genda.forecast.store import Run, create_store, save_arrays, write_frames
from genda.forecast.timeline import CHUNK_DAYS, FRAMES_PER_DAY, Timeline
from genda.grid import LatLonGrid
from genda.variables import EMBEDDED_CHANNELS, EMBEDDED_LEVELS, FIELDS, channel

AMPLITUDE = {"z": 600.0, "t": 3.0, "u": 6.0, "v": 6.0, "q": 1e-3, "t2m": 2.0, "u10": 4.0, "v10": 4.0, "msl": 500.0}
OFFSET = {"z": 5.0e4, "t": 260.0, "u": 5.0, "v": 0.0, "q": 5e-3, "t2m": 287.0, "u10": 0.0, "v10": 0.0, "msl": 101100.0}
ERROR = 0.2  # of the amplitude


def wave(name, shape, frame):
    """A constant plus a travelling wave of zonal wavenumber 3 with the same variance everywhere, and a little noise."""
    phase = 2 * np.pi * (3 * np.arange(shape[-1]) / shape[-1] - frame / 10.0)
    noise = 0.01 * np.random.default_rng(frame).standard_normal(shape)
    return OFFSET[name] + AMPLITUDE[name] * (np.sqrt(2) * np.cos(phase) + noise)


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
    for stored, original in ((case.truth, truth), (case.background, background)):
        for name in EMBEDDED_CHANNELS:
            expected = channel_values(original, name)
            error = channel_values(stored, name) - expected
            float32 = 1e-7 * np.abs(expected).max()
            assert np.sqrt((error**2).mean()) <= 1.05 * ROUNDING * case.transient_std[name] + float32
            assert np.abs(error).max() <= np.sqrt(3) * ROUNDING * case.transient_std[name] + float32
            assert original[channel(name).field.name].dims == stored[channel(name).field.name].dims
    np.testing.assert_allclose(case.std.geopotential, 600.0, rtol=0.02)
    assert xr.open_dataset(out, engine="h5netcdf").geopotential.attrs["units"] == "m2 s-2"
    assert not list(tmp_path.glob(".*partial*"))


def test_too_many_dates_are_refused_and_leave_nothing(store, tmp_path):
    with pytest.raises(ValueError, match="dates: found 40, expected 1 to"):
        write_sample_case(store, tmp_path / "sample.nc", dates=40)
    assert not list(tmp_path.iterdir())


def test_a_store_of_another_run_is_refused(store):
    grid = LatLonGrid.gaussian(8, 16)
    with pytest.raises(ValueError, match="found seed = 0, expected 1"):
        create_store(Run(store, Timeline(1, 1, year_days=30), "t31"), SimpleNamespace(grid=grid))


def test_members_a_kill_left_a_chunk_apart_part_company(tmp_path):
    timeline = Timeline(4, 0, 3)
    run = Run(tmp_path / "n.zarr", timeline, "t31")
    assert groups(run, timeline.streams, together=True) == [list(timeline.streams)]
    assert len(groups(run, timeline.streams, together=False)) == 3
    save_arrays(run.restart / "truth-1" / "latest.npz", {"day": np.array(5)})
    assert [[s.name for s in g] for g in groups(run, timeline.streams, together=True)] == [
        ["truth-0", "truth-2"],
        ["truth-1"],
    ]


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

"""Check, prepare and statistics of gridded data against what was put in, closed forms and a run that was never killed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from command_line import run
from genda.data import prepare
from genda.data.check import check_files
from genda.data.prepare import split_times
from genda.data.stats import data_statistics
from genda.grid import LatLonGrid
from genda.regrid import regrid, regridder
from genda.state import read_state, to_dataset
from genda.train.data import select_times, static_maps
from shared_data import shared
from small_model import CHANNELS, states

COARSE = LatLonGrid.gaussian(8, 16)


def weather(count):
    """States with geopotential as it is at its levels, 850 and 500 hPa."""
    state = states(count)
    state.values[:, :2] += torch.tensor([14e3, 55e3]).view(-1, 1, 1) - 30e3
    return state


@pytest.fixture
def source(tmp_path):
    state = weather(40)
    dataset = to_dataset(state)
    dataset["land_sea_mask"] = (("latitude", "longitude"), np.random.default_rng(0).random(state.grid.shape))
    dataset.to_zarr(tmp_path / "source.zarr", consolidated=False)
    return tmp_path / "source.zarr"


def arrays(path):
    with xr.open_zarr(path, consolidated=False) as dataset:
        return {str(name): dataset[name].values for name in dataset.variables}


def test_a_prepared_store_is_the_regridded_data_with_splits_that_never_touch(source, tmp_path, capsys):
    out = tmp_path / "out.zarr"
    code, text, _ = run(capsys, "data", "prepare", source, out, "--grid", "gaussian-8x16", "--gap-days", 1, "--json")
    document = json.loads(text)
    assert (code, document["frames_written_now"], document["split"]["gap"]) == (0, 40, 4)
    whole = read_state(source, CHANNELS)
    expected = regrid(whole, COARSE, regridder(whole.grid, COARSE))
    torch.testing.assert_close(read_state(out, CHANNELS).values, expected.values, rtol=0, atol=0)
    train, validation = (select_times(out, name) for name in ("train", "validation"))
    assert validation[0] - train[-1] > np.timedelta64(1, "D")
    assert static_maps(out, ["land_sea_mask"], COARSE) is not None


def test_times_channels_and_area_are_chosen(source, tmp_path, capsys):
    out = tmp_path / "out.zarr"
    options = ("--channels", "t2m,z500", "--every", 24, "--start", "2001-01-03", "--end", "2001-01-12", "--gap-days", 0)
    code, _, error = run(
        capsys, "data", "prepare", source, out, *options, "--area", "60/-30/0/50", "--method", "bilinear"
    )
    assert code == 0, error
    state, whole = read_state(out), read_state(source, ["z500", "t2m"])
    assert len(state.times) == 10
    assert state.grid.longitude[0] == 337.5
    assert not state.grid.periodic
    rows = [whole.grid.latitude.index(v) for v in state.grid.latitude]
    columns = [whole.grid.longitude.index(v % 360) for v in state.grid.longitude]
    kept = whole.values[np.isin(whole.times, state.times)][:, :, rows][..., columns]
    torch.testing.assert_close(state.values, kept)


@pytest.mark.parametrize(
    ("every", "hours"), [(48, range(0, 480, 48)), (36, range(0, 480, 36)), (12, range(0, 480, 12))]
)
def test_hours_between_times_are_counted_from_the_first_midnight(source, tmp_path, capsys, every, hours):
    out = tmp_path / "out.zarr"
    options = ("--channels", "t2m", "--every", every, "--gap-days", 0)
    code, _, error = run(capsys, "data", "prepare", source, out, *options)
    assert code == 0, error
    elapsed = (read_state(out).times - np.datetime64("2001-01-01", "ns")) / np.timedelta64(1, "h")
    assert elapsed.tolist() == list(hours)


def test_times_that_a_channel_lacks_are_left_out_and_counted(tmp_path, capsys):
    """Geopotential lacks one time of forty in the middle, wherever it is asked for alone, with others, or not at all."""
    state = weather(40)
    dataset = to_dataset(state)
    (tmp_path / "in").mkdir()
    dataset[["geopotential"]].drop_isel(time=17).to_netcdf(tmp_path / "in" / "z.nc", engine="h5netcdf")
    dataset[["2m_temperature"]].to_netcdf(tmp_path / "in" / "t2m.nc", engine="h5netcdf")
    for number, (channels, frames) in enumerate((("z500", 39), ("z500,t2m", 39), ("t2m", 40), ("all", 39))):
        out = tmp_path / f"{number}.zarr"
        options = ("--channels", channels, "--gap-days", 0, "--json")
        code, text, error = run(capsys, "data", "prepare", tmp_path / "in", out, *options)
        assert code == 0, error
        document = json.loads(text)
        assert (document["frames"], document["times_left_out"]) == (frames, 40 - frames)
        assert read_state(out).values.shape[0] == frames
        code, text, error = run(capsys, "data", "stats", tmp_path / "in", "--channels", channels, "--json")
        assert code == 0, error
        assert json.loads(text)["times"] == frames
    code, text, _ = run(capsys, "data", "check", tmp_path / "in", "--json")
    assert code == 2
    (problem,) = json.loads(text)["problems"]
    assert problem == "geopotential: found 39 times without 2001-01-09T12:00, expected it among them"


def test_a_killed_preparation_goes_on_to_the_same_store(source, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "SHARD_BYTES", 4 * 2 * 8 * 16 * 8)  # eight frames a file
    times = read_state(source, CHANNELS[:1]).times
    split = split_times(times, None, np.timedelta64(0, "h"))

    def what(name):
        return prepare.Preparation(str(source), tmp_path / name, CHANNELS, COARSE, "conservative", times, split)

    assert prepare.prepare_store(what("whole.zarr")) == 40
    writes, write = [], prepare._write_block

    def killed(job):
        if len(writes) == 2:
            raise KeyboardInterrupt
        writes.append(job)
        write(job)

    with monkeypatch.context() as patch:
        patch.setattr(prepare, "_write_block", killed)
        with pytest.raises(KeyboardInterrupt):
            prepare.prepare_store(what("killed.zarr"))
    assert arrays(tmp_path / "killed.zarr")["written"].sum() == 16
    assert prepare.prepare_store(what("killed.zarr")) == 24
    whole, resumed = arrays(tmp_path / "whole.zarr"), arrays(tmp_path / "killed.zarr")
    for name, values in whole.items():
        np.testing.assert_array_equal(resumed[name], values)
    other = prepare.Preparation(str(source), tmp_path / "killed.zarr", CHANNELS, COARSE, "bilinear", times, split)
    with pytest.raises(ValueError, match="found method = conservative"):
        prepare.prepare_store(other)
    for change, message in (
        ({"split": np.roll(split, 1)}, "found another split"),
        ({"times": np.r_[times[:1], times[1:-1] + np.timedelta64(1, "h"), times[-1:]]}, "found another time"),
    ):
        with pytest.raises(ValueError, match=message):
            prepare.prepare_store(replace(what("killed.zarr"), **change))
    shutil.copytree(source, tmp_path / "second.zarr")
    with pytest.raises(ValueError, match="found source = "):
        prepare.prepare_store(replace(what("killed.zarr"), source=str(tmp_path / "second.zarr")))


def test_times_that_are_left_out_need_not_be_readable(source, tmp_path):
    dataset = xr.open_zarr(source, consolidated=False).load()
    dataset["temperature"][0] = np.nan
    dataset.drop_encoding().to_zarr(tmp_path / "spinning.zarr", consolidated=False)
    times = dataset["time"].values[1:]
    split = split_times(times, None, np.timedelta64(0, "h"))
    what = prepare.Preparation(
        str(tmp_path / "spinning.zarr"), tmp_path / "out.zarr", CHANNELS, COARSE, "conservative", times, split
    )
    assert prepare.prepare_store(what) == 39


def test_a_folder_of_downloads_is_selected_from(source, tmp_path):
    dataset = xr.open_zarr(source, consolidated=False).load().drop_encoding().rename(time="valid_time")
    (tmp_path / "era5").mkdir()
    for i, part in enumerate((slice(0, 20), slice(20, 40))):
        dataset.isel(valid_time=part).to_netcdf(tmp_path / "era5" / f"{i}.nc", engine="h5netcdf")
    chosen = select_times(tmp_path / "era5", ("2001-01-09", "2001-01-12"))
    np.testing.assert_array_equal(chosen, dataset["valid_time"].values[16:24])
    assert static_maps(tmp_path / "era5", ["land_sea_mask"], states(1).grid) is not None


def test_two_processes_write_what_one_writes(source, tmp_path):
    times = read_state(source, CHANNELS[:1]).times
    split = split_times(times, None, np.timedelta64(0, "h"))
    for name, workers in (("one.zarr", 1), ("two.zarr", 2)):
        prepare.prepare_store(
            prepare.Preparation(str(source), tmp_path / name, CHANNELS, COARSE, "spectral", times, split), workers
        )
    one, two = arrays(tmp_path / "one.zarr"), arrays(tmp_path / "two.zarr")
    for name, values in one.items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(two[name], values, rtol=1e-6)


def test_splits_by_date_leave_gaps():
    times = np.datetime64("2000-01-01", "ns") + np.arange(100) * np.timedelta64(1, "D")
    split = split_times(times, ("2000-02-29", "2000-03-20"), np.timedelta64(5, "D"))
    assert [(split == name).sum() for name in ("train", "validation", "test", "gap")] == [60, 15, 15, 10]
    assert times[split == "validation"].min() == np.datetime64("2000-03-06")
    with pytest.raises(ValueError, match="no time for validation by --train-until 2000-03-20"):
        split_times(times, ("2000-03-20", "2000-02-29"), np.timedelta64(0, "D"))


def test_statistics_in_one_pass_are_those_of_the_whole(source):
    """Against numpy in double precision, with the large mean of geopotential."""
    state = read_state(source, CHANNELS)
    weights = np.broadcast_to(state.grid.area_weights[:, None], state.grid.shape)
    found = data_statistics(source, CHANNELS, interval=np.timedelta64(24, "h"))
    assert found.pairs == 38
    differences = state.values[2:].double() - state.values[:-2].double()
    for values, mean, std in (
        (state.values, found.mean, found.std),
        (differences, found.difference_mean, found.difference_std),
    ):
        for i in range(len(CHANNELS)):
            channel = values[:, i].double().numpy()
            expected = np.average(channel, weights=np.broadcast_to(weights, channel.shape))
            variance = np.average((channel - expected) ** 2, weights=np.broadcast_to(weights, channel.shape))
            assert float(mean[i]) == pytest.approx(expected, rel=1e-10, abs=1e-7)
            assert float(std[i]) == pytest.approx(np.sqrt(variance), rel=1e-10)


def test_a_report_names_every_problem_at_once(source, tmp_path, capsys):
    good = xr.open_zarr(source, consolidated=False).load()
    assert not check_files(source).problems
    bad = good.isel(time=[0, 1, 2, 5, 6], latitude=slice(None, None, -1)).copy(deep=True)
    bad["temperature"].attrs["units"] = "degC"
    bad["geopotential"][3, 0, 2, 2] = np.nan
    bad["2m_temperature"] = bad["2m_temperature"] - 273.15
    bad["2m_temperature"].attrs["units"] = "K"
    bad["specific_rain"] = bad["2m_temperature"]
    bad.drop_encoding().to_netcdf(tmp_path / "bad.nc", engine="h5netcdf")
    code, text, _ = run(capsys, "data", "check", tmp_path / "bad.nc", "--json")
    found = json.loads(text)
    assert code == 2
    assert found["times"]["gaps"] == 1
    assert found["grid"]["order"] == "south to north"
    assert found["unknown"] == ["specific_rain"]
    for part in (
        "found units 'degC'",
        "geopotential: found 1 missing values in 1 of 5",
        "2m_temperature: found values",
    ):
        assert any(part in problem for problem in found["problems"]), part
    assert any("2 times missing, the first after 2001-01-02T00:00" in remark for remark in found["remarks"])


def test_bad_options_end_in_one_line(source, tmp_path, capsys):
    out = tmp_path / "out.zarr"
    for options, message in (
        (("--grid", "48x96"), "grid: found '48x96', expected same, gaussian-48x96"),
        (("--method", "cubic"), "method: found 'cubic'"),
        (("--area", "0/0/10/10"), "expected north above south"),
        (("--area", "rome"), "expected north/west/south/east"),
        (("--start", "2002-01-01"), "time: found none from 2002-01-01"),
        (("--channels", "r500"), "unknown channel 'r500'"),
        (("--train-until", "2001-01-10"), "expected both or neither"),
        (("--start", "2024-13-01"), "--start: found '2024-13-01', expected an ISO date"),
        (("--end", "now"), "--end: found 'now'"),
        (("--train-until", "2001-02-30", "--validation-until", "2001-03-01"), "--train-until: found '2001-02-30'"),
        (("--train-until", "2001-01-10", "--validation-until", "x"), "--validation-until: found 'x'"),
        (
            ("--train-until", "2001-01-10", "--validation-until", "2001-01-11", "--gap-days", 9),
            "and --gap-days 9, expected",
        ),
    ):
        code, _, error = run(capsys, "data", "prepare", source, out, "--gap-days", 0, *options)
        assert (code, message in error, out.exists()) == (2, True, False), error


def test_geopotential_height_in_the_units_of_geopotential_is_no_weather(source, tmp_path, capsys):
    """Divided by 9.81 it is within all that geopotential can be, but not at its levels; °C for K is not either."""
    good = xr.open_zarr(source, consolidated=False).load().drop_encoding()
    for name, changed in (("geopotential", good["geopotential"] / 9.81), ("temperature", good["temperature"] - 70)):
        attributes = good[name].attrs
        good.assign({name: changed.assign_attrs(attributes)}).to_netcdf(tmp_path / "bad.nc", engine="h5netcdf")
        code, text, _ = run(capsys, "data", "check", tmp_path / "bad.nc")
        assert code == 2
        assert f"{name}: found values from" in text
        assert "hPa and on 1 other levels, expected" in text
    good["geopotential"].attrs["units"] = ""
    good.to_netcdf(tmp_path / "bare.nc", engine="h5netcdf")
    found = check_files(tmp_path / "bare.nc")
    assert (found.problems, found.remarks) == ([], ["geopotential: found no units, taken for m2 s-2"])


@pytest.mark.parametrize(
    ("hours", "step", "gaps", "remark"),
    [
        ((0, 12, 48), 12, 1, "time: found 1 gaps, 2 times missing, the first after 2001-01-01T12:00"),
        ((0, 6, 12, 15, 18, 24), 6, 0, "time: found uneven steps, from 3 to 6 h"),
        ((0, 6, 12, 24, 30), 6, 1, "time: found 1 gaps, 1 times missing, the first after 2001-01-01T12:00"),
        ((0, 744, 1416, 2160), 744, 0, "time: found uneven steps, from 672 to 744 h"),  # months
    ],
)
def test_steps_and_gaps_are_one_account(source, tmp_path, hours, step, gaps, remark):
    times = np.datetime64("2001-01-01", "ns") + np.array(hours) * np.timedelta64(1, "h")
    dataset = xr.open_zarr(source, consolidated=False).load().drop_encoding().isel(time=slice(0, len(hours)))
    dataset.assign_coords(time=times).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    found = check_files(tmp_path / "a.nc")
    assert (found.times["step_hours"], found.times["gaps"], found.remarks) == (step, gaps, [remark])


def test_members_are_counted(capsys):
    pytest.importorskip("cfgrib")
    path = shared("era5-levels-members.grib")
    assert "\n  members: 10\n" in run(capsys, "data", "check", path)[1]
    assert "4 times of 10 members, 30 differences over 12 h" in run(capsys, "data", "stats", path)[1]


def test_a_series_too_short_for_splits_is_all_for_training(source, tmp_path, capsys):
    short = xr.open_zarr(source, consolidated=False).load().drop_encoding().isel(time=slice(0, 4))
    short.to_netcdf(tmp_path / "short.nc", engine="h5netcdf")
    code, text, error = run(capsys, "data", "prepare", tmp_path / "short.nc", tmp_path / "out.zarr")
    assert code == 0, error
    assert (
        "train 4, validation 0, test 0, gap 0; too few times for three splits with gaps of 10 days (--gap-days)" in text
    )
    assert len(select_times(tmp_path / "out.zarr", "train")) == 4
    code, _, error = run(capsys, "data", "stats", tmp_path / "out.zarr", "--split", "foo")
    assert (code, "split: found no time of 'foo', expected one of train" in error) == (2, True)

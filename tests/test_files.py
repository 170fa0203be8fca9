"""Files of every kind give the values that were put in, or that another decoder finds."""

from __future__ import annotations

import gzip
import sys

import numpy as np
import pytest
import torch
import xarray as xr
from fsspec.registry import _registry

from genda.files import open_gridded
from genda.state import read_state, to_dataset
from shared_data import shared
from small_model import states


def as_downloaded(dataset):
    """As the Climate Data Store names and orders things."""
    names = {"geopotential": "z", "temperature": "t", "u_component_of_wind": "u", "v_component_of_wind": "v"}
    renamed = dataset.rename(names | {"2m_temperature": "t2m", "time": "valid_time", "level": "pressure_level"})
    return renamed.isel(pressure_level=slice(None, None, -1), latitude=slice(None, None, -1))


def test_a_folder_split_by_variable_and_month_is_one_data_set(tmp_path):
    state = states(6)
    dataset = as_downloaded(to_dataset(state))
    upper, surface = dataset.drop_vars("t2m"), dataset[["t2m"]]
    for month, part in enumerate((slice(0, 3), slice(3, 6))):
        upper.isel(valid_time=part).to_netcdf(tmp_path / f"upper-{month}.nc", engine="h5netcdf")
        surface.isel(valid_time=part).to_netcdf(tmp_path / f"surface-{month}.nc", engine="scipy")  # netCDF 3
    place = {"latitude": dataset.latitude, "longitude": dataset.longitude}
    maps = {name: (tuple(place), np.full(state.grid.shape, i)) for i, name in enumerate(("z", "lsm"))}
    invariant = xr.Dataset(maps, coords=place).expand_dims(valid_time=[np.datetime64("1990-01-01", "ns")])
    invariant.isel(valid_time=0, drop=True).to_netcdf(tmp_path / "invariant.nc", engine="h5netcdf")
    found = read_state(tmp_path).select(state.channels)
    torch.testing.assert_close(found.values, state.values, rtol=0, atol=0)
    np.testing.assert_array_equal(found.times, state.times)
    assert float(open_gridded(tmp_path).static["land_sea_mask"].mean()) == 1
    assert "geopotential_at_surface" in open_gridded(tmp_path).static


def test_a_file_for_each_time_and_dated_invariants_are_one_data_set(tmp_path):
    """A downloaded invariant has a date of its own, which is none of the data's; a file of one frame has no dimension of time."""
    state = states(3)
    dataset = as_downloaded(to_dataset(state))
    for i in (2, 0, 1):
        dataset.isel(valid_time=i).to_netcdf(tmp_path / f"{(i + 1) % 3}.nc", engine="h5netcdf")
    maps = {name: (("latitude", "longitude"), np.full(state.grid.shape, 1.0)) for name in ("z", "lsm")}
    invariant = xr.Dataset(maps, coords={name: dataset[name] for name in ("latitude", "longitude")})
    invariant.expand_dims(valid_time=[np.datetime64("1990-01-01", "ns")]).to_netcdf(
        tmp_path / "i.nc", engine="h5netcdf"
    )
    np.testing.assert_array_equal(open_gridded(tmp_path).times, state.times)
    found = read_state(tmp_path)
    np.testing.assert_array_equal(found.times, state.times)
    torch.testing.assert_close(found.select(state.channels).values, state.values, rtol=0, atol=0)
    assert set(open_gridded(tmp_path).static.data_vars) == {"geopotential_at_surface", "land_sea_mask"}


def test_times_are_sorted_with_what_belongs_to_them(tmp_path):
    state = states(6)
    dataset = to_dataset(state).assign_coords(split=("time", np.array(list("abcdef"), dtype=object)))
    dataset.isel(time=[5, 3, 4]).to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    dataset.isel(time=[1, 0, 2]).to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
    assert "".join(open_gridded(tmp_path).coordinate("split")) == "abcdef"
    np.testing.assert_array_equal(read_state(tmp_path / "b.nc").times, state.times[:3])
    torch.testing.assert_close(read_state(tmp_path / "b.nc").select(state.channels).values, state.values[:3])
    dataset.isel(time=[1, 0, 2]).drop_vars("split").to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match="split: found 3 times of 6"):
        open_gridded(tmp_path).coordinate("split")


def test_a_variable_that_lacks_a_time_is_named_whether_it_is_read_alone_or_with_others(tmp_path):
    dataset = to_dataset(states(6))
    dataset[["geopotential"]].drop_isel(time=4).to_netcdf(tmp_path / "z.nc", engine="h5netcdf")
    dataset[["2m_temperature"]].to_netcdf(tmp_path / "t2m.nc", engine="h5netcdf")
    times = dataset["time"].values
    message = "geopotential: found 5 times without 2001-01-03T00:00, expected it among them"
    for names in (["z500"], ["z500", "t2m"]):
        with pytest.raises(ValueError, match=message):
            read_state(tmp_path, names, times[3:])
        assert len(read_state(tmp_path, names, times[:4]).times) == 4
    with pytest.raises(ValueError, match=message):
        read_state(tmp_path)
    assert len(read_state(tmp_path, ["z500"]).times) == 5
    assert len(read_state(tmp_path, ["t2m"], times[3:]).times) == 3


def test_a_store_behind_a_url_is_read(tmp_path):
    state = states(2)
    to_dataset(state).to_zarr(tmp_path / "state.zarr")
    torch.testing.assert_close(read_state(f"file://{tmp_path}/state.zarr").select(state.channels).values, state.values)


def test_grib_holds_what_eccodes_decodes():
    """Every message of both files, z and t and the winds, at its valid time, level and member."""
    eccodes = pytest.importorskip("eccodes")
    pytest.importorskip("cfgrib")
    for name, count in (("era5-levels-members.grib", 160), ("pl_regular_ll.grib", 192)):
        path, seen = shared(name), 0
        beside = sorted(path.parent.iterdir())
        state = read_state(path)
        with path.open("rb") as file:
            while (message := eccodes.codes_grib_new_from_file(file)) is not None:
                keys = [
                    eccodes.codes_get(message, key) for key in ("shortName", "level", "validityDate", "validityTime")
                ]
                member = eccodes.codes_get(message, "number") if state.values.ndim == 5 else ...
                raw = eccodes.codes_get_values(message).reshape(state.grid.shape)
                eccodes.codes_release(message)
                if keys[0] == "r":
                    continue
                day, hour = str(keys[2]), int(keys[3]) // 100
                time = np.datetime64(f"{day[:4]}-{day[4:6]}-{day[6:]}T{hour:02d}", "ns")
                values = state.values[int(np.flatnonzero(state.times == time)[0])]
                values = values if member is ... else values[member]
                np.testing.assert_array_equal(
                    values[state.channels.index(f"{keys[0]}{keys[1]}")], raw.astype(np.float32)
                )
                seen += 1
        assert seen == count
        assert sorted(path.parent.iterdir()) == beside  # no index is left there


def test_what_cannot_be_opened_is_named(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match=r"folder: found a folder without \.nc"):
        open_gridded(tmp_path / "folder")
    for name, content, found in (
        ("text.nc", b"not netCDF\n", "found text that begins 'not netCDF'"),
        ("empty.nc", b"", "found an empty file"),
        ("packed.grib", gzip.compress(b"GRIB"), "found one packed by gzip"),
        ("cut.grib", b"GRIB\x00\x00", "found the file cut off after 6"),
        ("cut.nc", b"\x89HDF\r\n\x1a\n", "found a netCDF-4 file that cannot be opened"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}: .*{found}"):
            open_gridded(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        open_gridded(tmp_path / "absent.nc")
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    monkeypatch.delitem(_registry, "gs", raising=False)  # where another test has had it
    with pytest.raises(ModuleNotFoundError, match=r"\.\[cloud\]"):
        open_gridded("gs://bucket/store.zarr")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(_registry, "s3", raising=False)
    with pytest.raises(ModuleNotFoundError, match="pip install s3fs"):
        open_gridded("s3://bucket/store.zarr")


def test_files_that_do_not_fit_together_are_named(tmp_path):
    dataset = to_dataset(states(2))
    dataset.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    dataset.isel(longitude=slice(0, 16)).to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match="longitude: found 16 and 32 values that differ"):
        open_gridded(tmp_path)
    (dataset + 1).to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match="contradict each other"):
        read_state(tmp_path)

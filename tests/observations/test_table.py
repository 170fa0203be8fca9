"""The table: schema errors that explain themselves, Parquet whole or not at all, detection, default errors."""

from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.shared_data import shared

from genda.observations import (
    Flag,
    assign_errors,
    default_error,
    read_observations,
    read_table,
    summary,
    validate,
    write_table,
)
from genda.observations.conversions import saturation_vapour_pressure, specific_humidity, wind_components
from genda.observations.errors import LEVELS_HPA
from genda.observations.table import COLUMNS, DTYPES, empty


def table(**changes: object) -> pd.DataFrame:
    """Three valid rows: z500 and t500 of one sounding, t2m of another station."""
    columns = {
        "time": np.array(["2020-01-01", "2020-01-01", "2020-01-02"], dtype="datetime64[ns]"),
        "latitude": [10.0, 10.0, -89.9],
        "longitude": [0.0, 0.0, 359.9],
        "pressure": [50000.0, 50000.0, np.nan],
        "elevation": [np.nan, np.nan, 2800.0],
        "variable": ["z", "t", "t2m"],
        "observation": [5.5e4, 250.0, 240.0],
        "obs_error": [np.nan, 1.0, np.nan],
        "station": ["a", "a", "b"],
        "source": ["igra", "igra", "synop"],
        "quality": [0, 12, 0],
    } | changes
    return pd.DataFrame(columns).astype({k: v for k, v in DTYPES.items() if k not in changes or k == "quality"})


def test_summary_counts():
    assert summary(table()) == {
        "rows": 3,
        "stations": 2,
        "soundings": 1,
        "variables": {"z": 1, "t": 1, "t2m": 1},
        "flags": {"pass": 2, "bounds": 1},
    }
    assert summary(empty()) == {"rows": 0, "stations": 0, "soundings": 0, "variables": {}, "flags": {}}


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda: empty(), "no rows"),
        (lambda: table().drop(columns="obs_error"), "'obs_error' is missing"),
        (lambda: table().astype({"quality": "int64"}), "'quality': found dtype int64, expected int16"),
        (lambda: table().astype({"time": "datetime64[s]"}), "expected datetime64"),
        (lambda: table(station=[1, 2, 3]), "'station'"),
        (lambda: table(variable=["z", "rh", "t2m"]), "'rh', expected one of z, t"),
        (lambda: table(latitude=[10.0, 10.0, -90.5]), "'latitude': found -90.5 in row 2"),
        (lambda: table(latitude=[np.nan, 10.0, 0.0]), "'latitude': found nan in row 0"),
        (lambda: table(longitude=[0.0, 360.0, 1.0]), "'longitude': found 360.0"),
        (lambda: table(longitude=[0.0, -10.0, 1.0]), "'longitude': found -10.0"),
        (lambda: table(pressure=[-500.0, 500.0, np.nan]), "'pressure': found -500"),
        (lambda: table(pressure=[np.nan, 500.0, np.nan]), "pressure on every upper-air row"),
        (lambda: table(observation=[np.inf, 1.0, 1.0]), "'observation': found inf"),
        (lambda: table(observation=[np.nan, 1.0, 1.0]), "every row that passes"),
        (lambda: table(obs_error=[0.0, 1.0, 1.0]), "'obs_error': found 0.0"),
        (lambda: table(time=pd.to_datetime(["2020-01-01", None, None]).astype("datetime64[ns]")), "missing time"),
    ],
)
def test_validate_names_column_found_and_expected(broken, message):
    with pytest.raises(ValueError, match=message) as error:
        validate(broken(), "obs.parquet")
    assert str(error.value).startswith("obs.parquet: ")


def test_flagged_and_unfilled_rows_may_be_incomplete():
    validate(table(observation=[1.0, np.nan, 1.0], pressure=[5e4, np.nan, np.nan], latitude=[1.0, np.nan, 1.0]))
    validate(table(observation=[np.nan] * 3), complete=False)


def test_parquet_round_trip_keeps_every_column_and_extras(tmp_path):
    original = table().assign(hx_b=[1.0, 2.0, np.nan], note=["x", "y", "z"])
    write_table(original[original.columns[::-1]], tmp_path / "o.parquet")
    back = read_table(tmp_path / "o.parquet")
    assert tuple(back.columns[:11]) == COLUMNS
    pd.testing.assert_frame_equal(back[[*COLUMNS, "hx_b"]], original[[*COLUMNS, "hx_b"]])
    pd.testing.assert_frame_equal(read_observations(tmp_path / "o.parquet"), back)


def test_nothing_is_left_of_a_write_that_failed(tmp_path, monkeypatch):
    write_table(table(), tmp_path / "o.parquet")
    before = (tmp_path / "o.parquet").read_bytes()

    def fails(self: pd.DataFrame, path: str, index: bool) -> None:
        with open(path, "wb") as stream:
            stream.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", fails)
    with pytest.raises(OSError, match="disk full"):
        write_table(table(), tmp_path / "o.parquet")
    assert [p.name for p in tmp_path.iterdir()] == ["o.parquet"]
    assert (tmp_path / "o.parquet").read_bytes() == before
    with pytest.raises(ValueError, match="no rows"):
        write_table(empty(), tmp_path / "e.parquet")
    assert not (tmp_path / "e.parquet").exists()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6),
    keep=st.floats(0.2, 1.4),
)
def test_mutated_parquet_gives_a_valid_table_or_one_error(tmp_path, edits, keep):
    path = tmp_path / "fuzz.parquet"
    if not (tmp_path / "whole.parquet").exists():
        write_table(table(), tmp_path / "whole.parquet")
    data = bytearray((tmp_path / "whole.parquet").read_bytes())
    for position, value in edits:
        data[position % len(data)] = value
    path.write_bytes(bytes(data[: int(keep * len(data))]))
    try:
        outcome: object = read_observations(path)
    except ValueError as error:
        outcome = str(error)
    if isinstance(outcome, str):
        assert "fuzz.parquet" in outcome
        assert len(outcome.splitlines()) == 1
    else:
        validate(outcome)


def test_the_stratosphere_is_no_troposphere_in_hectopascals(tmp_path):
    """Real soundings above 10 hPa are written and read; whole ones in hPa are told by heights, or by temperatures alone."""
    table = read_observations(shared("AUM00011035-data.txt.gz"))
    path = tmp_path / "o.parquet"
    high = table[table["pressure"] <= 1000.0]
    assert len(high) == 3320
    for variables in (["z", "t", "u"], ["t"], ["u"]):
        write_table(high[high["variable"].isin(variables)], path)
        assert set(read_observations(path)["variable"]) == set(variables)
    for variables in (["z"], ["t", "v"]):
        wrong = table.assign(pressure=table["pressure"] / 100)[table["variable"].isin(variables)]
        write_table(wrong, path)
        with pytest.raises(ValueError, match=r"o\.parquet: column 'pressure': .*, expected Pa \(these look like hPa\)"):
            read_observations(path)


def test_unknown_content_is_refused_by_name(tmp_path):
    for name, data in {"a.csv": b"time,latitude\n", "c.bufr": b"GRIB" * 9}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=f"{name}: found a file that starts with .*expected IGRA 2"):
            read_observations(tmp_path / name)
    for name, data, message in (
        ("none", b"", "none: found an empty file"),
        ("none.gz", gzip.compress(b""), "none.gz: found nothing in the archive"),
        ("wide.txt", "#AUM00011035".encode("utf-16"), "wide.txt: found text in UTF-16"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=message):
            read_observations(tmp_path / name)
    with pytest.raises(ValueError, match="found a URL, expected a file on this machine"):
        read_observations("https://example.org/x.parquet")
    with pytest.raises(ValueError, match="directory"):
        read_observations([tmp_path])
    with pytest.raises(FileNotFoundError):
        read_observations(tmp_path / "absent")
    with pytest.raises(ValueError, match="no files"):
        read_observations([])


def test_several_files_make_one_table(tmp_path):
    write_table(table(), tmp_path / "1.parquet")
    write_table(table(station=["c", "c", "d"]), tmp_path / "2.parquet")
    both = read_observations([tmp_path / "1.parquet", tmp_path / "2.parquet"])
    validate(both)
    assert both["station"].tolist() == ["a", "a", "b", "c", "c", "d"]


def test_saturation_vapour_pressure_meets_published_values():
    """Wexler–Goff–Gratch values over water, hPa, of the Smithsonian Meteorological Tables."""
    published = {-30.0: 0.5088, -10.0: 2.8627, 0.0: 6.1078, 20.0: 23.373, 35.0: 56.236}
    for celsius, hectopascal in published.items():
        found = saturation_vapour_pressure(np.array([celsius + 273.15]))[0]
        assert found == pytest.approx(100 * hectopascal, rel=6e-3)


def test_specific_humidity_meets_the_mixing_ratio_identity():
    e, p = np.array([2337.0, 50.0, 0.0]), np.array([101325.0, 30000.0, 50000.0])
    mixing_ratio = 0.62198 * e / (p - e)
    np.testing.assert_allclose(specific_humidity(e, p), mixing_ratio / (1 + mixing_ratio), rtol=1e-12)
    assert np.isnan(specific_humidity(np.array([200.0, -1.0]), np.array([100.0, 100.0]))).all()


def test_winds_blow_from_their_direction():
    u, v = wind_components(np.array([0.0, 90, 180, 270, 360, np.nan]), np.array([1.0, 1, 1, 1, 1, 0]))
    np.testing.assert_allclose(u, [0, -1, 0, 1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(v, [-1, 0, 1, 0, -1, 0], atol=1e-12)


def test_default_errors_fill_only_what_is_missing():
    filled = assign_errors(table(quality=[0, 0, 0]))
    assert filled["obs_error"].tolist() == pytest.approx([8.4 * 9.80665, 1.0, 1.5])
    unplaced = assign_errors(table(pressure=[np.nan] * 3, quality=[10, 10, 0], obs_error=[np.nan] * 3))
    assert unplaced["obs_error"].isna().tolist() == [True, True, False]
    validate(unplaced)


def test_default_errors_are_continuous_and_clamped():
    assert default_error("t", 85000.0) == pytest.approx(1.25)
    middle = default_error("u", np.sqrt(50000.0 * 40000.0))
    assert middle == pytest.approx((2.1 + 2.5) / 2)
    np.testing.assert_allclose(default_error("v", [108000.0, 500.0]), [1.8, 2.7])
    with pytest.raises(ValueError, match="unknown variable"):
        default_error("rh", 50000.0)


def test_humidity_error_is_fifteen_percent_of_saturation_in_the_standard_atmosphere():
    """Below 250 hPa, where humidity counts; ICAO: 288.15 K at 1013.25 hPa, 6.5 K/km."""
    for level in (p for p in LEVELS_HPA if p >= 250):
        temperature = 288.15 * (level / 1013.25) ** (287.053 * 6.5e-3 / 9.80665)
        saturated = specific_humidity(saturation_vapour_pressure(np.array([temperature])), np.array([100.0 * level]))
        assert default_error("q", 100.0 * level) == pytest.approx(0.15 * saturated[0], rel=0.1)


def test_flags_keep_the_numbers_of_the_unified_forward_operator():
    numbers = {"PASS": 0, "PASSIVE": 1, "MISSING": 10, "BOUNDS": 12, "DOMAIN": 13, "DENIED": 14}
    numbers |= {"OPERATOR_FAILED": 15, "THINNED": 16, "BACKGROUND": 19}
    assert {name: int(Flag[name]) for name in numbers} == numbers

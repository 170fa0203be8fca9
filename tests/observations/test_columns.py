"""Tables of other layouts: one decoded by hand in several dresses, errors carried over, and what is refused."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genda.observations import Flag, check_duplicates, read_observations, validate
from genda.observations.column_map import column_map, read_column_map

MAP = {
    "source": "tower",
    "station": "id",
    "time": {"column": "when", "format": "%d.%m.%Y %H:%M"},
    "latitude": "lat",
    "longitude": "lon",
    "elevation": {"column": "alt", "units": "ft"},
    "pressure": {"column": "p", "units": "hPa"},
    "missing": [-9999, "M"],
    "quantities": {
        "temperature": {"column": "t", "units": "degC", "error": 0.5},
        "dewpoint_depression": {"column": "dd", "units": "K", "error": 1.0},
        "wind_direction": {"column": "dir", "units": "degrees", "error": 5},
        "wind_speed": {"column": "ff", "units": "kt", "error": "ff_sd"},
        "height": {"column": "h", "units": "dam", "error": 1},
    },
}
CSV = """id,when,lat,lon,alt,p,t,dd,dir,ff,ff_sd,h,remark
A1,03.04.2020 12:00,50.0,-10.0,1000,850.0,5.0,3.0,270,20,2,150,fine
A1,03.04.2020 12:00,50.0,-10.0,1000,500.0,M,-9999,-9999,-9999,,560,
B2,03.04.2020 13:30,-30.0,-350.0,,700.0,-2.0,,925,10,1,M,
"""
LONG_MAP = {k: v for k, v in MAP.items() if k != "quantities"} | {
    "long": {
        "name": "what",
        "value": "value",
        "error": "sd",
        "quantities": {
            "TMP": {"quantity": "temperature", "units": "degC"},
            "DIR": {"quantity": "wind_direction", "units": "degrees"},
            "SPD": {"quantity": "wind_speed", "units": "kt"},
        },
    }
}
G, KNOT = 9.80665, 1852 / 3600


def written(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def by_key(table: pd.DataFrame) -> dict[tuple[str, float, str], tuple[float, float, int]]:
    validate(table)
    columns = ("station", "pressure", "variable", "observation", "obs_error", "quality")
    return {row[:3]: row[3:] for row in zip(*(table[c] for c in columns), strict=True)}


def check(table: pd.DataFrame) -> None:
    """Against arithmetic on paper."""
    found = by_key(table)
    assert len(found) == 9
    assert found["A1", 85000.0, "t"][:2] == pytest.approx((278.15, 0.5))
    assert found["A1", 85000.0, "z"][:2] == pytest.approx((1500 * G, 10 * G))
    assert found["A1", 50000.0, "z"][0] == pytest.approx(5600 * G)
    u, v = found["A1", 85000.0, "u"], found["A1", 85000.0, "v"]
    assert u[:2] == pytest.approx(
        (20 * KNOT, 2 * KNOT)
    )  # from the west: the speed's error lies along u, the turn's along v
    assert v[:2] == pytest.approx((0.0, 20 * KNOT * math.radians(5)), abs=1e-9)
    e, slope = 6.112 * math.exp(17.67 * 2 / 245.5), 17.67 * 243.5 / 245.5**2  # Bolton's formula
    assert found["A1", 85000.0, "q"][0] == pytest.approx(0.622 * e / (850 - 0.378 * e), rel=5e-3)
    assert found["A1", 85000.0, "q"][1] == pytest.approx(
        0.622 * 850 * e * slope * math.hypot(0.5, 1.0) / (850 - 0.378 * e) ** 2, rel=1e-2
    )
    assert found["B2", 70000.0, "t"][:2] == pytest.approx((271.15, 0.5))
    assert found["B2", 70000.0, "u"][2] == Flag.BOUNDS  # a direction of 925 degrees
    first = table.iloc[0]
    assert (first["time"], first["longitude"], first["source"]) == (pd.Timestamp("2020-04-03 12:00"), 350.0, "tower")
    assert first["elevation"] == pytest.approx(304.8)
    assert table[table["station"] == "B2"]["longitude"].eq(10.0).all()
    assert table[table["station"] == "B2"]["elevation"].isna().all()


def test_csv_parquet_and_netcdf_of_the_same_table_agree_with_arithmetic(tmp_path):
    path = written(tmp_path / "t.csv", CSV)
    table = read_observations(path, columns=MAP)
    check(table)
    (tmp_path / "t.gz").write_bytes(gzip.compress(path.read_bytes()))
    pd.testing.assert_frame_equal(read_observations(tmp_path / "t.gz", columns=MAP), table)
    frame = pd.read_csv(path, na_values=["M"])
    frame.to_parquet(tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(read_observations(tmp_path / "t.parquet", columns=MAP), table)
    records = frame.rename_axis("record")[list(column_map(MAP).columns)]
    for name, options in (
        ("h5.nc", {"engine": "h5netcdf"}),
        ("c.nc", {"engine": "scipy", "format": "NETCDF3_CLASSIC"}),
    ):
        dataset = xr.Dataset.from_dataframe(records)
        dataset = dataset.map(lambda v: v.astype("S16") if v.dtype.kind in "OUT" else v)
        dataset.to_netcdf(tmp_path / name, **options)
        pd.testing.assert_frame_equal(read_observations(tmp_path / name, columns=MAP), table)


def test_stations_keep_names_that_look_like_missing_values(tmp_path):
    table = read_observations(written(tmp_path / "t.csv", CSV.replace("A1", "NA")), columns=MAP)
    assert set(table["station"]) == {
        name.replace("A1", "NA") for name in read_observations(written(tmp_path / "a.csv", CSV), columns=MAP)["station"]
    }


def test_stations_without_a_name_are_not_one_station(tmp_path):
    text = (
        CSV.replace("A1", "")
        .replace("B2", "")
        .replace("03.04.2020 13:30", "03.04.2020 12:00")
        .replace(",700.", ",850.")
    )
    table = check_duplicates(read_observations(written(tmp_path / "t.csv", text), columns=MAP))
    assert set(table["station"]) == {"50.0000,350.0000", "-30.0000,10.0000"}
    assert Flag.DUPLICATE not in set(table["quality"])


def test_whole_numbers_name_stations_and_flags_though_some_are_missing(tmp_path):
    good = {
        "quantities": {"temperature": MAP["quantities"]["temperature"] | {"good": {"column": "flag", "values": [1]}}}
    }
    frame = pd.read_csv(written(tmp_path / "t.csv", CSV), na_values=["M"])
    frame.assign(id=[11035.0, 11035.0, np.nan], flag=[1.0, np.nan, 2.0]).to_parquet(tmp_path / "t.parquet")
    table = read_observations(tmp_path / "t.parquet", columns=MAP | good)
    assert table["station"].tolist() == ["11035", "-30.0000,10.0000"]
    assert table["quality"].tolist() == [Flag.PASS, Flag.DENIED]


@pytest.mark.parametrize(
    "dress",
    [
        lambda text: text.replace("\n", ",\n").replace("remark,", "remark", 1),  # a comma ends each row, not the names
        lambda text: text.replace("\n", ",\n"),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\n\n" + text.replace("\n", "\n\n"),
        lambda text: "\ufeff" + text,
        lambda text: text.replace("remark", "fine\0"),
        lambda text: text.replace(",remark", ',"re, mark"').replace("fine", '"f,i\nne"'),
        lambda text: text + "A1,03.04.2020 12:00\n",
    ],
)
def test_dress_that_changes_nothing(tmp_path, dress):
    check(read_observations(written(tmp_path / "t.csv", dress(CSV)), columns=MAP))


def test_dressed_csv(tmp_path):
    other = "Überschrift\n" + CSV.replace(".", "·").replace(",", ";").replace("·", ",")
    other = other.replace("03,04,", "03.04.")
    dressed = MAP | {"encoding": "latin-1", "separator": ";", "decimal": ",", "skip_rows": 1}
    check(read_observations(written(tmp_path / "t.csv", other, "latin-1"), columns=dressed))
    check(read_observations(written(tmp_path / "t.csv", CSV, "utf-16"), columns=MAP | {"encoding": "utf-16"}))
    for text, encoding in (
        (CSV.replace("A1", "Ä1"), "latin-1"),
        (CSV.replace("fine", "ö"), "latin-1"),
        (CSV, "utf-16"),
    ):
        with pytest.raises(ValueError, match=r"t\.csv: found text that is not utf-8"):
            read_observations(written(tmp_path / "t.csv", text, encoding), columns=MAP)


def test_long_tables_pair_direction_and_speed_and_keep_duplicates(tmp_path):
    rows = ["id,when,lat,lon,alt,p,what,value,sd"]
    place = "A1,03.04.2020 12:00,50.0,-10.0,1000,850.0"
    rows += [f"{place},{what}" for what in ("SPD,20,2", "TMP,5.0,0.5", "RAIN,1,", "DIR,270,5", "TMP,6.0,0.5", "TMP,M,")]
    table = read_observations(written(tmp_path / "l.csv", "\n".join(rows)), columns=LONG_MAP)
    validate(table)
    assert table["variable"].tolist() == ["t", "u", "v", "t"]
    np.testing.assert_allclose(table["observation"], [278.15, 20 * KNOT, 0, 279.15], atol=1e-9)
    np.testing.assert_allclose(table["obs_error"], [0.5, 2 * KNOT, 20 * KNOT * math.radians(5), 0.5], atol=1e-9)


def test_everything_reported_gives_a_row_or_is_counted(tmp_path):
    surface = {k: v for k, v in MAP.items() if k not in ("pressure", "elevation", "quantities")} | {
        "missing": [-9999, "M"]
    }
    quantities = {
        "temperature": {"column": "t", "units": "degC", "error": "sd"},
        "relative_humidity": {"column": "rh", "units": "%"},
        "wind_speed": {"column": "ff", "units": "m/s"},
    }
    place = "A1,03.04.2020 12:00,50.0,-10.0"
    rows = ["id,when,lat,lon,t,sd,rh,ff", f"{place},5,0,80,3", f"{place},M,1,70,0", f"{place},-9999,,,2", f"{place}"]
    path = written(tmp_path / "s.csv", "\n".join(rows))
    table = read_observations(path, columns=surface | {"quantities": quantities})
    assert table["variable"].tolist() == ["t2m", "u10", "v10"]  # a calm has no direction
    counts = {
        "error of temperature: 0 says nothing": 1,
        "temperature: empty or declared missing": 3,
        "relative_humidity: empty or declared missing": 2,
        "relative_humidity: needs a pressure": 2,
        "wind_speed: empty or declared missing": 1,
        "wind_speed: needs wind_direction": 2,
    }
    assert table.attrs["not_stored"] == counts
    assert read_observations([path, path], columns=surface | {"quantities": quantities}).attrs["not_stored"] == {
        reason: 2 * number for reason, number in counts.items()
    }
    humid = surface | {"quantities": {"relative_humidity": quantities["relative_humidity"]}}
    with pytest.raises(ValueError, match=r"found no rows \(not stored: relative_humidity: needs a pressure \(2\)"):
        read_observations(path, columns=humid)


def test_rows_of_long_tables_that_give_nothing_are_counted(tmp_path):
    rows = ["id,when,lat,lon,alt,p,what,value,sd"]
    place = "A1,03.04.2020 12:00,50.0,-10.0,1000,850.0"
    rows += [
        f"{place},{what}" for what in ("SPD,20,2", "TMP,5.0,0.5", "RAIN,1,", "RAIN,M,", "TMP,M,", "TMP,,", "DIR,-9999,")
    ]
    table = read_observations(written(tmp_path / "l.csv", "\n".join(rows)), columns=LONG_MAP)
    assert table["variable"].tolist() == ["t"]
    assert table.attrs["not_stored"] == {
        "element RAIN: not in the map": 2,
        "TMP: empty or declared missing": 2,
        "DIR: empty or declared missing": 1,
        "wind_speed: needs wind_direction": 1,
    }


def test_surface_stations_constants_and_denied_values(tmp_path):
    given = {
        "source": "net", "station": {"value": "X"}, "time": "t", "latitude": {"value": 1.5}, "longitude": {"value": 2},
        "quantities": {
            "temperature": {"column": "tf", "units": "degF", "good": {"column": "flag", "values": ["V"]}},
            "pressure_at_sea_level": {"column": "slp", "units": "inHg"},
            "u": {"column": "u", "units": "mph"},
        },
    }  # fmt: skip
    text = "t,tf,flag,slp,u\n2020-01-01T00:00Z,32,V,29.92,10\n2020-01-01T01:00+01:00,50,X,30,\n"
    table = read_observations(written(tmp_path / "s.csv", text), columns=given)
    assert table["variable"].tolist() == ["t2m", "u10", "msl", "t2m", "msl"]
    np.testing.assert_allclose(table["observation"], [273.15, 4.4704, 101320.7, 283.15, 101591.7], atol=0.1)
    assert table["quality"].tolist() == [0, 0, 0, Flag.DENIED, 0]
    assert (table["time"] == pd.Timestamp("2020-01-01")).all()
    assert table[["latitude", "longitude", "station"]].drop_duplicates().to_numpy().tolist() == [[1.5, 2.0, "X"]]


def madis(times: list[float]) -> xr.Dataset:
    """Three records as MADIS writes its mesonet files."""

    def record(values: list[object], **attributes: str) -> tuple[str, np.ndarray, dict[str, str]]:
        return ("recNum", np.array(values), attributes)

    return xr.Dataset(
        {
            "stationId": record([b"KABQ", b"E1234", b"KABQ"]),
            "observationTime": record(times, units="seconds since 1970-1-1 00:00:00.0"),
            "latitude": record([35.0, 36.0, 35.0]),
            "longitude": record([-106.6, -105.0, -106.6]),
            "elevation": record([1620.0, 2000.0, 1620.0], units="meter"),
            "temperature": record([290.0, 280.0, np.nan], units="kelvin"),
            "temperatureDD": record([b"V", b"X", b"Z"]),
            "windDir": record([180.0, 90.0, 0.0], units="degree"),
            "windDirDD": record([b"S", b"S", b"S"]),
            "windSpeed": record([5.0, 2.0, 0.0], units="meter/sec"),
            "windSpeedDD": record([b"S", b"S", b"S"]),
            "seaLevelPressure": record([101300.0, np.nan, np.nan], units="pascal"),
            "seaLevelPressureDD": record([b"C", b"Z", b"Z"]),
        }
    )


def test_madis_files_need_no_map(tmp_path):
    madis([1.6e9, 1.6e9 + 60, 1.6e9 + 120]).to_netcdf(tmp_path / "m.nc", engine="scipy", format="NETCDF3_CLASSIC")
    (tmp_path / "m.gz").write_bytes(gzip.compress((tmp_path / "m.nc").read_bytes()))
    table = read_observations(tmp_path / "m.gz")
    validate(table)
    assert table["source"].eq("madis-mesonet").all()
    assert table["time"].iloc[0] == pd.Timestamp(1.6e9, unit="s")
    assert table["variable"].tolist() == ["t2m", "u10", "v10", "msl", "t2m", "u10", "v10", "u10", "v10"]
    np.testing.assert_allclose(table["observation"], [290, 0, 5, 101300, 280, -2, 0, 0, 0], atol=1e-12)
    assert table["quality"].tolist() == [0, 0, 0, 0, Flag.DENIED, 0, 0, 0, 0]
    assert table["station"].unique().tolist() == ["KABQ", "E1234"]
    xr.Dataset({"t": ("x", [1.0])}).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match=r"other\.nc: found netCDF variables 't', expected MADIS's or a column map"):
        read_observations(tmp_path / "other.nc")


def test_units_of_a_file_are_kept_to(tmp_path):
    """A quarter turn is 90°; what the map says otherwise than the file is refused, what only one of them says is believed."""
    given = {k: MAP[k] for k in ("source", "station")} | {
        "time": {"column": "t", "units": "hours since 1970-01-01"}, "latitude": "lat", "longitude": "lon",
        "quantities": {"temperature": {"column": "tas", "units": "degC"}},
    }  # fmt: skip

    def read(**units: str | None) -> pd.DataFrame:
        values = {"id": b"A", "t": 24.0, "lat": math.pi / 4, "lon": -math.pi / 2, "tas": 7.0}
        attributes = {name: {"units": text} for name, text in units.items() if text is not None}
        records = {name: ("n", np.array([value]), attributes.get(name, {})) for name, value in values.items()}
        xr.Dataset(records).to_netcdf(tmp_path / "u.nc", engine="h5netcdf")
        return read_observations(tmp_path / "u.nc", columns=given)

    turned = read(lat="radians", lon="radian", tas="°C", t="hours since 1970-1-1 00:00")
    assert turned[["latitude", "longitude"]].to_numpy()[0] == pytest.approx([45.0, 270.0])
    assert turned["observation"].tolist() == [280.15]
    assert turned["time"].tolist() == [pd.Timestamp("1970-01-02")]
    assert read(lat="degrees_north", tas="of our own")["latitude"].tolist() == [math.pi / 4]
    for units, message in (
        ({"tas": "K"}, "column 'tas': found units 'K' in the file, expected 'degC' as in the map"),
        (
            {"t": "days since 1970-01-01"},
            "time: found units 'days since 1970-01-01' in the file, expected 'hours since",
        ),
        ({"lat": "m"}, "column 'lat': found units 'm' for latitude, expected one of degree, radians"),
    ):
        with pytest.raises(ValueError, match=rf"u\.nc: {message}"):
            read(**units)
    path = tmp_path / "u.nc"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"u\.nc: found no readable netCDF \(.*\), expected a whole table"):
        read_observations(path, columns=given)


REFUSED = {
    "no column": (CSV.replace("dir,", "direction,"), "no column 'dir' among 'id', 'when', .* and 1 more, expected"),
    "text": (CSV.replace(",5.0,3.0", ",warm,3.0"), "row 1: column 't': found 'warm', expected a number"),
    "infinity": (CSV.replace(",5.0,3.0", ",inf,3.0"), "row 1: column 't': found 'inf', expected a number"),
    "date": (CSV.replace("03.04.2020 13:30", "31.04.2020 13:30"), r"row 3: found time '31\.04\.2020 13:30', expected %d"),
    "latitude": (CSV.replace("-30.0", "-130.0"), "row 3: found latitude -130, expected degrees within ±90"),
    "kelvin": (CSV.replace(",5.0,3.0", ",278.0,3.0").replace(",-2.0", ",271.0"), "found 551.15 K for temperature at 850 hPa"),
    "pascals": (CSV.replace(",850.0,", ",8.5,").replace(",500.0,", ",5,").replace(",700.0,", ",7,"), "these look like hPa"),
    "twice": (CSV.replace("remark", "t"), "found column 't' 2 times, expected it once"),
    "more": (CSV.replace("fine", "fine,5"), "row 1: found '5.*' beyond the last column, expected a cell for each name"),
    "decimal comma": (CSV.replace("0.0,", "0,0,"), "row 1: found .* beyond the last column"),
    "truth": (CSV.replace(",5.0,3.0", ",True,3.0"), "row 1: column 't': found 'True', expected a number"),
    "no time": (CSV.replace("03.04.2020 13:30", ""), "row 3: found no time, expected %d"),
    "year": (CSV.replace("03.04.2020 13:30", "03.04.1020 13:30"), r"row 3: found time '03\.04\.1020 13:30', expected %d"),
    "quote": (CSV.replace("fine", '"fine'), "no readable CSV .*EOF inside string"),
    "metres": (CSV.replace(",560,", ",5600,").replace(",150,", ",1500,"), "m2 s-2 for geopotential at .* in the map"),
    "undeclared": (CSV.replace(",M,-9999", ",-8888,-9999").replace(",-2.0,", ",-8888,"), "found -8614.85 K for temperature at "),
    "other separator": (CSV.replace(",", ";"), r"no column 'id' among 'id;when;lat;lon;.*separator is ','\)"),
    "error": (CSV.replace(",20,2,", ",20,-2,"), "row 1: found error 'ff_sd' -2, expected a standard deviation, not below 0"),
    "empty": ("id,when\n", "no column 'lat'"),
    "blank": ("\n\n", "no readable CSV"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("units", "message"), [("Pa", "no value above 850, expected Pa"), ("kPa", "median pressure of 850000 Pa")]
)
def test_wrong_units_of_pressure_are_told_by_what_stands_beside(tmp_path, units, message):
    path = written(tmp_path / "t.csv", CSV)
    with pytest.raises(ValueError, match=message):
        read_observations(path, columns=MAP | {"pressure": {"column": "p", "units": units}})


def test_errors_of_pressure_reach_humidity(tmp_path):
    """q = ε e / (p − (1 − ε) e), so that ∂q/∂p = −q / (p − (1 − ε) e); of an altitude by ∂p/∂h = −ρ g."""
    text = CSV.replace("p,t,", "p,psd,t,", 1).replace("850.0,", "850.0,1.5,").replace("500.0,", "500.0,,")
    path = written(tmp_path / "t.csv", text.replace("700.0,", "700.0,,"))
    e = 6.112 * math.exp(17.67 * 2 / 245.5)
    slope = 0.622 * e / (850 - 0.378 * e) ** 2

    def variance(error: object, units: str = "hPa", text: Path = path) -> float:
        pressure = {"column": "p", "units": units} | ({"error": error} if error else {})
        table = read_observations(text, columns=MAP | {"pressure": pressure})
        return float(table["obs_error"][table["variable"] == "q"].iloc[0] ** 2)

    assert variance(1.5) - variance(None) == pytest.approx((1.5 * slope) ** 2, rel=1e-2)
    assert variance("psd") == variance(1.5)
    altitudes = {"850.0": "1457.3", "500.0": "5574.4", "700.0": "3012.2"}
    high = path.read_text()
    for hectopascal, metres in altitudes.items():
        high = high.replace(hectopascal, metres)
    aloft = written(tmp_path / "h.csv", high)
    density = 85000 / (287.05 * (288.15 - 6.5 * 1.4573))
    hectopascals = density * G * 30 / 100
    assert variance(30.0, "m", aloft) - variance(None, "m", aloft) == pytest.approx(
        (hectopascals * slope) ** 2, rel=1e-2
    )


@pytest.mark.parametrize("name", REFUSED)
def test_one_line_for_what_cannot_be_read(tmp_path, name):
    text, message = REFUSED[name]
    path = written(tmp_path / "bad.csv", text)
    with pytest.raises(ValueError, match=message) as error:
        read_observations(path, columns=MAP)
    assert "bad.csv" in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    "text",
    [
        "2020",
        "1585915200",
        "04/03/2020 12:00",
        "2020-04-31",
        "2020-04-03T25:00",
        "1020-04-03",
        "2520-04-03",
        "M",
        "",
        "now",
        "today",
    ],
)
def test_times_are_never_guessed(tmp_path, text):
    given = MAP | {"time": "when"}
    path = written(tmp_path / "t.csv", CSV.replace("03.04.2020 ", "2020-04-03T").replace("2020-04-03T13:30", text))
    with pytest.raises(
        ValueError, match=r"row 3: found (no )?time.*, expected an ISO 8601 time, or its format in the map"
    ):
        read_observations(path, columns=given)
    formatted = written(tmp_path / "f.csv", CSV.replace("03.04.2020 13:30", "today"))
    with pytest.raises(ValueError, match="row 3: found time 'today', expected %d"):
        read_observations(formatted, columns=MAP)


def test_nothing_readable_says_why(tmp_path):
    path = written(tmp_path / "t.csv", CSV.replace("03.04.2020", "soon"))
    lost: list[str] = []
    with pytest.raises(ValueError, match=r"found nothing that could be read: .*row 1: found time 'soon 12:00'"):
        read_observations(path, columns=MAP, on_loss=lost.append)
    assert len(lost) == 4  # three rows, and the file that has none left


def test_rows_that_cannot_be_read_may_be_passed_over(tmp_path):
    bad = CSV.replace(",5.0,3.0", ",warm,3.0").replace("-30.0", "-130.0")
    lost: list[str] = []
    table = read_observations(written(tmp_path / "t.csv", bad), columns=MAP, on_loss=lost.append)
    assert table["variable"].tolist() == ["z"]
    assert [line.split(": ")[1] for line in lost] == ["row 1", "row 3"]


TWICE = LONG_MAP["long"]["quantities"] | {"TAIR": {"quantity": "temperature", "units": "K"}}
BAD_MAPS = {
    "found 'TAIR' and 'TMP', expected temperature once": LONG_MAP | {"long": LONG_MAP["long"] | {"quantities": TWICE}},
    "found 'geopotential' and 'height', expected geopotential once": MAP
    | {"quantities": {"height": {"column": "h"}, "geopotential": {"column": "phi"}}},
    "station: found 2019, expected text": MAP | {"station": {"value": 0o3743}},
    "pressure.error": MAP | {"pressure": {"column": "p", "units": "hPa", "error": -1}},
    "quantities.temperature.error: found 0, expected a standard deviation above 0 or the name": MAP
    | {"quantities": {"temperature": {"column": "t", "error": 0}}},
    "quantities.temperature.error": MAP | {"quantities": {"temperature": {"column": "t", "error": -1.0}}},
    "latitude.error: unknown key": MAP | {"latitude": {"column": "lat", "error": 1.0}},
    "month must be in": "a: 2020-13-45",
    "found 'a' twice": "{a: 1, a: 2}",
    "quantity 'warmth': expected one of": MAP | {"quantities": {"warmth": {"column": "t"}}},
    "expected either quantities or long": MAP | {"quantities": {}},
    "missing": MAP | {"missing": "M"},
    "latitudes": MAP | {"latitudes": "lat"},
    "quantities.temperature: expected entries of the form 'name: value', found 't'": MAP
    | {"quantities": {"temperature": "t"}},
    "document: expected entries of the form": "[1, 2]",
    "lattitude: unknown key, expected some of": {k: v for k, v in MAP.items() if k != "latitude"}
    | {"lattitude": "lat"},
    "delimiter: unknown key, expected some of": MAP | {"delimiter": ";"},
    "either a column or a value": MAP | {"latitude": {}},
}


@pytest.mark.parametrize("message", BAD_MAPS)
def test_one_line_for_a_wrong_map(tmp_path, message):
    path = tmp_path / "map.yaml"
    bad = BAD_MAPS[message]
    path.write_text(bad if isinstance(bad, str) else yaml.safe_dump(bad))
    with pytest.raises(ValueError, match=r"map\.yaml") as error:
        read_column_map(path)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    units = MAP | {"quantities": {"temperature": {"column": "t", "units": "degrees"}}}
    with pytest.raises(ValueError, match=r"column 't': found units 'degrees' for temperature, expected one of K, degC"):
        read_observations(written(tmp_path / "t.csv", CSV), columns=units)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["csv", "nc", "h5", "parquet"]),
    edits=st.lists(st.tuples(st.integers(0, 100_000), st.integers(0, 255)), min_size=1, max_size=6),
    keep=st.floats(0.2, 1.5),
    passed=st.booleans(),
)
def test_mutated_bytes_give_a_valid_table_or_one_error(tmp_path, kind, edits, keep, passed):
    path = tmp_path / f"good.{kind}"
    given_map = MAP if kind in ("csv", "parquet") else None
    if not path.exists():
        options = {"engine": "scipy", "format": "NETCDF3_CLASSIC"} if kind == "nc" else {"engine": "h5netcdf"}
        if kind == "csv":
            path.write_text(CSV)
        elif kind == "parquet":
            pd.read_csv(written(tmp_path / "x.csv", CSV), na_values=["M"]).to_parquet(path)
        else:
            madis([0.0, 1.0, 2.0]).to_netcdf(path, **options)
    data = bytearray(path.read_bytes())
    for position, value in edits:
        data[position % len(data)] = value
    fuzzed = tmp_path / "fuzz.bin"
    fuzzed.write_bytes(bytes(data[: int(keep * len(data))]))
    lost: list[str] = []
    try:
        table = read_observations(fuzzed, columns=given_map, on_loss=lost.append if passed else None)
    except ValueError as error:
        lost.append(str(error))
    else:
        if len(table):
            validate(table)
    assert all("fuzz.bin" in line and len(line.splitlines()) == 1 for line in lost)


def test_text_of_a_parquet_file_that_is_no_utf8_is_one_line(tmp_path):
    pd.read_csv(written(tmp_path / "x.csv", CSV), na_values=["M"]).to_parquet(tmp_path / "t.parquet", compression=None)
    data = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "t.parquet").write_bytes(data.replace(b"03.04.2020 12:00", b"03.04.2020 \xff2:00"))
    with pytest.raises(ValueError, match=r"t\.parquet: found no readable Parquet table \(.*UTF8"):
        read_observations(tmp_path / "t.parquet", columns=MAP)

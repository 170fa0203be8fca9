"""IGRA 2: values decoded by hand from the format description, damage, and the real Vienna file read independently."""

from __future__ import annotations

import gzip
import math
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.shared_data import shared

from genda.observations import Flag, igra, read_igra, read_observations, read_station_list, summary, validate
from genda.observations.period import Period
from genda.observations.stations import shipped_stations

G = 9.80665
HEADER = "#AUM00011035 2015 01 23 12 1134 {n:4d} ncdc-gts           482333   163500"
LEVELS = [
    "21 -9999  99200B-9999    38B-9999    22   300    50 ",
    "10 -9999  85000  1441B  -15B-9999     2    20   100 ",
    "20 -9999  73700 -9999 -9999 -9999 -9999    30    80 ",
    "10 -9999  50000  5470B -265B-8888 -8888   140 -8888 ",
    "20 -9999  40000 -9999  -300B  250 -9999     0     0 ",
]


def sounding(levels: list[str] | None = None, header: str = HEADER) -> str:
    lines = LEVELS if levels is None else levels
    return "\n".join([header.format(n=len(lines)), *lines]) + "\n"


def written(path: Path, text: str) -> Path:
    path.write_bytes(text.encode("latin-1"))
    return path


def row(table: pd.DataFrame, variable: str, pressure: float) -> pd.Series:
    found = table[(table["variable"] == variable) & (table["pressure"] == pressure)]
    assert len(found) == 1
    return found.iloc[0]


def tetens_specific_humidity(dewpoint_celsius: float, pressure: float) -> float:
    """An independent saturation formula (Bolton 1980), good to 0.3 % between −35 and 35 °C."""
    e = 611.2 * math.exp(17.67 * dewpoint_celsius / (dewpoint_celsius + 243.5))
    return 0.622 * e / (pressure - 0.378 * e)


def test_reads_a_sounding_decoded_by_hand(tmp_path):
    table = read_igra(written(tmp_path / "s.txt", sounding()))
    validate(table)
    counts = {"z": 2, "t": 4, "u": 4, "v": 4, "q": 3}
    assert summary(table) == {
        "rows": 17, "stations": 1, "soundings": 1, "variables": counts, "flags": {"pass": 17},
        "levels": {"surface": 4, "standard": 7, "significant": 6},
    }  # fmt: skip
    assert (table["time"] == pd.Timestamp("2015-01-23 12:00")).all()
    assert (table["latitude"] == 48.2333).all()
    assert (table["longitude"] == 16.35).all()
    assert (table["elevation"] == 200.0).all()  # from the station list; the file has none
    assert (table["station"] == "AUM00011035").all()
    assert row(table, "z", 85000)["observation"] == pytest.approx(1441 * G)
    assert row(table, "t", 85000)["observation"] == pytest.approx(273.15 - 1.5)
    assert row(table, "u", 85000)["observation"] == pytest.approx(-10 * math.sin(math.radians(20)))
    assert row(table, "v", 85000)["observation"] == pytest.approx(-10 * math.cos(math.radians(20)))
    assert row(table, "q", 85000)["observation"] == pytest.approx(tetens_specific_humidity(-1.7, 85000), rel=4e-3)
    # 300 degrees is from the west-north-west: the wind blows towards east and south.
    assert row(table, "u", 99200)["observation"] > 0 > row(table, "v", 99200)["observation"]
    # Relative humidity stands in where there is no dew point; calm needs no direction.
    saturated = tetens_specific_humidity(-30.0, 40000)
    assert row(table, "q", 40000)["observation"] == pytest.approx(0.25 * saturated, rel=1e-2)
    assert row(table, "u", 40000)["observation"] == row(table, "v", 40000)["observation"] == 0


def test_keeps_what_it_cannot_use_and_says_why(tmp_path):
    levels = [
        "30 -9999  -9999   500   100B-9999    50    90   100 ",  # height level: no pressure
        "20 -9999  70000 -9999 -9999 -9999 -9999   925   100 ",  # no such direction
        "20 -9999      0 -9999    10 -9999 -9999 -9999 -9999 ",  # no such pressure
        "20 -9999  30000 -9999    10B-9999   -99    90   -10 ",  # negative speed
    ]
    table = read_igra(written(tmp_path / "s.txt", sounding(levels)))
    validate(table)
    flags = table.groupby("variable")["quality"].apply(list).to_dict()
    assert flags["z"] == [Flag.MISSING]
    assert flags["u"] == flags["v"] == [Flag.MISSING, Flag.BOUNDS, Flag.BOUNDS]
    assert flags["t"] == [Flag.MISSING, Flag.BOUNDS, Flag.PASS]
    assert flags["q"] == [Flag.MISSING, Flag.PASS]


def test_release_time_stands_in_for_a_missing_hour(tmp_path):
    for replaced, expected in (("99 1134", "11:34"), ("99 1199", "11:00"), ("06 9999", "06:00")):
        text = sounding(header=HEADER.replace("12 1134", replaced))
        table = read_igra(written(tmp_path / "s.txt", text))
        assert (table["time"] == pd.Timestamp(f"2015-01-23 {expected}")).all()
        assert (table["quality"] == Flag.PASS).all()
    table = read_igra(written(tmp_path / "s.txt", sounding(header=HEADER.replace("12 1134", "99 9999"))))
    validate(table)
    assert (table["quality"] == Flag.MISSING).all()


def test_archives_line_ends_and_block_size_do_not_matter(tmp_path, monkeypatch):
    text = sounding() + sounding(LEVELS[:2], HEADER.replace("23 12", "24 00")) + sounding(LEVELS[1:])
    plain = read_igra(written(tmp_path / "plain.txt", text))
    with gzip.open(tmp_path / "s.gz", "wb") as stream:
        stream.write(text.encode())
    with zipfile.ZipFile(tmp_path / "s.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("AUM00011035-data.txt", text)
    for other in (tmp_path / "s.gz", tmp_path / "s.zip"):
        pd.testing.assert_frame_equal(read_igra(other), plain)
    for changed in (text.replace("\n", "\r\n"), text.replace(" \n", "\n"), text.removesuffix("\n")):
        pd.testing.assert_frame_equal(read_igra(written(tmp_path / "changed.txt", changed)), plain)
    monkeypatch.setattr(igra, "_BLOCK", 97)
    pd.testing.assert_frame_equal(read_igra(tmp_path / "s.gz"), plain)


def test_a_period_keeps_its_soundings_alone(tmp_path):
    text = sounding() + sounding(LEVELS[:2], HEADER.replace("23 12", "24 00")) + sounding(LEVELS[1:3])
    path = written(tmp_path / "s.txt", text)
    whole = read_igra(path)
    part = read_igra(path, period=(period := Period.of("2015-01-24", "2015-01-25")))
    expected = whole[whole["time"] == "2015-01-24"].reset_index(drop=True)
    assert period.left_out == len(whole) - len(part) > 0 < len(part)
    pd.testing.assert_frame_equal(part, expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("time,latitude\n1,2\n", "line 1: .*expected an IGRA 2 header"),
        (sounding()[:-30], "line 6: .*51 characters"),
        (sounding(LEVELS[:3]).replace("   3 ncdc", "   4 ncdc"), "line 1: .*4 level lines below this header, not 3"),
        (sounding() + sounding(["abc"]), "line 8: found 'abc'"),
        (sounding([LEVELS[0].replace("99200", "99x00")]), "line 2: .*PRESS in columns 10–15"),
        (sounding([LEVELS[0].replace(" 300 ", " 3 0 ")]), "line 2: .*WDIR"),
        (sounding(header=HEADER.replace("01 23", "02 30")), "line 1: .*expected a date"),
        (sounding(header=HEADER.replace("12 1134", "24 1134")), "hour 0–23"),
        (sounding(header=HEADER.replace(" 482333", "9482333")), "latitude within ±90"),
        (sounding(header=HEADER.replace("AUM0", "A M0")), "identifier"),
        (sounding(["41" + LEVELS[0][2:]]), "level types"),
        ("#" * 3000, "header line of 71"),
    ],
)
def test_names_file_line_found_and_expected(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as error:
        read_igra(written(tmp_path / "bad.txt", text))
    assert "bad.txt" in str(error.value)
    assert "\n" not in str(error.value)
    assert "expected" in str(error.value)


def test_damaged_archives(tmp_path):
    whole = gzip.compress(sounding().encode() * 50)
    (tmp_path / "cut.gz").write_bytes(whole[: len(whole) // 2])
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    (tmp_path / "flipped.gz").write_bytes(flipped)
    (tmp_path / "cut.zip").write_bytes(b"PK\x03\x04" + b"\0" * 60)
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a", "x")
        archive.writestr("b", "x")
    members = {"bzip2": zipfile.ZIP_BZIP2, "lzma": zipfile.ZIP_LZMA, "stored": zipfile.ZIP_STORED}
    for name, kind in members.items():
        with zipfile.ZipFile(tmp_path / "x.zip", "w", kind) as archive:
            archive.writestr("data.txt", sounding() * 50)
        pd.testing.assert_frame_equal(
            read_igra(tmp_path / "x.zip"), read_igra(written(tmp_path / "x", sounding() * 50))
        )
        broken = bytearray((tmp_path / "x.zip").read_bytes())
        broken[100] ^= 255
        (tmp_path / f"{name}.zip").write_bytes(broken)
    broken[6] |= 1  # in the local header and the directory: encrypted
    broken[broken.rfind(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "password.zip").write_bytes(broken)
    for name in ("cut.gz", "flipped.gz", "cut.zip", "two.zip", "password.zip", *(f"{name}.zip" for name in members)):
        with pytest.raises(ValueError, match=f"{name}: .*expected") as error:
            read_igra(tmp_path / name)
        assert len(str(error.value).splitlines()) == 1
    with pytest.raises(ValueError, match="directory"):
        read_igra(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_igra(tmp_path / "absent.txt")


@settings(max_examples=300, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.integers(0, 700),
    whole=st.booleans(),
    packed=st.booleans(),
)
def test_mutated_bytes_give_a_valid_table_or_one_error(tmp_path, edits, cut, whole, packed):
    data = bytearray(sounding().encode() * 2)
    if packed:
        data = bytearray(gzip.compress(bytes(data), mtime=0))
    for position, value in edits:
        data[position % len(data)] = value
    path = tmp_path / "fuzz.bin"
    path.write_bytes(bytes(data) if whole else bytes(data[:cut]))
    try:
        outcome: object = read_igra(path)
    except ValueError as error:
        outcome = str(error)
    if isinstance(outcome, str):
        assert "fuzz.bin" in outcome
        assert len(outcome.splitlines()) == 1
    elif len(outcome):
        validate(outcome)


@settings(max_examples=200, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pressure=st.integers(10, 110000),
    height=st.integers(-999, 40000),
    temperature=st.integers(-999, 500),
    depression=st.integers(0, 500),
    direction=st.integers(0, 360),
    speed=st.integers(1, 1500),
)
def test_physical_round_trip(tmp_path, pressure, height, temperature, depression, direction, speed):
    """From the table back to what the sonde reported."""
    line = f"10 -9999 {pressure:6d} {height:5d} {temperature:5d} -9999 {depression:5d} {direction:5d} {speed:5d} "
    table = read_igra(written(tmp_path / "s.txt", sounding([line])))
    value = dict(zip(table["variable"], table["observation"], strict=True))
    assert value["z"] / G == pytest.approx(height)
    assert value["t"] - 273.15 == pytest.approx(temperature / 10)
    assert math.hypot(value["u"], value["v"]) == pytest.approx(speed / 10)
    back = math.degrees(math.atan2(-value["u"], -value["v"]))
    assert math.cos(math.radians(back - direction)) == pytest.approx(1, abs=1e-9)
    if table.loc[table["variable"] == "q", "quality"].item() == Flag.PASS:
        e = value["q"] * pressure / (0.62198 + (1 - 0.62198) * value["q"])
        ratio = math.log(e / 611.2)
        assert 243.12 * ratio / (17.62 - ratio) == pytest.approx((temperature - depression) / 10, abs=1e-6)


def test_real_file_agrees_with_a_line_by_line_decoder():
    path = shared("AUM00011035-data.txt.gz")
    table = read_igra(path)
    expected = []
    with gzip.open(path, "rt") as stream:
        for line in stream:
            if line[0] == "#":
                time = f"{line[13:17]}-{line[18:20]}-{line[21:23]}T{line[24:26]}"
                continue
            p, z, t, dpd, d, s = (
                int(line[a:b]) for a, b in ((9, 15), (16, 21), (22, 27), (34, 39), (40, 45), (46, 51))
            )
            reported = {
                "z": z * G if z > -8000 else None,
                "t": t / 10 + 273.15 if t > -8000 else None,
                "u": -s / 10 * math.sin(math.radians(d)) if min(d, s) > -8000 else None,
                "v": -s / 10 * math.cos(math.radians(d)) if min(d, s) > -8000 else None,
                "q": tetens_specific_humidity((t - dpd) / 10, p) if min(t, dpd) > -8000 else None,
            }
            expected += [(time, p, name, value) for name, value in reported.items() if value is not None]
    times, pressures, names, values = zip(*expected, strict=True)
    assert len(table) == len(expected) == 85491
    assert table["variable"].tolist() == list(names)
    np.testing.assert_array_equal(table["time"].to_numpy(), np.array(times, dtype="datetime64[ns]"))
    np.testing.assert_array_equal(table["pressure"], pressures)
    humidity = table["variable"].to_numpy() == "q"
    np.testing.assert_allclose(table["observation"][~humidity], np.array(values)[~humidity], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(table["observation"][humidity], np.array(values)[humidity], rtol=0.05)
    assert summary(table)["soundings"] == 321


def test_station_list_by_hand(tmp_path):
    lines = (
        "AUM00011035  48.2486   16.3564  200.0    WIEN/HOHE WARTE                1952 2024  67890\n"
        "USM00072266  32.4167  -99.6833  545.3 TX ABILENE MUNI AP                1935 1973  19791\n"
        "ZZXUAICE031 -98.8888 -998.8888 -998.8    NP31                           1989 1991    717\n"
    )
    stations = read_station_list(written(tmp_path / "list.txt", lines))
    assert stations["station"].tolist() == ["AUM00011035", "USM00072266", "ZZXUAICE031"]
    assert stations.loc[1, ["latitude", "longitude", "elevation"]].tolist() == [32.4167, 360 - 99.6833, 545.3]
    assert stations.loc[2, ["latitude", "longitude", "elevation"]].isna().all()
    assert stations["last_year"].tolist() == [2024, 1973, 1991]
    assert stations["soundings"].tolist() == [67890, 19791, 717]
    here = written(tmp_path / "s.txt", sounding())
    counts = read_igra(here, stations).attrs["not_stored"]
    assert counts == {"wind_direction: needs wind_speed": 1}
    unlisted = read_igra(here, stations[1:])
    assert unlisted["elevation"].isna().all()
    assert unlisted.attrs["not_stored"] == counts | {"elevation of a station: not in the list of stations": 1}
    with pytest.raises(ValueError, match=r"list.txt: line 2"):
        read_station_list(written(tmp_path / "list.txt", lines[:89] + lines[:50]))


def test_shipped_stations_follow_their_rule():
    stations = read_station_list(shared("igra2-station-list.txt"))
    assert len(stations) == 2879
    rule = (stations["last_year"] >= 2020) & (stations["soundings"] >= 1000)
    rule &= stations["latitude"].notna() & stations["elevation"].notna()
    expected = stations[rule].sort_values("station", ignore_index=True)
    found = shipped_stations()
    pd.testing.assert_series_equal(found["station"], expected["station"])
    for column in ("latitude", "longitude", "elevation", "soundings"):
        np.testing.assert_allclose(found[column], expected[column], atol=1e-4)


def test_damaged_soundings_may_be_passed_over(tmp_path):
    good = [sounding(header=HEADER.replace("2015 01 23", f"2015 01 {day:02d}")) for day in range(1, 10)]
    bad = good.copy()
    bad[3] = bad[3].replace("2015 01", "2015 13")  # no such month
    bad[6] = bad[6].replace("85000", "8500x")
    lost: list[str] = []
    table = read_igra(written(tmp_path / "s.txt", "".join(bad)), on_loss=lost.append)
    kept = "".join(text for k, text in enumerate(good) if k not in (3, 6))
    pd.testing.assert_frame_equal(table, read_igra(written(tmp_path / "k.txt", kept)))
    assert [line.split(": ")[1] for line in lost] == ["line 19", "line 39"]
    with pytest.raises(ValueError, match="line 19"):
        read_igra(tmp_path / "s.txt")


def test_the_good_part_of_a_truncated_archive_may_be_kept(tmp_path):
    path = shared("AUM00011035-data.txt.gz")
    (tmp_path / "cut.gz").write_bytes(path.read_bytes()[:200_000])
    lost: list[str] = []
    table = read_igra(tmp_path / "cut.gz", on_loss=lost.append)
    whole = read_igra(path)
    assert len(whole) / 2 < len(table) < len(whole)
    pd.testing.assert_frame_equal(table, whole[: len(table)])
    assert len(lost) == 2  # the archive, and the sounding it was cut in


def test_derived_parameters_and_station_lists_are_told_apart(tmp_path, caplog):
    derived = "#AUM00011035 2015 01 23 12 1134    1 ncdc-gts          " + " -9999" * 17 + "\n" + " 85000" * 25 + "\n"
    path, soundings = written(tmp_path / "d.txt", derived), written(tmp_path / "s.txt", sounding())
    pd.testing.assert_frame_equal(read_observations([path, soundings]), read_observations(soundings))
    assert "d.txt: found IGRA's derived parameters, ignored" in caplog.text
    with pytest.raises(ValueError, match="nothing that could be read"):
        read_observations(path)
    line = "AUM00011035  48.2486   16.3564  200.0    WIEN/HOHE WARTE                1952 2024  67890\n"
    with pytest.raises(ValueError, match="IGRA's station list"):
        read_observations(written(tmp_path / "l.txt", line))
    with pytest.raises(ValueError, match="found a URL"):
        read_observations("https://www.ncei.noaa.gov/pub/data/igra/x.zip")

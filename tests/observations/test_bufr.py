"""BUFR: messages encoded here with ecCodes, the real file against pdbufr, truncation and mutation."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.shared_data import shared

from genda.observations import Flag, LevelType, check_duplicates, read_observations, summary, validate
from genda.observations.bufr import _messages, read_bufr
from genda.observations.files import open_binary
from genda.observations.table import identified

eccodes = pytest.importorskip("eccodes")

G = 9.80665
MISSING = eccodes.CODES_MISSING_DOUBLE
LEVELS = {
    "pressure": [100000.0, 85000.0, 70000.0],
    "airTemperature": [285.1, 275.3, MISSING],
    "dewpointTemperature": [280.1, 270.3, MISSING],
    "windDirection": [90, 270, 0],
    "windSpeed": [5.0, 12.5, 0.0],
}


def encoded(
    station: tuple[int, int] = (11, 35),
    subsets: int = 1,
    compressed: bool = False,
    maximum_wind: bool = False,
    template: int = 309007,
    category: int = 2,
    latitude: float = 48.25,
) -> bytes:
    """A radiosonde message; subset k is 1 K warmer than subset k − 1."""
    handle = eccodes.codes_bufr_new_from_samples("BUFR4")
    count = len(LEVELS["pressure"])
    eccodes.codes_set(handle, "dataCategory", category)
    eccodes.codes_set(handle, "masterTablesVersionNumber", 24)
    eccodes.codes_set(handle, "numberOfSubsets", subsets)
    eccodes.codes_set(handle, "compressedData", int(compressed))
    layer = int(maximum_wind or template == 309052)
    extended, delayed = ([count], [1]) if template == 309052 else ([], [count] + [1] * layer)
    copies = 1 if compressed else subsets
    for key, factors in (("ExtendedDelayed", extended), ("Delayed", delayed)):
        if factors:
            eccodes.codes_set_array(handle, f"input{key}DescriptorReplicationFactor", factors * copies)
    extra = [104000, 31001, 7004, 8001, 11061, 11062] if maximum_wind else []
    eccodes.codes_set_array(handle, "unexpandedDescriptors", [template, *extra])

    def put(key: str, value: float) -> None:
        try:
            eccodes.codes_set(handle, key, value)
        except eccodes.KeyValueNotFoundError:
            assert key.split("#")[-1] in ("second", "heightOfStation", "heightOfStationGroundAboveMeanSeaLevel")

    header = {
        "blockNumber": station[0], "stationNumber": station[1], "year": 2008, "month": 12, "day": 8, "hour": 11,
        "minute": 30, "second": 0, "latitude": latitude, "longitude": -16.36, "heightOfStation": 198,
        "heightOfStationGroundAboveMeanSeaLevel": 198.0,
    }  # fmt: skip
    shift = 0 if compressed else count
    for key, value in header.items():
        for subset in range(copies):
            put(f"#{subset + 1}#{key}", value)
    # The maximum-wind layer has a pressure too, so that the next subset's count starts one later.
    stride = {"pressure": shift + layer * (not compressed)}
    for subset in range(copies):
        for key, values in LEVELS.items():
            for k, value in enumerate(values):
                value = MISSING if value == MISSING else value + (subset if key == "airTemperature" else 0)
                rank = subset * stride.get(key, shift) + k + 1
                if compressed and key == "airTemperature" and value != MISSING:
                    eccodes.codes_set_array(handle, f"#{rank}#{key}", [value + s for s in range(subsets)])
                elif value != MISSING:
                    eccodes.codes_set(handle, f"#{rank}#{key}", value)
        for k, height in enumerate((110.0, 1450.0, 3000.0)):
            rank = subset * shift + k + 1
            if template == 309052:
                eccodes.codes_set(handle, f"#{rank}#nonCoordinateGeopotentialHeight", height)
                eccodes.codes_set(handle, f"#{rank}#latitudeDisplacement", 0.01 * k)
            else:
                eccodes.codes_set(handle, f"#{rank}#nonCoordinateGeopotential", 10.0 * round(height * G / 10))
        if layer:
            eccodes.codes_set(handle, f"#{(subset + 1) * (count + 1)}#pressure", 25000.0)
    eccodes.codes_set(handle, "pack", 1)
    message = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    return message


def written(path: Path, *messages: bytes) -> Path:
    path.write_bytes(b"".join(messages))
    return path


@pytest.mark.parametrize("maximum_wind", [False, True])
def test_reads_both_layouts_of_a_traditional_report(tmp_path, maximum_wind):
    table = read_bufr(written(tmp_path / "t.bufr", encoded(maximum_wind=maximum_wind)))
    validate(table)
    assert summary(table)["variables"] == {"z": 3, "t": 2, "u": 3, "v": 3, "q": 2}
    assert set(table["pressure"]) == {100000.0, 85000.0, 70000.0}  # the maximum-wind layer holds nothing to use
    assert (table["station"] == "11035").all()
    assert (table["time"] == pd.Timestamp("2008-12-08 11:30")).all()
    np.testing.assert_allclose(table["latitude"], 48.25)
    np.testing.assert_allclose(table["longitude"], 360 - 16.36)
    assert (table["elevation"] == 198).all()
    at = table[table["pressure"] == 85000].set_index("variable")["observation"]
    assert at["t"] == pytest.approx(275.3)
    assert at["u"] == pytest.approx(12.5)  # from the west, blowing east
    assert at["v"] == pytest.approx(0, abs=1e-12)
    assert at["z"] == pytest.approx(14220.0)
    e = 611.2 * math.exp(17.67 * -2.85 / (-2.85 + 243.5))  # Bolton 1980
    assert at["q"] == pytest.approx(0.622 * e / (85000 - 0.378 * e), rel=4e-3)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("maximum_wind", [False, True])
def test_every_subset_is_an_ascent_of_its_own(tmp_path, compressed, maximum_wind):
    message = encoded(subsets=2, compressed=compressed, maximum_wind=maximum_wind)
    table = read_bufr(written(tmp_path / "t.bufr", message))
    t = table[table["variable"] == "t"]["observation"]
    np.testing.assert_allclose(t, [285.1, 275.3, 286.1, 276.3])
    assert table[table["variable"] == "u"]["pressure"].tolist() == [100000.0, 85000.0, 70000.0] * 2


def test_height_and_drift_of_a_high_resolution_report(tmp_path):
    table = read_bufr(written(tmp_path / "t.bufr", encoded(template=309052)))
    z = table[table["variable"] == "z"]
    np.testing.assert_allclose(z["observation"], [110 * G, 1450 * G, 3000 * G])
    np.testing.assert_allclose(z["latitude"], [48.25, 48.26, 48.27])
    assert table["elevation"].eq(198).all()


def test_bulletin_headings_padding_and_archives(tmp_path):
    first, second = encoded(), encoded(station=(11, 36))
    plain = read_bufr(written(tmp_path / "plain.bufr", first, second))
    heading = b"\x01\r\r\n001\r\r\nIUKN01 LOWM 081200\r\r\n"
    dressed = written(tmp_path / "dressed.bufr", heading, first, b"\0\0\0\0", heading, second, b"\r\r\n\x03")
    pd.testing.assert_frame_equal(read_bufr(dressed), plain)
    (tmp_path / "x.gz").write_bytes(gzip.compress(dressed.read_bytes()))
    pd.testing.assert_frame_equal(read_observations(tmp_path / "x.gz"), plain)
    assert summary(plain)["stations"] == 2


def test_one_line_for_files_that_are_not_whole_radiosonde_bufr(tmp_path):
    good = encoded()
    section1 = int.from_bytes(good[8:11], "big")
    longer = bytearray(good)
    longer[8:11] = (section1 + 3).to_bytes(3, "big")
    cases = {
        "empty": (b"", "empty"),
        "text": (b"station,time\n" * 20, "no 'BUFR'"),
        "cut": (good[:-20], "message 1 at byte 0: .*truncated"),
        "second": (good + good[: len(good) // 2], f"message 2 at byte {len(good)}: .*truncated"),
        "end": (good[:-4] + b"0000", "expected b'7777'"),
        "edition": (good[:7] + b"\x09" + good[8:], "edition 9"),
        "sections": (bytes(longer), "section"),
        "satellite": (encoded(category=3), "data category 3, expected 0 or 1"),
        "latitude": (encoded(latitude=99.0), "latitude 99"),
    }
    for name, (data, message) in cases.items():
        with pytest.raises(ValueError, match=message) as error:
            read_bufr(written(tmp_path / name, data))
        assert str(tmp_path / name) in str(error.value)
        assert len(str(error.value).splitlines()) == 1


def test_says_what_to_install_without_eccodes(tmp_path, monkeypatch):
    path = written(tmp_path / "t.bufr", encoded())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install .*\.\[bufr\]"):
        read_bufr(path)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4),
    keep=st.floats(0.5, 1.5),
)
def test_mutated_bytes_give_a_valid_table_or_one_error(tmp_path, edits, keep):
    good = encoded(maximum_wind=True)
    data = bytearray(good)
    for position, value in edits:
        data[position % len(data)] = value
    path = written(tmp_path / "fuzz.bufr", bytes(data[: int(keep * len(data))]))
    try:
        outcome: object = read_bufr(path)
    except ValueError as error:
        outcome = str(error)
    if isinstance(outcome, str):
        assert "fuzz.bufr" in outcome
        assert len(outcome.splitlines()) == 1
    elif len(outcome):
        validate(outcome)


@pytest.mark.parametrize(
    ("script", "kind", "message"),
    [
        ("import os; os.abort()", ValueError, "message 1: found damaged content"),
        ("print('no library', end=''); raise SystemExit(3)", ImportError, r"ecCodes failed to start \(no library\)$"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_decoder_that_dies_is_told_from_a_damaged_file(tmp_path, monkeypatch, script, kind, message, packed):
    path = written(tmp_path / "t.bufr", gzip.compress(encoded()) if packed else encoded())
    (tmp_path / "dies.py").write_text(script)
    monkeypatch.setattr("genda.observations.bufr_decode.__file__", str(tmp_path / "dies.py"))
    with pytest.raises(kind, match=message):
        read_bufr(path)


def test_real_file_agrees_with_pdbufr(tmp_path):
    """pdbufr walks the elements one by one; a twelfth of the file holds all four of its descriptor lists."""
    pdbufr = pytest.importorskip("pdbufr")
    with open_binary(shared("temp.bufr")) as stream:
        messages = list(_messages(stream, "temp.bufr"))
    assert len(messages) == 420
    path = written(tmp_path / "part.bufr", *messages[::12])
    table = read_bufr(path)
    validate(table)
    raw = pdbufr.read_bufr(path, reader="temp")
    raw["speed"] = raw["wind_speed"]
    checks = {
        "z": raw["z"],
        "t": raw["t"],
        "u": -raw["speed"] * np.sin(np.radians(raw["wind_dir"])),
        "v": -raw["speed"] * np.cos(np.radians(raw["wind_dir"])),
    }
    for variable, expected in checks.items():
        there = expected.notna()
        mine = table[table["variable"] == variable]
        assert len(mine) == there.sum()
        np.testing.assert_allclose(mine["observation"], expected[there], rtol=1e-12, atol=1e-9)
        np.testing.assert_array_equal(mine["pressure"], raw["pressure"][there])
        np.testing.assert_allclose(mine["latitude"], raw["lat"][there])
        np.testing.assert_allclose(mine["longitude"], raw["lon"][there] % 360)
        np.testing.assert_array_equal(mine["elevation"], raw["elevation"][there])
        assert mine["station"].astype(int).tolist() == raw["stnid"][there].astype(int).tolist()
    q = table[table["variable"] == "q"]
    td, p = raw["td"].dropna() - 273.15, raw["pressure"][raw["td"].notna()]
    e = 611.2 * np.exp(17.67 * td / (td + 243.5))
    bolton = (0.622 * e / (p - 0.378 * e)).to_numpy()
    warm = ((td > -35) & (p > 10000)).to_numpy()
    assert len(q) == len(td)
    np.testing.assert_allclose(q["observation"].to_numpy()[warm], bolton[warm], rtol=5e-3)
    assert (q["quality"].isin([Flag.PASS, Flag.BOUNDS])).all()


def test_real_file_in_full():
    counts = summary(read_bufr(shared("temp.bufr")))
    assert counts["stations"] == counts["soundings"] == 420
    assert counts["variables"] == {"z": 16453, "t": 18742, "u": 13758, "v": 13758, "q": 16094}


def encoded_report(
    template: int | list[int],
    category: int,
    values: dict[str, float | str],
    delayed: list[int] | None = None,
    short: list[int] | None = None,
) -> bytes:
    """One report of a WMO template, encoded by ecCodes."""
    handle = eccodes.codes_bufr_new_from_samples("BUFR4")
    eccodes.codes_set(handle, "dataCategory", category)
    eccodes.codes_set(handle, "masterTablesVersionNumber", 31)
    if delayed:
        eccodes.codes_set_array(handle, "inputDelayedDescriptorReplicationFactor", delayed)
    if short:
        eccodes.codes_set_array(handle, "inputShortDelayedDescriptorReplicationFactor", short)
    eccodes.codes_set_array(handle, "unexpandedDescriptors", [template] if isinstance(template, int) else template)
    time = {"year": 2021, "month": 7, "day": 14, "hour": 6, "minute": 20}
    for key, value in (time | values).items():
        eccodes.codes_set(handle, key if key.startswith("#") else f"#1#{key}", value)
    eccodes.codes_set(handle, "pack", 1)
    message = eccodes.codes_get_message(handle)
    eccodes.codes_release(handle)
    return message


SYNOP = {
    "blockNumber": 11, "stationNumber": 35, "latitude": 48.25, "longitude": 16.36,
    "heightOfStationGroundAboveMeanSeaLevel": 198.0, "pressureReducedToMeanSeaLevel": 101320.0,
    "airTemperature": 291.45, "dewpointTemperature": 285.0, "windDirection": 270, "windSpeed": 4.1,
}  # fmt: skip
SHIP = SYNOP | {"shipOrMobileLandStationIdentifier": "DBLK", "latitude": 54.1, "longitude": -7.5}
del SHIP["blockNumber"], SHIP["stationNumber"], SHIP["heightOfStationGroundAboveMeanSeaLevel"]
AIRCRAFT = {
    "aircraftRegistrationNumberOrOtherIdentification": "EU1234", "latitude": 40.5, "longitude": -3.25,
    "airTemperature": 226.15, "windDirection": 90, "windSpeed": 30.0,
}  # fmt: skip


def synop(**changes: float) -> bytes:
    return encoded_report(307080, 0, SYNOP | changes, [1, 1])


def test_surface_reports_on_land_and_at_sea(tmp_path):
    path = written(tmp_path / "s.bufr", synop(), encoded_report(308009, 1, SHIP, [1]))
    table = read_bufr(path)
    validate(table)
    assert table["variable"].tolist() == ["t2m", "u10", "v10", "msl"] * 2
    np.testing.assert_allclose(table["observation"], [291.45, 4.1, 0.0, 101320.0] * 2, atol=1e-9)
    assert table["source"].tolist() == ["bufr-synop"] * 4 + ["bufr-ship"] * 4
    assert table["station"].tolist() == ["11035"] * 4 + ["DBLK"] * 4
    assert table["elevation"].tolist()[:4] == [198.0] * 4
    assert table["pressure"].isna().all()
    assert (table["time"] == pd.Timestamp("2021-07-14 06:20")).all()
    masked = [
        encoded_report(308009, 1, SHIP | {"shipOrMobileLandStationIdentifier": "SHIP", "latitude": at}, [1])
        for at in (50, 51)
    ]
    ships = read_bufr(written(tmp_path / "m.bufr", *masked))
    assert set(check_duplicates(ships)["quality"]) == {Flag.PASS}  # two ships that won't say who they are
    assert ships["station"].unique().tolist() == ["50.0000,352.5000", "51.0000,352.5000"]
    unnamed = ships.assign(station=pd.Series("", index=ships.index, dtype="str"))
    assert ships["station"].equals(identified(unnamed)["station"])  # as places of any other source are called
    older = encoded_report(
        307005, 0, {"blockNumber": 11, "stationNumber": 35, "latitude": 48.25, "longitude": 16.36,
                    "airTemperatureAt2M": 291.4, "windDirectionAt10M": 270, "windSpeedAt10M": 4.1}, [1],
    )  # fmt: skip
    assert read_bufr(written(tmp_path / "o.bufr", older))["variable"].tolist() == ["t2m", "u10", "v10"]


def test_surface_reports_agree_with_pdbufr(tmp_path):
    pdbufr = pytest.importorskip("pdbufr")
    reports = [
        synop(stationNumber=k, airTemperature=270.0 + k, windDirection=37 * k % 361, windSpeed=1.1 * k)
        for k in range(1, 9)
    ]
    path = written(tmp_path / "s.bufr", *reports)
    table = read_bufr(path)
    raw = pdbufr.read_bufr(path, reader="synop")
    angle = np.radians(raw["wind10m_dir"].to_numpy(dtype=float))
    expected = {
        "t2m": raw["t2m"],
        "u10": -raw["wind10m_speed"] * np.sin(angle),
        "v10": -raw["wind10m_speed"] * np.cos(angle),
        "msl": raw["mslp"],
    }
    for variable, values in expected.items():
        mine = table[table["variable"] == variable]
        np.testing.assert_allclose(mine["observation"], values.to_numpy(dtype=float), rtol=1e-12, atol=1e-9)
        np.testing.assert_allclose(mine["latitude"], raw["lat"].to_numpy(dtype=float))
        assert mine["station"].astype(int).tolist() == raw["stnid"].astype(int).tolist()


def test_aircraft_reports_of_every_template(tmp_path):
    airep = {k: v for k, v in AIRCRAFT.items() if "Registration" not in k}
    path = written(
        tmp_path / "a.bufr",
        encoded_report(311001, 4, airep | {"aircraftFlightNumber": "IBE31", "height": 10668}),
        encoded_report(311005, 4, AIRCRAFT | {"flightLevel": 11000}),
        encoded_report(311002, 4, AIRCRAFT | {"pressure": 25000.0, "mixingRatio": 1e-4}, short=[0] * 6),
        encoded_report(
            311009, 4, AIRCRAFT | {
                "#1#flightLevel": 1000, "#2#flightLevel": 5000, "#2#airTemperature": 255.2, "#2#windDirection": 180,
                "#2#windSpeed": 10.0, "#2#latitude": 40.6, "#2#longitude": -3.25, "#3#latitude": 40.7,
                "#1#dewpointTemperature": 220.0,
            }, [2],
        ),
    )  # fmt: skip
    table = read_bufr(path)
    validate(table)
    assert table["source"].eq("bufr-aircraft").all()
    first = table.iloc[0:3]
    assert first["variable"].tolist() == ["t", "u", "v"]
    np.testing.assert_allclose(first["pressure"], 23842.0, rtol=1e-3)  # FL350
    np.testing.assert_allclose(first["observation"], [226.2, -30.0, 0.0], atol=1e-9)  # 0.1 K in this template
    assert first["station"].eq("IBE31").all()
    np.testing.assert_allclose(table.iloc[3:6]["pressure"], 22632.0, rtol=1e-4)
    measured = table.iloc[6:10]
    assert measured["variable"].tolist() == ["t", "u", "v", "q"]
    assert measured["pressure"].eq(25000.0).all()
    assert measured["observation"].iloc[3] == pytest.approx(1e-4 / (1 + 1e-4))
    profile = table.iloc[10:]
    assert profile["variable"].tolist() == ["t", "u", "v", "q", "t", "u", "v"]
    np.testing.assert_allclose(profile["pressure"].unique(), [89874.6, 54019.9], rtol=1e-4)  # ICAO at 1 and 5 km
    np.testing.assert_allclose(profile["latitude"].unique(), [40.6, 40.7])
    np.testing.assert_allclose(profile["longitude"], 356.75)


def test_damaged_messages_may_be_passed_over(tmp_path):
    good, bad = encoded(), bytearray(encoded(station=(11, 36)))
    bad[7] = 9  # an edition that does not exist
    path = written(tmp_path / "t.bufr", good, bytes(bad), synop(), encoded(latitude=99.0), good[:-20])
    lost: list[str] = []
    table = read_bufr(path, lost.append)
    validate(table)
    whole = read_bufr(written(tmp_path / "whole", good, synop()))
    assert table["observation"].tolist() == whole["observation"].tolist()
    assert len(lost) == 3
    assert all(part in line for part, line in zip(("message 2", "message 5", "latitude 99"), lost, strict=True))


def test_types_of_levels_of_both_flag_tables(tmp_path):
    path = shared("temp.bufr")
    with open_binary(path) as stream:
        messages = list(_messages(stream, path))[:40]
    table = read_bufr(written(tmp_path / "part.bufr", *messages))
    standard = table[table["level_type"] == LevelType.STANDARD]["pressure"]
    mandatory = [
        100000,
        92500,
        85000,
        70000,
        50000,
        40000,
        30000,
        25000,
        20000,
        15000,
        10000,
        7000,
        5000,
        3000,
        2000,
        1000,
    ]
    assert standard.isin([*mandatory, 700, 500, 300, 200, 100]).all()
    assert table[table["level_type"] == LevelType.SURFACE].groupby("station")["pressure"].nunique().max() == 1

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

from genda.observations import Flag, read_observations, summary, validate
from genda.observations.bufr import _messages, read_bufr
from genda.observations.files import open_binary

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
    with pytest.raises(ModuleNotFoundError, match=r"genda\[bufr\]"):
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


def test_a_decoder_that_dies_is_one_error(tmp_path, monkeypatch):
    path = written(tmp_path / "t.bufr", encoded())
    script = tmp_path / "dies.py"
    script.write_text("import os; os.abort()")
    monkeypatch.setattr("genda.observations.bufr_decode.__file__", str(script))
    with pytest.raises(ValueError, match="message 1: found damaged content"):
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

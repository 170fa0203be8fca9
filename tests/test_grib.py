"""A GRIB file is read whole or refused: against messages that another encoder made, and damage put into them."""

from __future__ import annotations

import numpy as np
import pytest

from command_line import run
from genda.files import open_gridded
from genda.grib import DamagedError, check_messages
from shared_data import shared

eccodes = pytest.importorskip("eccodes")
pytest.importorskip("cfgrib")


def encoded(edition: int, rows: int = 3, columns: int = 4, bits: int = 16) -> bytes:
    """Temperature at 500 hPa on a regular grid."""
    message = eccodes.codes_grib_new_from_samples(f"regular_ll_pl_grib{edition}")
    for key, value in (("Ni", columns), ("Nj", rows), ("bitsPerValue", bits), ("shortName", "t"), ("level", 500)):
        eccodes.codes_set(message, key, value)
    eccodes.codes_set_values(message, 250.0 + np.random.default_rng(0).random(rows * columns))
    return bytes(eccodes.codes_get_message(message))


@pytest.mark.parametrize("edition", [1, 2])
def test_every_cut_and_every_damaged_frame_is_found(tmp_path, edition):
    one, path = encoded(edition), tmp_path / "a.grib"
    path.write_bytes(3 * one)
    assert check_messages(path) == 3
    for size in range(1, 3 * len(one)):
        if size % len(one):
            path.write_bytes((3 * one)[:size])
            with pytest.raises(DamagedError, match=r"a\.grib: "):
                check_messages(path)
    for at in (*range(4), len(one) - 1):
        path.write_bytes(one + one[:at] + b"\xf1" + one[at + 1 :] + one)
        with pytest.raises(DamagedError, match=f"byte {len(one)}:|bytes at {len(one) + at}"):
            check_messages(path)
    path.write_bytes(one + bytes(range(256)) + one)
    with pytest.raises(DamagedError, match="belong to no GRIB message"):
        check_messages(path)


def test_padding_and_headings_of_bulletins_are_passed_over(tmp_path):
    one = encoded(1)
    heading = b"\x01\r\r\n123\r\r\nHTXA50 ECMF 010000\r\r\n"
    (tmp_path / "a.grib").write_bytes(heading + one + bytes(5000) + heading + encoded(2) + b"\r\r\n\x03")
    assert check_messages(tmp_path / "a.grib") == 2


def test_the_length_of_a_large_message_of_edition_1(tmp_path):
    """Above 8 MiB the three octets count in another unit."""
    large = encoded(1, rows=2001, columns=3001)
    assert len(large) > 2**23
    (tmp_path / "a.grib").write_bytes(large + encoded(1))
    assert check_messages(tmp_path / "a.grib") == 2


def test_a_message_that_does_not_decode_is_an_error(tmp_path):
    one = encoded(2)
    template = 16 + int.from_bytes(one[16:20], "big") + 12  # of the grid, in section 3
    (tmp_path / "a.grib").write_bytes(one + one[:template] + b"\x7f\xff" + one[template + 2 :])
    with pytest.raises(ValueError, match=r"a\.grib: found a GRIB file that cannot be opened"):
        open_gridded(tmp_path / "a.grib")


def test_half_a_file_is_refused_in_one_line(tmp_path, capfd):
    whole = shared("pl_regular_ll.grib").read_bytes()
    (tmp_path / "half.grib").write_bytes(whole[: len(whole) // 2 + 100])
    for arguments in (("check",), ("prepare", tmp_path / "out.zarr")):
        code, _, error = run(capfd, "data", arguments[0], tmp_path / "half.grib", *arguments[1:])
        assert (code, error.count("\n")) == (2, 1)
        assert "half.grib: message 121 at byte 187200: expected 1476 bytes" in error

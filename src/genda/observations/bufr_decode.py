"""The process that decodes radiosonde BUFR messages with ecCodes: messages on standard input, arrays on standard output.

ecCodes aborts, or reads outside its buffers, on some damaged messages, and reports the others on standard error line
after line. In a process of its own it can do both without taking the caller down or drowning its one clear error.
Started by :mod:`genda.observations.bufr` as a script, so that it loads NumPy and ecCodes alone.

ecCodes returns all values of an element as one array. That pairs the elements of a level by position, since an ascent's
levels come first in every radiosonde template and each holds every element once; the layer of the maximum wind, which
half of the traditional reports append, adds pressures behind them and nothing else that is read here. Walking the
elements one by one, as pdbufr does, gives the same values five times more slowly (a test compares them).

Output: an ``.npz`` of the arrays of :func:`decode` and exit status 0, or one line of text and exit status 3.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np

SCALARS = ("latitude", "longitude", "year", "month", "day", "hour", "minute", "second")
ELEVATIONS = ("heightOfStation", "heightOfStationGroundAboveMeanSeaLevel")
LEVELS = (
    "pressure",
    "nonCoordinateGeopotential",
    "nonCoordinateGeopotentialHeight",
    "airTemperature",
    "dewpointTemperature",
    "windDirection",
    "windSpeed",
    "latitudeDisplacement",
    "longitudeDisplacement",
)
_MISSING_INTEGER, _MISSING_REAL = 2147483647, -1e100


def decode(data: bytes) -> dict[str, Any]:
    """Decode framed messages.

    Returns:
        ``SCALARS``, ``elevation`` and ``station`` with one entry per ascent, ``levels`` their level counts, ``LEVELS``
        with one entry per level of all ascents in turn; NaN where not reported.

    Raises:
        ValueError: naming the message by its number from 0.
    """
    import eccodes

    ascents: list[dict[str, Any]] = []
    columns: dict[str, list[Any]] = {key: [] for key in LEVELS}
    position = number = 0
    while position < len(data):
        length = int.from_bytes(data[position + 4 : position + 7], "big")
        try:
            for handle in _subsets(eccodes, data[position : position + length]):
                ascent, levels = _ascent(eccodes, handle)
                ascents.append(ascent)
                for key in LEVELS:
                    columns[key].append(levels[key])
        except (eccodes.CodesInternalError, ValueError, TypeError, OverflowError, MemoryError) as error:
            raise ValueError(f"{number} {type(error).__name__}: {' '.join(str(error).split())[:120]}") from None
        position += length
        number += 1
    result: dict[str, Any] = {
        key: np.array([a[key] for a in ascents], dtype=np.float64) for key in (*SCALARS, "elevation")
    }
    result["station"] = np.array([a["station"] for a in ascents], dtype=np.str_)
    result["levels"] = np.array([a["levels"] for a in ascents], dtype=np.int64)
    return result | {key: np.concatenate([np.empty(0), *parts]) for key, parts in columns.items()}


def _subsets(eccodes: Any, message: bytes) -> Iterator[Any]:
    """Unpacked handles, one per subset."""
    whole = eccodes.codes_new_from_message(message)
    try:
        eccodes.codes_set(whole, "skipExtraKeyAttributes", 1)
        eccodes.codes_set(whole, "unpack", 1)
        count = eccodes.codes_get(whole, "numberOfSubsets")
        if count == 1:
            yield whole
            return
        for subset in range(1, count + 1):
            eccodes.codes_set(whole, "extractSubset", subset)
            eccodes.codes_set(whole, "doExtractSubsets", 1)
            one = eccodes.codes_clone(whole)
            try:
                eccodes.codes_set(one, "skipExtraKeyAttributes", 1)
                eccodes.codes_set(one, "unpack", 1)
                yield one
            finally:
                eccodes.codes_release(one)
    finally:
        eccodes.codes_release(whole)


def _ascent(eccodes: Any, handle: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    def array(key: str) -> Any:
        try:
            values = np.atleast_1d(np.asarray(eccodes.codes_get_array(handle, key), dtype=np.float64))
        except eccodes.KeyValueNotFoundError:
            return np.empty(0)
        return np.where((values == _MISSING_INTEGER) | (values <= _MISSING_REAL), np.nan, values)

    def first(key: str) -> float:
        values = array(f"#1#{key}")
        return float(values[0]) if values.size else float("nan")

    raw = {key: array(key) for key in LEVELS}
    count = max(raw["airTemperature"].size, raw["windSpeed"].size)
    levels = {}
    for key, values in raw.items():
        if values.size < count and values.size:
            raise ValueError(f"found {values.size} values of {key} on {count} levels")
        levels[key] = values[:count] if values.size else np.full(count, np.nan)
    if count and not raw["pressure"].size:
        raise ValueError(f"found no pressure on {count} levels")
    ascent: dict[str, Any] = {key: first(key) for key in SCALARS}
    heights = [first(key) for key in ELEVATIONS]
    ascent["elevation"] = next((h for h in heights if h == h), float("nan"))
    ascent["station"] = _station(eccodes, handle, first, ascent)
    ascent["levels"] = count
    return ascent, levels


def _station(eccodes: Any, handle: Any, first: Any, ascent: dict[str, Any]) -> str:
    """WMO number, else call sign, else position."""
    block, number = first("blockNumber"), first("stationNumber")
    if block == block and number == number:
        return f"{block:02.0f}{number:03.0f}"
    try:
        sign = eccodes.codes_get(handle, "#1#shipOrMobileLandStationIdentifier", str).strip()
    except (eccodes.CodesInternalError, UnicodeDecodeError):
        sign = ""
    if sign and sign.isascii() and sign.isprintable() and sign != "MISSING":
        return str(sign)
    return f"{ascent['latitude']:.2f},{ascent['longitude']:.2f}"


def main() -> int:
    with suppress(ImportError, OSError, ValueError):  # not every system limits its processes
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        arrays = decode(sys.stdin.buffer.read())
    except (ValueError, RuntimeError, ImportError) as error:
        sys.stdout.write(" ".join(str(error).split()))
        return 3
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    sys.stdout.buffer.write(buffer.getvalue())
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The process that decodes BUFR reports with ecCodes: messages on standard input, arrays on standard output.

ecCodes aborts, or reads outside its buffers, on some damaged messages, and reports the others on standard error line
after line. In a process of its own it can do both without taking the caller down or drowning its one clear error.
Started by :mod:`genda.observations.bufr` as a script, so that it loads NumPy and ecCodes alone.

ecCodes returns all values of an element as one array. That pairs the elements of a level by position, since a report's
levels come first in every radiosonde and aircraft template and each holds every element once; the layer of the maximum
wind, which half of the traditional reports append, adds pressures behind them and nothing else that is read here. Walking
the elements one by one, as pdbufr does, gives the same values five times more slowly (a test compares them). Of a surface
report the first value of each element counts: what follows are other heights and past periods.

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
LEVELS: dict[str, tuple[str, ...]] = {
    "pressure": ("pressure",),
    "nonCoordinateGeopotential": ("nonCoordinateGeopotential",),
    "nonCoordinateGeopotentialHeight": ("nonCoordinateGeopotentialHeight",),
    "airTemperature": ("airTemperature", "airTemperatureAt2M"),
    "dewpointTemperature": ("dewpointTemperature", "dewpointTemperatureAt2M"),
    "windDirection": ("windDirection", "windDirectionAt10M"),
    "windSpeed": ("windSpeed", "windSpeedAt10M"),
    "latitudeDisplacement": ("latitudeDisplacement",),
    "longitudeDisplacement": ("longitudeDisplacement",),
    "relativeHumidity": ("relativeHumidity",),
    "mixingRatio": ("mixingRatio",),
    "pressureReducedToMeanSeaLevel": ("pressureReducedToMeanSeaLevel",),
    "flightLevel": ("flightLevel", "height", "indicatedAircraftAltitude"),
    "significance": ("verticalSoundingSignificance", "extendedVerticalSoundingSignificance"),
}
"""What is read of a level, and the elements that may hold it."""
SURFACE, SOUNDINGS, AIRCRAFT = (0, 1), 2, 4
"""BUFR table A: on land and at sea; vertical soundings; single levels of the upper air."""
_SIGNS = (
    "shipOrMobileLandStationIdentifier", "aircraftRegistrationNumberOrOtherIdentification", "aircraftFlightNumber",
    "aircraftTailNumber", "stationaryBuoyPlatformIdentifierEGCManBuoys",
)  # fmt: skip
_MASKED = ("MISSING", "SHIP", "RIGG", "PLAT", "BUOY", "MASKSTID")
"""Signs that many share: of two such ships at one time neither is the other's duplicate."""
_PLATFORMS = ("marineObservingPlatformIdentifier", "buoyOrPlatformIdentifier")
_WIGOS = (
    "wigosIdentifierSeries", "wigosIssuerOfIdentifier", "wigosIssueNumber", "wigosLocalIdentifierCharacter",
)  # fmt: skip
_MISSING_INTEGER, _MISSING_REAL = 2147483647, -1e100


def decode(data: bytes) -> dict[str, Any]:
    """Decode framed messages.

    Returns:
        ``SCALARS``, ``elevation``, ``station``, ``category`` and ``message`` (its number from 0) with one entry per report,
        ``levels`` their level counts, the keys of ``LEVELS`` with one entry per level of all reports in turn, NaN where not
        reported; ``failed`` numbers of messages that can't be decoded, ``reasons`` why.
    """
    import eccodes

    reports: list[dict[str, Any]] = []
    columns: dict[str, list[Any]] = {key: [] for key in LEVELS}
    failed: dict[int, str] = {}
    position = number = 0
    while position < len(data):
        length = int.from_bytes(data[position + 4 : position + 7], "big")
        try:
            decoded = [_report(eccodes, handle) for handle in _subsets(eccodes, data[position : position + length])]
            for report, levels in decoded:
                reports.append(report | {"message": number})
                for key in LEVELS:
                    columns[key].append(levels[key])
        except (eccodes.CodesInternalError, ValueError, TypeError, OverflowError, MemoryError) as error:
            failed[number] = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        position += length
        number += 1
    result: dict[str, Any] = {
        key: np.array([r[key] for r in reports], dtype=np.float64) for key in (*SCALARS, "elevation")
    }
    result["station"] = np.array([r["station"] for r in reports], dtype=np.str_)
    for key in ("levels", "category", "message"):
        result[key] = np.array([r[key] for r in reports], dtype=np.int64)
    result["failed"] = np.array(list(failed), dtype=np.int64)
    result["reasons"] = np.array(list(failed.values()), dtype=np.str_)
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


def _report(eccodes: Any, handle: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    def array(key: str) -> Any:
        try:
            values = np.atleast_1d(np.asarray(eccodes.codes_get_array(handle, key), dtype=np.float64))
        except eccodes.KeyValueNotFoundError:
            return np.empty(0)
        return np.where((values == _MISSING_INTEGER) | (values <= _MISSING_REAL), np.nan, values)

    def first(key: str) -> float:
        values = array(f"#1#{key}")
        return float(values[0]) if values.size else float("nan")

    category = int(eccodes.codes_get(handle, "dataCategory"))
    raw = {
        name: next((v for key in keys if (v := array(key)).size), np.empty(0))
        for name, keys in LEVELS.items()
        if name != "flightLevel" or category == AIRCRAFT
    }
    raw.setdefault("flightLevel", np.empty(0))
    if raw["significance"].size:
        raw["significance"] = _level_types(
            raw["significance"], bool(array("extendedVerticalSoundingSignificance").size)
        )
    report: dict[str, Any] = {key: first(key) for key in SCALARS}
    count = 1 if category in SURFACE else max(raw["airTemperature"].size, raw["windSpeed"].size)
    if category == AIRCRAFT:
        _displace(raw, array, report, count)
    levels = {}
    for key, values in raw.items():
        if values.size < count and values.size:
            raise ValueError(f"found {values.size} values of {key} on {count} levels")
        levels[key] = values[:count] if values.size else np.full(count, np.nan)
    if category not in SURFACE and count and not raw["pressure"].size and not raw["flightLevel"].size:
        raise ValueError(f"found no pressure on {count} levels")
    heights = [first(key) for key in ELEVATIONS]
    report["elevation"] = next((h for h in heights if h == h), float("nan"))
    report["station"] = _station(eccodes, handle, first)
    return report | {"levels": count, "category": category}, levels


def _level_types(significance: Any, extended: bool) -> Any:
    """:class:`genda.observations.flags.LevelType` of flag table 008001 (7 bits) or 008042 (18), counted from the left."""
    bits = np.nan_to_num(significance).astype(np.int64)
    top = 17 if extended else 6
    surface, standard, tropopause = ((bits >> (top - k)) & 1 for k in range(3))
    types = np.select([surface == 1, standard == 1, tropopause == 1, bits > 0], [1, 2, 3, 4], 0)
    return np.where(np.isnan(significance), 0.0, types)


def _displace(raw: dict[str, Any], array: Any, report: dict[str, Any], count: int) -> None:
    """Positions of an aircraft's levels as displacements: a profile gives that of the report, then one for each level."""
    for key in ("latitude", "longitude"):
        values = array(key)
        if values.size == count + 1:
            raw[f"{key}Displacement"] = values[1:] - report[key]


def _station(eccodes: Any, handle: Any, first: Any) -> str:
    """WMO number, else WIGOS identifier, else call sign, else number of the platform, else nothing."""

    def text(key: str) -> str:
        try:
            sign = eccodes.codes_get(handle, f"#1#{key}", str).strip()
        except (eccodes.CodesInternalError, UnicodeDecodeError):
            return ""
        return str(sign) if sign.isascii() and sign.isprintable() and sign not in _MASKED else ""

    block, number = first("blockNumber"), first("stationNumber")
    if block == block and number == number:
        return f"{block:02.0f}{number:03.0f}"
    wigos = [text(key) for key in _WIGOS]
    if all(wigos) and all(part.isdigit() for part in wigos[:3]):
        return "-".join(wigos)
    for sign in map(text, _SIGNS):
        if sign:
            return sign
    for platform in map(first, _PLATFORMS):
        if platform == platform:
            return f"{platform:.0f}"
    return ""


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

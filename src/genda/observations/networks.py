"""Simulated networks: where observations are taken in a twin experiment, and which are held back.

A network is a table of locations (station, latitude, longitude, elevation); :func:`columns_table` turns it into the
observation table to be filled from an operator.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from genda.grid import EARTH_RADIUS, LatLonGrid, unit_vectors
from genda.observations.flags import Flag
from genda.observations.stations import shipped_stations
from genda.observations.table import DTYPES
from genda.variables import channels as parse_channels


def random_columns(
    grid: LatLonGrid, density: float, generator: np.random.Generator, area_weighted: bool = False
) -> pd.DataFrame:
    """Columns at distinct grid points.

    Args:
        grid: the grid.
        density: share of the grid points that are observed, in (0, 1].
        generator: source of randomness.
        area_weighted: draw points in proportion to the area they stand for, so that the network is uniform on the
            sphere; by default every grid point is equally likely, which crowds the poles.

    Returns:
        station, latitude, longitude, elevation (NaN: unknown), in grid order.

    Raises:
        ValueError: for a density outside (0, 1] or too small for a single point.
    """
    if not 0 < density <= 1:
        raise ValueError(f"density: found {density}, expected a share of grid points in (0, 1]")
    points = grid.shape[0] * grid.shape[1]
    count = round(density * points)
    if count == 0:
        raise ValueError(f"density: found {density}, expected at least {0.5 / points:.2g} for one of {points} points")
    weights = np.repeat(grid.area_weights, grid.shape[1]) if area_weighted else np.ones(points)
    return _grid_points(grid, _draw(weights, count, generator))


def land_weighted(
    grid: LatLonGrid,
    land_sea_mask: ArrayLike,
    count: int,
    generator: np.random.Generator,
    ocean_share: float = 0.05,
) -> pd.DataFrame:
    """Distinct grid points drawn by area, rarely over the sea: the shape of the real network.

    Args:
        grid: the grid.
        land_sea_mask: land fraction 0–1, (lat, lon) on the grid.
        count: number of locations.
        generator: source of randomness.
        ocean_share: how likely an ocean point is against a land point of the same area, 0–1.

    Returns:
        as :func:`random_columns`.

    Raises:
        ValueError: for a mask of another shape or outside 0–1, or more locations than points to draw from.
    """
    mask = np.asarray(land_sea_mask, dtype=np.float64)
    if mask.shape != grid.shape:
        raise ValueError(f"land_sea_mask: found shape {mask.shape}, expected {grid.shape}")
    if not ((mask >= 0) & (mask <= 1)).all():
        raise ValueError("land_sea_mask: found a value outside 0 to 1, expected land fractions")
    if not 0 <= ocean_share <= 1:
        raise ValueError(f"ocean_share: found {ocean_share}, expected a share in 0 to 1")
    weights = grid.area_weights[:, None] * (ocean_share + (1 - ocean_share) * mask)
    return _grid_points(grid, _draw(weights.ravel(), count, generator))


def station_network(
    stations: pd.DataFrame | None = None,
    *,
    count: int | None = None,
    generator: np.random.Generator | None = None,
    active_since: int = 2020,
    minimum_soundings: int = 0,
    grid: LatLonGrid | None = None,
) -> pd.DataFrame:
    """The real radiosonde network.

    Args:
        stations: list to choose from (:func:`~genda.observations.stations.read_station_list`); the shipped list of active
            fixed stations where None.
        count: how many to draw at random; all where None.
        generator: source of randomness, needed with ``count``.
        active_since: last year of operation at least this.
        minimum_soundings: soundings in the archive at least this.
        grid: keep only stations inside this grid.

    Returns:
        station, latitude, longitude, elevation, ordered by station.

    Raises:
        ValueError: where no station fits, ``count`` exceeds those that do, or ``generator`` is missing.
    """
    table = shipped_stations() if stations is None else stations
    keep = (table["last_year"] >= active_since) & (table["soundings"] >= minimum_soundings)
    keep &= table["latitude"].notna() & table["longitude"].notna()
    if grid is not None:
        keep &= grid.contains(table["latitude"].to_numpy(), table["longitude"].to_numpy())
    chosen = table.loc[keep, ["station", "latitude", "longitude", "elevation"]].sort_values(
        "station", ignore_index=True
    )
    if chosen.empty:
        raise ValueError(
            f"station network: found no station active since {active_since} with {minimum_soundings} soundings inside the grid"
        )
    if count is None:
        return chosen
    if generator is None:
        raise ValueError("station network: found a count without a generator, expected both")
    rows = _draw(np.ones(len(chosen)), count, generator)
    return chosen.iloc[rows].reset_index(drop=True)


def columns_table(
    locations: pd.DataFrame, channels: Sequence[str], time: Any, source: str = "simulated"
) -> pd.DataFrame:
    """One row per location and channel, location by location, with the observation still to be filled.

    Args:
        locations: station, latitude, longitude, elevation.
        channels: identifiers such as "z500" and "t2m".
        time: valid time, UTC; anything pandas reads as one time.
        source: value of the source column.

    Returns:
        an observation table with NaN observations and errors (valid with ``complete=False``).

    Raises:
        ValueError: for an unknown channel, no locations or no channels.
    """
    parsed = parse_channels(channels)
    if not parsed or locations.empty:
        raise ValueError(
            f"columns: found {len(locations)} locations and {len(parsed)} channels, expected at least one of each"
        )
    n, m = len(locations), len(parsed)
    place = np.repeat(np.arange(n), m)
    stamp = pd.Timestamp(time)
    if pd.isna(stamp) or stamp.tz is not None:
        raise ValueError(f"time: found {time}, expected a time in UTC without zone")
    columns: dict[str, Any] = {
        "time": np.full(n * m, stamp.to_datetime64().astype("datetime64[ns]")),
        "latitude": locations["latitude"].to_numpy(dtype=np.float64)[place],
        "longitude": np.mod(locations["longitude"].to_numpy(dtype=np.float64), 360.0)[place],
        "pressure": np.tile([np.nan if c.pressure is None else c.pressure for c in parsed], n),
        "elevation": locations["elevation"].to_numpy(dtype=np.float64)[place],
        "variable": pd.Index([c.field.id for c in parsed], dtype="str").take(np.tile(np.arange(m), n)),
        "observation": np.full(n * m, np.nan),
        "obs_error": np.full(n * m, np.nan),
        "station": pd.Index(locations["station"], dtype="str").take(place),
        "source": pd.Index([source], dtype="str").take(np.zeros(n * m, dtype=np.intp)),
        "quality": np.full(n * m, int(Flag.PASS), dtype=np.int16),
    }
    return pd.DataFrame({name: columns[name] for name in DTYPES})


def distance_to_sites(grid: LatLonGrid, sites: pd.DataFrame) -> NDArray[np.float64]:
    """Great-circle distance in m from every grid point to the nearest site (latitude, longitude), shape (lat, lon)."""
    latitude, longitude = np.meshgrid(grid.latitude, grid.longitude, indexing="ij")
    points = unit_vectors(latitude, longitude)
    cosine = points @ unit_vectors(sites["latitude"].to_numpy(), sites["longitude"].to_numpy()).T
    return np.asarray(np.arccos(np.clip(cosine.max(axis=-1), -1, 1)) * EARTH_RADIUS)


def withhold(table: pd.DataFrame, fraction: float, generator: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split by station: what is assimilated, and what is kept to verify it.

    Args:
        table: observations, or locations: anything with a ``station`` column.
        fraction: share of the stations withheld, in (0, 1); at least one is withheld and one kept.
        generator: source of randomness.

    Returns:
        (assimilated, withheld); the order and index of the rows are kept.

    Raises:
        ValueError: for a fraction outside (0, 1) or fewer than two stations.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction: found {fraction}, expected a share of stations in (0, 1)")
    stations = np.sort(table["station"].unique().astype(str))
    if stations.size < 2:
        raise ValueError(f"withhold: found {stations.size} stations, expected at least 2")
    count = min(max(round(fraction * stations.size), 1), stations.size - 1)
    chosen = generator.choice(stations, size=count, replace=False)
    held = table["station"].isin(chosen.tolist())
    return table[~held], table[held]


def _draw(weights: NDArray[np.float64], count: int, generator: np.random.Generator) -> NDArray[np.intp]:
    """Distinct indices in ascending order, drawn in proportion to their weights."""
    available = int(np.count_nonzero(weights))
    if not 1 <= count <= available:
        raise ValueError(f"count: found {count}, expected 1 to {available} locations")
    drawn = generator.choice(weights.size, size=count, replace=False, p=weights / weights.sum())
    return np.sort(drawn)


def _grid_points(grid: LatLonGrid, points: NDArray[np.intp]) -> pd.DataFrame:
    row, column = np.divmod(points, grid.shape[1])
    return pd.DataFrame(
        {
            "station": pd.Series([f"grid{p:06d}" for p in points], dtype="str"),
            "latitude": np.asarray(grid.latitude)[row],
            "longitude": np.mod(np.asarray(grid.longitude)[column], 360.0),
            "elevation": np.nan,
        }
    )

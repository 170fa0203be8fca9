r"""What the observations themselves say about the errors assumed: no truth needed.

With d_b = y - H(x_b), d_a = y - H(x_a), P the background-error covariance and R that of the observations,

    χ² = d_bᵀ (H P Hᵀ + R)^{-1} d_b / m                  1 if P and R are right
    E[d_a d_b] = R,   E[(d_b - d_a) d_b] = H P Hᵀ        if the gain was right (Desroziers et al. 2005)

Sums over observations are statistics: they add up over dates, and the estimates are ratios of the sums.

References:
    Desroziers et al. 2005, Q. J. R. Meteorol. Soc. 131, 3385; Ménard et al. 2000, Mon. Wea. Rev. 128, 2654 (χ²).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from genda.observations.flags import Flag
from genda.problem import Source


def ensemble_chi_square(source: Source, members: Tensor) -> float:
    """χ² of the innovations with the covariance of background members, (member, channel, lat, lon); at least two.

    The sum of a matrix of low rank and R is inverted in the space of the members.
    """
    images = source.operator(members).double()
    count = len(images)
    spread = (images - images.mean(dim=0)) / (count - 1) ** 0.5
    innovation = source.values.double() - images.mean(dim=0)
    scaled = source.covariance.inverse(spread)
    inner = torch.eye(count, dtype=torch.float64) + spread @ scaled.T
    pull = scaled @ innovation
    square = innovation @ source.covariance.inverse(innovation.unsqueeze(0))[0] - pull @ torch.linalg.solve(inner, pull)
    return float(square) / len(innovation)


STANDARD_HPA = (1000, 925, 850, 700, 500, 400, 300, 250, 200, 150, 100, 70, 50, 30, 20, 10)


def error_entries(
    tables: Sequence[pd.DataFrame], by_source: bool = False, fewest: int = 30
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Observation errors that departures imply, by variable, nearest standard level and, if asked, source.

    Args:
        tables: of analyses, as :func:`desroziers`; only rows that pass are counted, for their values moved the analysis.
        by_source: tell sources apart.
        fewest: departures that a group needs.

    Returns:
        the estimates of every group, and entries that :func:`genda.observations.errors.read_errors` reads, of the groups large
        enough whose estimate is real.

    Raises:
        ValueError: as :func:`desroziers`, or where no group is large enough.
    """
    table = pd.concat(list(tables), ignore_index=True)
    table = table[table["quality"] == Flag.PASS]
    levels = np.log(100.0 * np.asarray(STANDARD_HPA, dtype=np.float64))
    nearest = np.abs(np.log(table["pressure"].to_numpy())[:, None] - levels).argmin(axis=1)
    standard = np.where(table["pressure"].isna(), np.nan, 100.0 * np.asarray(STANDARD_HPA)[nearest])
    keys = ("source", "variable", "pressure") if by_source else ("variable", "pressure")
    estimates = desroziers(table.assign(pressure=standard), keys)
    good = estimates[(estimates["count"] >= fewest) & estimates["observation_error"].notna()]
    if good.empty:
        largest = 0 if estimates.empty else int(estimates["count"].max())
        raise ValueError(f"Desroziers estimates: found {largest} departures at most in a group, expected {fewest}")
    entries = []
    for key, group in good.groupby(list(keys[:-1])):
        entry: dict[str, Any] = dict(zip(keys[:-1], map(str, key), strict=True))
        if group["pressure"].notna().all():
            entry["pressure"] = [float(p) / 100.0 for p in group["pressure"]]
        entries.append(entry | {"error": [float(f"{e:.4g}") for e in group["observation_error"]]})
    return estimates, entries


def desroziers(table: pd.DataFrame, by: tuple[str, ...] = ("variable", "pressure")) -> pd.DataFrame:
    """Errors of observations and background that the departures imply, beside those assumed.

    Args:
        table: observations with ``hx_b``, ``hx_a`` and ``obs_error``; rows without them are left out.
        by: columns to group by.

    Returns:
        one row per group: count, assumed and estimated observation error, estimated background error (in observation
        space); NaN where a covariance came out negative, which few or wrong departures can do.

    Raises:
        ValueError: for a missing column.
    """
    missing = [name for name in ("observation", "hx_b", "hx_a", "obs_error", *by) if name not in table]
    if missing:
        raise ValueError(
            f"Desroziers estimates: found no column {', '.join(missing)}, expected the table of an analysis"
        )
    used = table.dropna(subset=["observation", "hx_b", "hx_a", "obs_error"])
    before, after = used["observation"] - used["hx_b"], used["observation"] - used["hx_a"]
    products = used.assign(
        observed=after * before, background=(before - after) * before, assumed=used["obs_error"] ** 2, count=1
    )
    sums = products.groupby(list(by), dropna=False)[["observed", "background", "assumed", "count"]].sum()
    means = sums[["assumed", "observed", "background"]].div(sums["count"], axis=0)
    roots = means.where(means >= 0) ** 0.5
    roots.columns = pd.Index(["assumed_error", "observation_error", "background_error"])
    return sums[["count"]].join(roots).reset_index()

r"""Whether one method is better than another on the same dates.

Differences of a score, date by date, share the weather, the background and the observations; what is left is tested against
zero with Student's t. Dates near each other are not independent: with r the lag-one autocorrelation of the differences, n
of them are worth

    n' = n (1 - r) / (1 + r)                (r > 0; n otherwise)

independent ones.

References:
    Wilks 2019, Statistical Methods in the Atmospheric Sciences, section 5.2.4; Geer 2016, Tellus A 68, 30229.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from genda.verify.scores import Array


@dataclass(frozen=True)
class Paired:
    """A mean difference and what it is worth, each of the shape of one date's scores.

    Attributes:
        difference: mean of a - b.
        stderr: of that mean, autocorrelation included.
        effective: n'.
        p: two-sided probability of so large a difference if there were none.
    """

    difference: Array
    stderr: Array
    effective: Array
    p: Array


def paired_difference(a: Array, b: Array) -> Paired:
    """Compare scores of two methods on the same dates.

    Args:
        a, b: shape (date, ...), in the order of time; scores that average linearly, such as squared errors.

    Raises:
        ValueError: for different shapes or fewer than three dates.
    """
    if a.shape != b.shape:
        raise ValueError(f"paired difference: found shapes {a.shape} and {b.shape}, expected the same dates")
    if len(a) < 3:
        raise ValueError(f"paired difference: found {len(a)} dates, expected at least 3")
    differences = np.asarray(a, dtype=np.float64) - b
    count, mean = len(differences), differences.mean(axis=0)
    deviations = differences - mean
    variance = (deviations**2).sum(axis=0) / (count - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        lagged = (deviations[1:] * deviations[:-1]).sum(axis=0) / (deviations**2).sum(axis=0)
        # The estimate of r is low by about (1 + 3 r) / n for short series (Kendall 1954).
        correlation = np.clip(np.nan_to_num(lagged) + (1 + 3 * np.nan_to_num(lagged)) / count, 0.0, 0.98)
        effective = np.maximum(count * (1 - correlation) / (1 + correlation), 2.0)
        stderr = np.sqrt(variance / effective)
        t = np.where(stderr > 0, mean / stderr, np.where(mean == 0, 0.0, np.inf))
    return Paired(mean, stderr, effective, 2 * stats.t.sf(np.abs(t), effective - 1))

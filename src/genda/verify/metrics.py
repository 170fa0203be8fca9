"""Metrics: scores as functions of mean statistics.

A *statistic* is what averages linearly over dates (:mod:`genda.verify.statistics`); a metric is taken of the means, so RMSE is the
root of a mean, spread/skill the root of a ratio of means, and any split of the dates into chunks gives the same score.

A metric has one number per channel, or one for all channels, or one per pressure level or layer: :attr:`Metric.columns` names them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from genda.verify import balance, decomposition, ensemble, scores, tendencies
from genda.verify.scores import Array
from genda.verify.spectra import BANDS

Means = Mapping[str, Array]
Columns = Callable[[tuple[str, ...]], tuple[str, ...]]
"""Names of a metric's numbers, given the channels."""
POOLED = "all"
"""Column name of a score over all channels."""


def each_channel(channels: tuple[str, ...]) -> tuple[str, ...]:
    """One number per channel."""
    return channels


def all_channels(_: tuple[str, ...]) -> tuple[str, ...]:
    """One number for all channels."""
    return (POOLED,)


@dataclass(frozen=True)
class Metric:
    """A score as a function of mean statistics.

    Attributes:
        name: identifier, also the key in JSON.
        title: how a table calls it.
        needs: the statistics it reads.
        of: (mean statistics (..., channel or 1, *), std (channel,) or None) -> (..., column).
        columns: names of its numbers.
        dimensional: whether the score carries the channel's units.
        normalised: whether ``of`` needs the standard deviations.
        whole: a statistic that the score sums up and a document shows whole, such as a histogram.
    """

    name: str
    title: str
    needs: tuple[str, ...]
    of: Callable[[Means, Array | None], Array]
    columns: Columns = each_channel
    dimensional: bool = False
    normalised: bool = False
    whole: str | None = None

    @property
    def by_channel(self) -> bool:
        """Whether it is one number per channel."""
        return self.columns is each_channel

    @property
    def pooled(self) -> bool:
        """Whether it is one number for all channels."""
        return self.columns is all_channels


def _over_channels(values: Array, std: Array | None, power: int) -> Array:
    if std is None:
        raise ValueError("std: a score over all channels needs one standard deviation per channel, found none")
    return scores.channel_mean(values, std**power)[..., None]


def _root(name: str, title: str, square: str) -> Metric:
    return Metric(name, title, (square,), lambda s, _: np.sqrt(s[square]), dimensional=True)


def _spread_skill(name: str, title: str, spread: str, error: str) -> Metric:
    return Metric(name, title, (spread, error), lambda s, _: ensemble.spread_skill_ratio(s[spread], s[error]))


def _over_all(name: str, title: str, error: str, power: int) -> Metric:
    """Mean over channels of errors to a power, each in units of its std."""
    return Metric(
        name, title, (error,), lambda s, std: _over_channels(s[error], std, power), all_channels, normalised=True
    )


def _by_equation(name: str, title: str, square: str) -> Metric:
    return Metric(name, title, (square,), lambda s, _: np.sqrt(s[square])[..., 0, :], tendencies.equations)


def _spectral(name: str, title: str) -> Metric:
    return Metric(name, title, (name,), lambda s, _: s[name])


RMSE = _root("rmse", "RMSE", "squared_error")
STATE_RMSE = Metric(
    "state_rmse", "RMSE of a state, mean over times", ("state_error",), lambda s, _: s["state_error"], all_channels
)
"""The mean of roots, as DAPPER's tables have it; at most the root of the mean."""
MSE = Metric("mse", "MSE", ("squared_error",), lambda s, _: s["squared_error"], dimensional=True)
MAE = Metric("mae", "MAE", ("absolute_error",), lambda s, _: s["absolute_error"], dimensional=True)
BIAS = Metric("bias", "Bias", ("error",), lambda s, _: s["error"], dimensional=True)
CRPS = Metric("crps", "Fair CRPS", ("crps",), lambda s, _: s["crps"], dimensional=True)
SPREAD = _root("spread", "Spread", "squared_spread")
SPREAD_SKILL = _spread_skill("spread_skill", "Spread / skill", "squared_spread", "squared_error")
OUTLIERS = Metric(
    "outliers",
    "Outliers / expected",
    ("rank_histogram",),
    lambda s, _: ensemble.outlier_ratio(s["rank_histogram"]),
    whole="rank_histogram",
)
CRPS_RELIABILITY = Metric(
    "crps_reliability",
    "CRPS reliability",
    ("crps_alpha", "crps_beta", "rank_histogram"),
    lambda s, _: decomposition.crps_parts(s["crps_alpha"], s["crps_beta"], s["rank_histogram"])[0],
    dimensional=True,
)
CRPS_POTENTIAL = Metric(
    "crps_potential",
    "Potential CRPS",
    ("crps_alpha", "crps_beta", "rank_histogram"),
    lambda s, _: decomposition.crps_parts(s["crps_alpha"], s["crps_beta"], s["rank_histogram"])[1],
    dimensional=True,
)
ENERGY_SCORE = Metric(
    "energy_score", "Fair energy score", ("energy_score",), lambda s, _: s["energy_score"], all_channels
)
SPECDIV = _spectral("specdiv", "SpecDiv (members)")
SPECDIV_MEAN = _spectral("specdiv_mean", "SpecDiv (mean)")
SPECDIV_ANOMALY = _spectral("specdiv_anomaly", "SpecDiv of anomalies (members)")
SPECDIV_ANOMALY_MEAN = _spectral("specdiv_anomaly_mean", "SpecDiv of anomalies (mean)")
NMSE = _over_all("nmse", "Normalised MSE", "squared_error", 2)
NMAE = _over_all("nmae", "Normalised MAE", "absolute_error", 1)
FORECAST_NMSE = _over_all("forecast_nmse", "Normalised MSE of forecasts", "forecast_squared_error", 2)
"""Of forecasts from analyses of twin experiments, or to those of a cycle."""
FORECAST_RMSE = _root("forecast_rmse", "RMSE of forecasts", "forecast_squared_error")
FORECAST_SPREAD_SKILL = _spread_skill(
    "forecast_spread_skill", "Spread / skill of forecasts", "forecast_squared_spread", "forecast_squared_error"
)
CHI_SQUARE = Metric(
    "chi_square",
    "Misfit of members to observations / R",
    ("observation_misfit",),
    lambda s, _: s["observation_misfit"],
    all_channels,
)
"""1 where members are draws of the posterior and R is the observations' own error: they are as far from them as the truth is."""
DEPARTURE_CHI_SQUARE = Metric(
    "departure_chi_square",
    "Squared departures / expected",
    ("departure_chi_square",),
    lambda s, _: s["departure_chi_square"],
)
"""Of withheld observations from the mean, over the members' variance and R: 1 of an ensemble whose spread is its error."""
KINETIC_ENERGY = Metric(
    "kinetic_energy",
    "Kinetic energy / truth's",
    ("kinetic_energy", "kinetic_energy_truth"),
    lambda s, _: (s["kinetic_energy"] / s["kinetic_energy_truth"])[..., 0, :],
    lambda _: tuple(BANDS),
)
GEOSTROPHIC = Metric(
    "geostrophic",
    "Ageostrophic wind / truth's [hPa]",
    ("geostrophic_residual", "geostrophic_residual_truth"),
    lambda s, _: np.sqrt(s["geostrophic_residual"] / s["geostrophic_residual_truth"])[..., 0, :],
    balance.geostrophic_levels,
)
HYDROSTATIC = Metric(
    "hydrostatic",
    "Hydrostatic residual / truth's [hPa]",
    ("hydrostatic_residual", "hydrostatic_residual_truth"),
    lambda s, _: np.sqrt(s["hydrostatic_residual"] / s["hydrostatic_residual_truth"])[..., 0, :],
    balance.hydrostatic_layers,
)
TENDENCIES = _by_equation("tendencies", "Error of tendencies / truth's", "tendency_error")
TENDENCY_SIZE = _by_equation("tendency_size", "Size of tendencies / truth's", "tendency_size")
METRICS: Mapping[str, Metric] = {
    m.name: m
    for m in (
        RMSE,
        STATE_RMSE,
        MSE,
        MAE,
        BIAS,
        CRPS,
        CRPS_RELIABILITY,
        CRPS_POTENTIAL,
        SPREAD,
        SPREAD_SKILL,
        OUTLIERS,
        SPECDIV,
        SPECDIV_MEAN,
        SPECDIV_ANOMALY,
        SPECDIV_ANOMALY_MEAN,
        NMSE,
        NMAE,
        ENERGY_SCORE,
        FORECAST_NMSE,
        FORECAST_RMSE,
        FORECAST_SPREAD_SKILL,
        CHI_SQUARE,
        DEPARTURE_CHI_SQUARE,
        KINETIC_ENERGY,
        GEOSTROPHIC,
        HYDROSTATIC,
        TENDENCIES,
        TENDENCY_SIZE,
    )
}

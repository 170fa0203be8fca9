"""Statistic → weighted mean → metric: scores that can be computed date by date and merged.

A *statistic* is what averages linearly: a squared error, an absolute error, a squared spread. :class:`Statistics` holds
one number per sample (a date, or a station) and channel. A *metric* is a function of the means over samples, so RMSE is
the root of the mean, spread/skill the root of a ratio of means, and any split into chunks gives the same score.

The standard error of any metric, a paired ratio included, is the delete-one jackknife over samples

    se² = (n-1)/n Σ_i (θ_(i) - mean θ)²,       θ_(i) the metric without sample i,

which for a plain mean is exactly s / √n. It takes the samples as independent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genda.grid import LatLonGrid
from genda.sphere import triangular_limit
from genda.verify import ensemble, scores
from genda.verify.scores import Array
from genda.verify.specdiv import sample_spectral_divergence
from genda.verify.spectra import has_harmonics

Means = Mapping[str, Array]


@dataclass(frozen=True)
class Metric:
    """A score as a function of mean statistics.

    Attributes:
        name: identifier, also the key in JSON.
        title: how a table calls it.
        needs: the statistics it reads.
        of: (mean statistics (..., channel), std (channel,) or None) -> (..., channel), or (..., 1) where pooled.
        dimensional: whether the score carries the channel's units.
        pooled: whether it is one number for all channels.
        scaled: whether it needs each channel's std.
    """

    name: str
    title: str
    needs: tuple[str, ...]
    of: Callable[[Means, Array | None], Array]
    dimensional: bool = True
    pooled: bool = False
    scaled: bool = False


def _pooled(values: Array, std: Array | None, power: int) -> Array:
    if std is None:
        raise ValueError("std: a score over all channels needs one standard deviation per channel, found none")
    return scores.channel_mean(values, std**power)[..., None]


RMSE = Metric("rmse", "RMSE", ("squared_error",), lambda s, _: np.sqrt(s["squared_error"]))
STATE_RMSE = Metric(
    "state_rmse",
    "RMSE of a state, mean over times",
    ("state_error",),
    lambda s, _: s["state_error"].mean(axis=-1, keepdims=True),
    pooled=True,
)
"""The mean of roots, as DAPPER's tables have it; at most the root of the mean."""
MSE = Metric("mse", "MSE", ("squared_error",), lambda s, _: s["squared_error"])
MAE = Metric("mae", "MAE", ("absolute_error",), lambda s, _: s["absolute_error"])
BIAS = Metric("bias", "Bias", ("error",), lambda s, _: s["error"])
CRPS = Metric("crps", "Fair CRPS", ("crps",), lambda s, _: s["crps"])
SPREAD = Metric("spread", "Spread", ("squared_spread",), lambda s, _: np.sqrt(s["squared_spread"]))
SPREAD_SKILL = Metric(
    "spread_skill",
    "Spread / skill",
    ("squared_spread", "squared_error"),
    lambda s, _: ensemble.spread_skill_ratio(s["squared_spread"], s["squared_error"]),
    dimensional=False,
)
SPECDIV = Metric("specdiv", "SpecDiv (members)", ("specdiv",), lambda s, _: s["specdiv"], dimensional=False)
SPECDIV_MEAN = Metric("specdiv_mean", "SpecDiv (mean)", ("specdiv_mean",), lambda s, _: s["specdiv_mean"], False)
NMSE = Metric(
    "nmse", "Normalised MSE", ("squared_error",), lambda s, std: _pooled(s["squared_error"], std, 2), False, True, True
)
NMAE = Metric(
    "nmae",
    "Normalised MAE",
    ("absolute_error",),
    lambda s, std: _pooled(s["absolute_error"], std, 1),
    False,
    True,
    True,
)
METRICS: Mapping[str, Metric] = {
    m.name: m for m in (RMSE, STATE_RMSE, MSE, MAE, BIAS, CRPS, SPREAD, SPREAD_SKILL, SPECDIV, SPECDIV_MEAN, NMSE, NMAE)
}


@dataclass(frozen=True)
class Estimate:
    """A metric with its standard error, each of shape (channel,), or (1,) for a pooled metric; NaN where undefined."""

    mean: Array
    stderr: Array


@dataclass(frozen=True)
class Statistics:
    """Statistics per sample and channel.

    Attributes:
        samples: what was averaged within: valid times, or stations; unique.
        channels: identifiers.
        values: statistic name to shape (sample, channel); finite where ``weight`` is positive.
        weight: shape (sample, channel): ones for fields, the number of observations for stations.
    """

    samples: tuple[object, ...]
    channels: tuple[str, ...]
    values: Mapping[str, Array]
    weight: Array

    def __post_init__(self) -> None:
        shape = (len(self.samples), len(self.channels))
        if len(set(self.samples)) != len(self.samples):
            raise ValueError("statistics: found a sample twice, expected each date or station once")
        for name, values in (("weight", self.weight), *self.values.items()):
            if values.shape != shape:
                raise ValueError(f"statistic {name}: found shape {values.shape}, expected (sample, channel) = {shape}")
            if not np.isfinite(values[self.weight > 0]).all():
                raise ValueError(f"statistic {name}: found a value that is not finite")

    def merge(self, other: Statistics) -> Statistics:
        """Samples of both; statistics that only one holds are dropped.

        Raises:
            ValueError: for different channels or a sample that both hold.
        """
        if self.channels != other.channels:
            raise ValueError(f"channels: found {', '.join(other.channels)}, expected {', '.join(self.channels)}")
        common = [name for name in self.values if name in other.values]
        values = {name: np.concatenate([self.values[name], other.values[name]]) for name in common}
        return Statistics(
            self.samples + other.samples, self.channels, values, np.concatenate([self.weight, other.weight])
        )

    def only(self, samples: Sequence[object]) -> Statistics:
        """The given samples, in that order.

        Raises:
            ValueError: for a sample that is not there.
        """
        position = {sample: i for i, sample in enumerate(self.samples)}
        missing = [sample for sample in samples if sample not in position]
        if missing:
            raise ValueError(f"statistics: found no sample {missing[0]}, expected it among {len(self.samples)}")
        index = [position[sample] for sample in samples]
        values = {name: v[index] for name, v in self.values.items()}
        return Statistics(tuple(samples), self.channels, values, self.weight[index])

    def supports(self, metric: Metric) -> bool:
        return all(name in self.values for name in metric.needs)

    def means(self) -> dict[str, Array]:
        """Weighted means over samples, name to shape (channel,); NaN where a channel has no weight."""
        total = self.weight.sum(axis=0)
        return {name: _divide((self.weight * v).sum(axis=0), total) for name, v in self._clean().items()}

    def means_without_each(self) -> dict[str, Array]:
        """The means with one sample left out in turn, name to shape (sample, channel)."""
        left = self.weight.sum(axis=0) - self.weight
        return {
            name: _divide((self.weight * v).sum(axis=0) - self.weight * v, left) for name, v in self._clean().items()
        }

    def _clean(self) -> dict[str, Array]:
        return {name: np.where(self.weight > 0, v, 0.0) for name, v in self.values.items()}


def _divide(numerator: Array, denominator: Array) -> Array:
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0)


def jackknife(full: Array, without_each: Array, weight: Array) -> Estimate:
    """Mean and delete-one standard error over the samples that carry weight; NaN error for fewer than two of them.

    Args:
        full: the metric of all samples, shape (channel,).
        without_each: the metric without each sample, shape (sample, channel).
        weight: shape (sample, channel); where 0 the sample says nothing about that channel.
    """
    if full.shape[-1] != weight.shape[-1]:  # a pooled metric: a sample counts if any channel saw it
        weight = weight.max(axis=-1, keepdims=True)
    used = weight > 0
    n = used.sum(axis=0)
    values = np.where(used, without_each, 0.0)
    centre = _divide(values.sum(axis=0), n.astype(np.float64))
    squares = np.where(used, (values - centre) ** 2, 0.0).sum(axis=0)
    stderr = np.where(n > 1, np.sqrt(np.maximum(n - 1, 0) / np.maximum(n, 1) * squares), np.nan)
    return Estimate(full, stderr)


def estimate(statistics: Statistics, metric: Metric, std: Array | None = None) -> Estimate:
    """A metric over all samples and its standard error."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return jackknife(
            metric.of(statistics.means(), std), metric.of(statistics.means_without_each(), std), statistics.weight
        )


def ratio(statistics: Statistics, reference: Statistics, metric: Metric, std: Array | None = None) -> Estimate:
    """A metric relative to the reference's over the same samples, with the paired standard error of the ratio.

    Raises:
        ValueError: where samples or channels differ: an unpaired ratio compares different weather.
    """
    if statistics.samples != reference.samples or statistics.channels != reference.channels:
        raise ValueError("reference: found other dates, stations or channels, expected the same for a paired ratio")
    with np.errstate(divide="ignore", invalid="ignore"):
        full = metric.of(statistics.means(), std) / metric.of(reference.means(), std)
        without = metric.of(statistics.means_without_each(), std) / metric.of(reference.means_without_each(), std)
        return jackknife(full, without, statistics.weight)


def field_statistics(
    forecast: Tensor,
    truth: Tensor,
    *,
    times: NDArray[np.datetime64],
    channels: Sequence[str],
    grid: LatLonGrid,
    weights: Tensor | Array | None = None,
    min_degree: int | None = 13,
) -> Statistics:
    """Every statistic of gridded forecasts or ensembles, one row per date, computed one date at a time.

    Args:
        forecast: shape (time, channel, lat, lon), or (time, member, channel, lat, lon) for an ensemble, physical units.
        truth: shape (time, channel, lat, lon).
        times: valid times, shape (time,).
        channels: identifiers, in order.
        grid: where the values stand.
        weights: shape (lat,) or (lat, lon); default the grid's area weights. Give a map to score a region.
        min_degree: first degree of the per-sample spectral divergence; None leaves it out, as does a grid without
            spherical harmonics of that degree.

    Returns:
        errors of the forecast or of the ensemble mean; squared spread of an ensemble; fair CRPS (absolute error of a
        deterministic forecast); SpecDiv, averaged over members, and of the mean.

    Raises:
        ValueError: for shapes that do not agree, or a value that is not finite (channel and time named).
    """
    expected = (len(times), len(channels), *grid.shape)
    if tuple(truth.shape) != expected:
        raise ValueError(f"truth: found shape {tuple(truth.shape)}, expected (time, channel, lat, lon) = {expected}")
    if forecast.ndim not in (4, 5) or (forecast.shape[0], *forecast.shape[-3:]) != expected:
        found = tuple(forecast.shape)
        raise ValueError(f"forecast: found shape {found}, expected (time, [member,] channel, lat, lon) = {expected}")
    area = grid.area_weights if weights is None else weights
    resolved = has_harmonics(grid) and min_degree is not None and min_degree < triangular_limit(grid) - 1
    first = min_degree if resolved else None
    rows: list[dict[str, Array]] = []
    for x, y, time in zip(forecast, truth, times, strict=True):
        for name, field in (("forecast", x), ("truth", y)):
            bad = ~torch.isfinite(field).flatten(-2).all(dim=-1).reshape(-1, len(channels)).all(dim=0)
            if bool(bad.any()):
                where = f"{channels[int(bad.nonzero()[0])]} at {time}"
                raise ValueError(f"{name}: found a value that is not finite in {where}")
        rows.append({name: v.cpu().numpy() for name, v in _one_date(x, y, area, grid, first).items()})
    values = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    samples = tuple(np.asarray(times, dtype="datetime64[ns]"))
    return Statistics(samples, tuple(channels), values, np.ones((len(times), len(channels))))


def _one_date(
    x: Tensor, y: Tensor, area: Tensor | Array, grid: LatLonGrid, min_degree: int | None
) -> dict[str, Tensor]:
    best = x.double().mean(dim=0) if x.ndim == 4 else x.double()
    out = {
        "squared_error": scores.mse(best, y, area),
        "absolute_error": scores.mae(best, y, area),
        "error": scores.bias(best, y, area),
    }
    if x.ndim == 4 and x.shape[0] > 1:
        out["squared_spread"] = scores.area_mean(ensemble.squared_spread(x), area)
        out["crps"] = scores.area_mean(ensemble.fair_crps(x, y), area)
    else:
        out["crps"] = out["absolute_error"]
    if min_degree is not None:
        out["specdiv_mean"] = sample_spectral_divergence(best, y, grid, min_degree)
        members = sample_spectral_divergence(x, y, grid, min_degree)
        out["specdiv"] = members.mean(dim=0) if x.ndim == 4 else members
    return out

"""Statistic → weighted mean → metric: scores that can be computed date by date and merged.

A *statistic* is what averages linearly: a squared error, an absolute error, a squared spread. :class:`Statistics` holds
it per sample (a date, or a station), per channel or for the state as a whole: a number, or an array such as a histogram. A
*metric* (:mod:`genda.verify.metrics`) is a function of the means over samples.

The standard error of any metric, a paired ratio included, is the delete-one jackknife over samples

    se² = (n-1)/n Σ_i (θ_(i) - mean θ)²,       θ_(i) the metric without sample i,

which for a plain mean is exactly s / √n. It takes the samples as independent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from genda.verify.metrics import Metric
from genda.verify.scores import Array


@dataclass(frozen=True)
class Estimate:
    """A metric with its standard error, each of shape (column,), see :class:`Metric`; NaN where undefined."""

    mean: Array
    stderr: Array


@dataclass(frozen=True)
class Statistics:
    """Statistics per sample.

    Attributes:
        samples: what was averaged within: valid times, or stations; unique.
        channels: identifiers.
        values: statistic name to shape (sample, channel, ...), or (sample, 1, ...) for one of the state as a whole; finite
            where the weight is positive.
        weight: shape (sample, channel): ones for fields, the number of observations for stations. What is of the state as a
            whole has the largest of a sample's weights.
    """

    samples: tuple[object, ...]
    channels: tuple[str, ...]
    values: Mapping[str, Array]
    weight: Array

    def __post_init__(self) -> None:
        shape = (len(self.samples), len(self.channels))
        if len(set(self.samples)) != len(self.samples):
            raise ValueError("statistics: found a sample twice, expected each date or station once")
        if self.weight.shape != shape:
            raise ValueError(f"weight: found shape {self.weight.shape}, expected (sample, channel) = {shape}")
        for name, values in self.values.items():
            if values.shape[:2] not in (shape, (shape[0], 1)):
                found = values.shape
                raise ValueError(
                    f"statistic {name}: found shape {found}, expected (sample, channel or 1, ...) = {shape}"
                )
            if not np.isfinite(values[self.weight_like(values) > 0]).all():
                raise ValueError(f"statistic {name}: found a value that is not finite")

    def weight_like(self, values: Array) -> Array:
        """The weights of a statistic, or of a metric of each sample: per channel, or the largest of the sample, (sample, 1)."""
        return self.weight if values.shape[1] == len(self.channels) else self.weight.max(axis=1, keepdims=True)

    def merge(self, other: Statistics) -> Statistics:
        """Samples of both; statistics that only one holds are dropped.

        Raises:
            ValueError: for different channels, a sample that both hold, or histograms of ensembles of different sizes.
        """
        if self.channels != other.channels:
            raise ValueError(f"channels: found {', '.join(other.channels)}, expected {', '.join(self.channels)}")
        common = [name for name in self.values if name in other.values]
        for name in common:
            found, expected = other.values[name].shape[1:], self.values[name].shape[1:]
            if found != expected:
                raise ValueError(
                    f"statistic {name}: found shape {found} of a sample, expected {expected} to merge with"
                )
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

    def common_samples(self, other: Statistics) -> list[object]:
        """Samples that the other holds too, in the order they have here."""
        held = set(other.samples)
        return [sample for sample in self.samples if sample in held]

    def supports(self, metric: Metric) -> bool:
        return all(name in self.values for name in metric.needs)

    def means(self) -> dict[str, Array]:
        """Weighted means over samples, name to shape (channel or 1, ...); NaN where a channel has no weight."""
        return {name: _mean(v, self.weight_like(v)) for name, v in self.values.items()}

    def means_without_each(self) -> dict[str, Array]:
        """The means with one sample left out in turn, name to shape (sample, channel or 1, ...)."""
        return {name: _mean_without_each(v, self.weight_like(v)) for name, v in self.values.items()}


def _mean(values: Array, weight: Array) -> Array:
    w = weight.reshape(*weight.shape, *[1] * (values.ndim - 2))
    return _divide(_product(w, values).sum(axis=0), w.sum(axis=0))


def _mean_without_each(values: Array, weight: Array) -> Array:
    w = weight.reshape(*weight.shape, *[1] * (values.ndim - 2))
    products = _product(w, values)
    return _divide(products.sum(axis=0) - products, w.sum(axis=0) - w)


def _product(weight: Array, values: Array) -> Array:
    return np.where(weight > 0, weight * values, 0.0)  # what has no weight may be anything


def _divide(numerator: Array, denominator: Array) -> Array:
    return np.divide(numerator, denominator, out=np.full_like(numerator, np.nan), where=denominator > 0)


def jackknife(full: Array, without_each: Array, weight: Array) -> Estimate:
    """Mean and delete-one standard error over the samples that carry weight; NaN error for fewer than two of them.

    Args:
        full: the metric of all samples, shape (column,).
        without_each: the metric without each sample, shape (sample, column).
        weight: shape (sample, column) or (sample, 1); where 0 the sample says nothing about that column.
    """
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
        full, without = metric.of(statistics.means(), std), metric.of(statistics.means_without_each(), std)
        return jackknife(full, without, statistics.weight_like(without))


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
        return jackknife(full, without, statistics.weight_like(without))

"""Area-weighted errors of gridded fields: the statistics behind RMSE, MAE and bias.

    area mean   <e> = Σ_ij w_i e_ij / Σ_ij w_i          w_i the grid's area weights, or a map of weights for a region
    MSE = <(x - truth)²>,  MAE = <|x - truth|>,  bias = <x - truth>,  RMSE = sqrt(MSE)

PhyDA Eq. 12 and WeatherBench 2 are this with w = cos(latitude). Everything is computed in float64. Over several dates a
mean of squared errors is taken first and its root last (:mod:`genda.verify.statistics`).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]


def area_mean(values: Tensor, weights: Tensor | Array) -> Tensor:
    """Weighted mean over latitude and longitude.

    Args:
        values: shape (..., lat, lon).
        weights: shape (lat,), such as ``grid.area_weights``, or (lat, lon) to score a region; any positive scale.

    Returns:
        shape (...), float64.

    Raises:
        ValueError: for weights of another shape, negative, not finite or all zero.
    """
    return (values.double() * normalised_weights(weights, values)).sum(dim=(-2, -1))


def normalised_weights(weights: Tensor | Array, values: Tensor) -> Tensor:
    """Weights of the points of ``values``, shape (lat, lon), that sum to 1; float64.

    Raises:
        ValueError: as :func:`area_mean`.
    """
    w = torch.as_tensor(weights, dtype=torch.float64, device=values.device)
    if w.ndim == 1:
        w = w[:, None].expand(-1, values.shape[-1])
    if tuple(w.shape) != tuple(values.shape[-2:]):
        raise ValueError(f"weights: found shape {tuple(w.shape)}, expected (lat,) or {tuple(values.shape[-2:])}")
    total = w.sum()
    if not bool(torch.isfinite(w).all()) or bool((w < 0).any()) or float(total) <= 0:
        raise ValueError("weights: found negative, missing or only zero values, expected a positive sum")
    return w / total


def _error(forecast: Tensor, truth: Tensor) -> Tensor:
    found, expected = tuple(forecast.shape[-3:]), tuple(truth.shape[-3:])
    if found != expected:
        raise ValueError(f"forecast: found (channel, lat, lon) = {found}, expected the truth's {expected}")
    return forecast.double() - truth.double()


def mse(forecast: Tensor, truth: Tensor, weights: Tensor | Array) -> Tensor:
    """Mean squared error, shapes (..., channel, lat, lon) to (..., channel), units squared."""
    return area_mean(_error(forecast, truth) ** 2, weights)


def rmse(forecast: Tensor, truth: Tensor, weights: Tensor | Array) -> Tensor:
    """Root mean squared error of each field, shapes (..., channel, lat, lon) to (..., channel)."""
    return mse(forecast, truth, weights).sqrt()


def mae(forecast: Tensor, truth: Tensor, weights: Tensor | Array) -> Tensor:
    """Mean absolute error, shapes (..., channel, lat, lon) to (..., channel)."""
    return area_mean(_error(forecast, truth).abs(), weights)


def bias(forecast: Tensor, truth: Tensor, weights: Tensor | Array) -> Tensor:
    """Mean error, forecast minus truth, shapes (..., channel, lat, lon) to (..., channel)."""
    return area_mean(_error(forecast, truth), weights)


def channel_mean(score: Array, scale: Array) -> Array:
    """One number for all channels, the mean of score / scale (std² for a normalised MSE), (..., channel) to (...)."""
    return np.asarray((score / scale).mean(axis=-1))

"""From what instruments report to the table's variables.

Saturation vapour pressure over water, t in °C (WMO-No. 8, Guide to Instruments and Methods of Observation,
volume I, annex 4.B):

    e_w(t) = 611.2 Pa · exp(17.62 t / (243.12 + t))

Radiosondes report relative humidity and dew point with respect to water at every temperature, so the same
formula serves below 0 °C; the moist-air enhancement factor (0.4 %) is left out. Specific humidity of vapour
pressure e at pressure p:

    q = ε e / (p − (1 − ε) e),  ε = 0.62198

Wind from direction d (whence it blows, degrees clockwise from north) and speed s: u = −s sin d, v = −s cos d.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
ZERO_CELSIUS = 273.15
EPSILON = 0.62198
"""Ratio of the molar masses of water and dry air (WMO-No. 8)."""


def saturation_vapour_pressure(temperature: Array) -> Array:
    """Saturation vapour pressure over water, Pa, at ``temperature`` K; the vapour pressure where given a dew point."""
    celsius = temperature - ZERO_CELSIUS
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        return np.asarray(611.2 * np.exp(17.62 * celsius / (243.12 + celsius)))


def specific_humidity(vapour_pressure: Array, pressure: Array) -> Array:
    """Specific humidity, kg/kg, of vapour pressure and total pressure in Pa; NaN where vapour exceeds the total."""
    with np.errstate(divide="ignore", invalid="ignore"):
        q = EPSILON * vapour_pressure / (pressure - (1.0 - EPSILON) * vapour_pressure)
        return np.asarray(np.where((vapour_pressure >= 0) & (vapour_pressure <= pressure), q, np.nan))


def wind_components(direction: Array, speed: Array) -> tuple[Array, Array]:
    """Eastward and northward wind, m/s, of a direction in degrees and a speed in m/s.

    A calm needs no direction. Directions outside 0–360 and negative speeds give NaN.
    """
    angle = np.radians(np.where(speed == 0, 0.0, direction))
    valid = (angle >= 0) & (angle <= 2 * np.pi) & (speed >= 0)
    u, v = -speed * np.sin(angle), -speed * np.cos(angle)
    return np.where(valid, u, np.nan) + 0.0, np.where(valid, v, np.nan) + 0.0

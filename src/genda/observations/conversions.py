r"""From what instruments report to the table's variables, with the errors they carry.

Saturation vapour pressure over water, t in °C (WMO-No. 8, Guide to Instruments and Methods of Observation,
volume I, annex 4.B):

    e_w(t) = 611.2 Pa · exp(17.62 t / (243.12 + t))

Radiosondes report relative humidity and dew point with respect to water at every temperature, so the same
formula serves below 0 °C; the moist-air enhancement factor (0.4 %) is left out. Specific humidity of vapour
pressure e at pressure p:

    q = ε e / (p − (1 − ε) e),  ε = 0.62198

Wind from direction d (whence it blows, degrees clockwise from north) and speed s: u = −s sin d, v = −s cos d.
An aircraft's flight level is the height at which the ICAO standard atmosphere (Doc 7488) has the pressure it measured.

Errors are standard deviations, independent of each other, and propagate to first order: σ_f² = Σ (∂f/∂x_i)² σ_i².
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


def saturation_slope(temperature: Array) -> Array:
    """d e_w / dT, Pa/K, at ``temperature`` K."""
    celsius = temperature - ZERO_CELSIUS
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        return np.asarray(saturation_vapour_pressure(temperature) * 17.62 * 243.12 / (243.12 + celsius) ** 2)


def specific_humidity(vapour_pressure: Array, pressure: Array) -> Array:
    """Specific humidity, kg/kg, of vapour pressure and total pressure in Pa; NaN where vapour exceeds the total."""
    with np.errstate(divide="ignore", invalid="ignore"):
        q = EPSILON * vapour_pressure / (pressure - (1.0 - EPSILON) * vapour_pressure)
        return np.asarray(np.where((vapour_pressure >= 0) & (vapour_pressure <= pressure), q, np.nan))


def specific_humidity_error(
    vapour_pressure: Array, pressure: Array, vapour_error: Array, pressure_error: Array | float = 0.0
) -> Array:
    """Error of :func:`specific_humidity`, kg/kg, from those of vapour pressure and pressure in Pa."""
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = EPSILON / (pressure - (1.0 - EPSILON) * vapour_pressure) ** 2
        return np.asarray(slope * np.hypot(pressure * vapour_error, vapour_pressure * pressure_error))


def wind_components(direction: Array, speed: Array) -> tuple[Array, Array]:
    """Eastward and northward wind, m/s, of a direction in degrees and a speed in m/s.

    A calm needs no direction. Directions outside 0–360 and negative speeds give NaN.
    """
    angle = np.radians(np.where(speed == 0, 0.0, direction))
    valid = (angle >= 0) & (angle <= 2 * np.pi) & (speed >= 0)
    u, v = -speed * np.sin(angle), -speed * np.cos(angle)
    return np.where(valid, u, np.nan) + 0.0, np.where(valid, v, np.nan) + 0.0


def wind_component_errors(
    direction: Array, speed: Array, direction_error: Array, speed_error: Array
) -> tuple[Array, Array]:
    """Errors of u and v, m/s, from those of direction (degrees) and speed; NaN where that of the speed is unknown.

    The speed's error lies along the wind and the direction's across it. In a wind no stronger than the speed's error a direction
    says nothing, and where the direction's error is unknown nothing says how large it is across: there the speed's counts for both.
    """
    angle, across = np.radians(direction), speed * np.radians(direction_error)
    across = np.where((speed <= speed_error) | np.isnan(across), speed_error, across)
    angle = np.where(speed == 0, 0.0, angle)  # a calm needs no direction
    u = np.hypot(np.sin(angle) * speed_error, np.cos(angle) * across)
    v = np.hypot(np.cos(angle) * speed_error, np.sin(angle) * across)
    return u, v


def standard_pressure(altitude: Array) -> Array:
    """Pressure, Pa, of the ICAO standard atmosphere at a pressure altitude of −5 to 20 km; NaN elsewhere."""
    height = np.asarray(altitude, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        below = 101325.0 * np.maximum(1.0 - 0.0065 * height / 288.15, 0.0) ** 5.25588
        above = 22632.06 * np.exp(-(height - 11000.0) / 6341.62)
        inside = (height >= -5000.0) & (height <= 20000.0)
        return np.asarray(np.where(inside, np.where(height <= 11000.0, below, above), np.nan))

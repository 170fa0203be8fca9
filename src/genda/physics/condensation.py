r"""Condensation on the scale of the grid: what rising saturated air must lose to stay saturated.

With the pressure e of saturated vapour over water (Clausius and Clapeyron, constant L) and the saturated humidity q_s

    e = e_0 exp(L/R_v (1/T_0 - 1/T)),     q_s = ε e / (p - (1 - ε) e),     β = p / (p - (1 - ε) e)

q_s follows a rising parcel, c_p dT/dt = R_d T_v ω / p + L C, where it condenses

    C = -(ω/p) β q_s (L R_d T_v - c_p R_v T²) / (c_p R_v T² + β L² q_s)      for ω < 0 and q ≥ q_s, and nothing elsewhere.

References:
    Haltiner and Williams 1980, Numerical Prediction and Dynamic Meteorology, section 9.4.
"""

from __future__ import annotations

import torch
from torch import Tensor

from genda.physics.constants import HEAT_CAPACITY, LATENT_HEAT, VAPOUR_GAS_CONSTANT
from genda.physics.thermodynamics import virtual_temperature
from genda.variables import GAS_CONSTANT

_RATIO = GAS_CONSTANT / VAPOUR_GAS_CONSTANT
_FREEZING, _FREEZING_PRESSURE = 273.15, 611.2


def saturation(t: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """Saturated specific humidity q_s, kg kg⁻¹, and β, of temperatures (K) at pressures (Pa)."""
    e = _FREEZING_PRESSURE * torch.exp(LATENT_HEAT / VAPOUR_GAS_CONSTANT * (1 / _FREEZING - 1 / t))
    dry = p - (1 - _RATIO) * e
    return _RATIO * e / dry, p / dry


def condensation_rate(t: Tensor, q: Tensor, omega: Tensor, p: Tensor) -> Tensor:
    """C, kg kg⁻¹ s⁻¹, of temperatures (K), specific humidities, pressure velocities (Pa s⁻¹) and pressures (Pa)."""
    saturated, beta = saturation(t, p)
    heat = HEAT_CAPACITY * VAPOUR_GAS_CONSTANT * t**2
    lift = LATENT_HEAT * GAS_CONSTANT * virtual_temperature(t, q) - heat
    rate = -(omega / p) * beta * saturated * lift / (heat + beta * LATENT_HEAT**2 * saturated)
    return torch.where((omega < 0) & (q >= saturated), rate, 0.0)

"""Moist air as an ideal gas in hydrostatic balance.

Reference: Holton and Hakim 2013, An Introduction to Dynamic Meteorology, sections 1.4 and 9.3.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from genda.physics.constants import VIRTUAL
from genda.variables import GAS_CONSTANT


def virtual_temperature(t: Tensor, q: Tensor) -> Tensor:
    """T_v = T (1 + 0.608 q), K, of temperature and specific humidity."""
    return t * (1 + VIRTUAL * q)


def thickness(virtual: Tensor, levels: Sequence[int]) -> Tensor:
    """R_d T_v ln(p / p') of layers between neighbouring levels, with the mean T_v of both, m² s⁻².

    Args:
        virtual: T_v, shape (..., level, lat, lon).
        levels: hPa, from the ground up.

    Returns:
        shape (..., layer, lat, lon).
    """
    depth = -torch.tensor(levels, dtype=virtual.dtype, device=virtual.device).log().diff().view(-1, 1, 1)
    return GAS_CONSTANT * depth * 0.5 * (virtual[..., 1:, :, :] + virtual[..., :-1, :, :])

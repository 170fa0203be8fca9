"""Noise: the schedule of levels, and draws that belong to a member rather than to a batch.

Reference: Karras et al. 2022, Eq. 5, t_i = (t_max^{1/rho} + i/(N-1) (t_min^{1/rho} - t_max^{1/rho}))^rho, then 0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor


def karras_schedule(steps: int, sigma_min: float = 0.02, sigma_max: float = 80.0, rho: float = 7.0) -> Tensor:
    """Decreasing noise levels that end in 0, shape (steps + 1,), float64.

    Raises:
        ValueError: for fewer than 2 steps or levels that do not decrease.
    """
    if steps < 2:
        raise ValueError(f"steps: found {steps}, expected at least 2")
    if not 0 < sigma_min < sigma_max:
        raise ValueError(
            f"sigma_min, sigma_max: found {sigma_min:g}, {sigma_max:g}, expected 0 < sigma_min < sigma_max"
        )
    ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
    levels = (sigma_max ** (1 / rho) + ramp * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho
    return torch.cat([levels, levels.new_zeros(1)])


class MemberNoise:
    """Standard normal draws, one independent stream per member.

    A member's stream depends on (seed, member number) alone, so chunks, batch sizes and processes do not matter.

    Args:
        seed: of the ensemble; see :func:`derived_seed` for one per date.
        members: the member numbers of this batch.
    """

    def __init__(self, seed: int, members: Sequence[int]) -> None:
        self._generators = [torch.Generator().manual_seed(derived_seed(seed, member)) for member in members]

    def normal(self, shape: Sequence[int], like: Tensor | None = None) -> Tensor:
        """Draws of shape (members, *shape)."""
        draws = torch.stack([torch.randn(tuple(shape), generator=g) for g in self._generators])
        return draws if like is None else draws.to(like)


def derived_seed(*parts: object) -> int:
    """A 63-bit seed that depends on every part, the same on every machine and in every process."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1

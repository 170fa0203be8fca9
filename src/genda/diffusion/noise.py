r"""Noise: schedules of levels, and draws that belong to a member rather than to a batch.

Levels are those of x_t = x + sigma n, decreasing to 0. The cosine schedule of variance-preserving diffusions, x_t = alpha x + s n,
is the same thing in other units, sigma = s / alpha:

    alpha(t) = cos²(arccos(√eta) t),    s² = 1 - alpha² + eta²,    t uniform from 1 to 0.

References:
    Karras et al. 2022, Eq. 5, t_i = (t_max^{1/rho} + i/(N-1) (t_min^{1/rho} - t_max^{1/rho}))^rho;
    Rozet and Louppe 2023, arXiv 2306.10574 (VP-cosine with eta, which makes alpha² + s² = 1 + eta²).
"""

from __future__ import annotations

import hashlib
import math
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


VP_ETA = 1e-3
"""eta of the cosine schedule, whose levels reach from 1/eta down to eta."""


def vp_cosine_sigma(t: Tensor) -> Tensor:
    """sigma = s / alpha of the cosine schedule at times ``t`` in [0, 1]."""
    alpha = torch.cos(math.acos(math.sqrt(VP_ETA)) * t) ** 2
    return (1 - alpha**2 + VP_ETA**2).sqrt() / alpha


def vp_cosine_schedule(steps: int, sigma_min: float = 0.02, sigma_max: float = 80.0) -> Tensor:
    """Levels at uniform times of the cosine schedule, as :func:`karras_schedule`."""
    if steps < 2:
        raise ValueError(f"steps: found {steps}, expected at least 2")
    if not VP_ETA <= sigma_min < sigma_max <= 1 / VP_ETA:
        raise ValueError(
            f"sigma_min, sigma_max: found {sigma_min:g}, {sigma_max:g}, expected {VP_ETA:g} <= sigma_min < sigma_max "
            f"<= {1 / VP_ETA:g}"
        )
    ends = torch.tensor([sigma_max, sigma_min], dtype=torch.float64)
    first, last = torch.acos(((1 + VP_ETA**2) / (1 + ends**2)) ** 0.25) / math.acos(math.sqrt(VP_ETA))
    times = first + (last - first) * torch.linspace(0, 1, steps, dtype=torch.float64)
    return torch.cat([vp_cosine_sigma(times), torch.zeros(1, dtype=torch.float64)])


class MemberNoise:
    """Standard normal draws, one stream per member, independent of the others' unless they are antithetic.

    A member's stream depends on (seed, member number) alone, so chunks, batch sizes and processes do not matter.

    Args:
        seed: of the ensemble; see :func:`derived_seed` for one per date.
        members: the member numbers of this batch.
        antithetic: members 2k and 2k + 1 get the same draws with opposite signs.
    """

    def __init__(self, seed: int, members: Sequence[int], antithetic: bool = False) -> None:
        streams = [member // 2 if antithetic else member for member in members]
        self._generators = [torch.Generator().manual_seed(derived_seed(seed, stream)) for stream in streams]
        self._signs = torch.tensor([-1.0 if antithetic and member % 2 else 1.0 for member in members])

    def normal(self, shape: Sequence[int], like: Tensor | None = None) -> Tensor:
        """Draws of shape (members, *shape)."""
        draws = torch.stack([torch.randn(tuple(shape), generator=g) for g in self._generators])
        draws = draws * self._signs.view(-1, *[1] * len(shape))
        return draws if like is None else draws.to(like)


def derived_seed(*parts: object) -> int:
    """A 63-bit seed that depends on every part, the same on every machine and in every process."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1

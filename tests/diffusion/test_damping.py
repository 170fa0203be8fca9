"""What a background tells of its error, against the regression of a joint Gaussian in closed form."""

import pytest
import torch

from genda.diffusion.damping import damping_shares, expected_errors
from genda.diffusion.zonal_gaussian import ZonalGaussian

SHAPE = (2, 4, 8)


@pytest.mark.parametrize("modes", [1000, 20])
@pytest.mark.parametrize("rho", [0.8, 0.5])
def test_forecasts_with_the_climate_of_truths_are_damped_by_half_their_share_of_error(modes, rho):
    """With b = ρ x + √(1 - ρ²) x', x and x' of one climate C: errors x - b have 2 (1 - ρ) C, and E[x - b | b] = -(1 - ρ) b."""
    generator = torch.Generator().manual_seed(0)
    roots = [torch.randn(8, 8, generator=generator, dtype=torch.complex64) for _ in range(5)]
    roots = [root.real.to(root) if m in (0, 4) else root for m, root in enumerate(roots)]
    climate = ZonalGaussian.truncated([root @ root.mH for root in roots], SHAPE, modes)
    x, other = (climate.filtered(torch.randn(20_000, *SHAPE, generator=generator), torch.sqrt) for _ in range(2))
    b, base = rho * x + (1 - rho**2) ** 0.5 * other, climate.scaled(2 * (1 - rho))
    shares = damping_shares(base, torch.split(b, 64))
    known = shares if modes == 20 else shares[:-1]  # all modes leave nothing outside
    torch.testing.assert_close(known, torch.full_like(known, 1 - rho), rtol=0.1, atol=0)
    expected = -(1 - rho) * b[:4]
    found = expected_errors(base, b[:4], shares)
    assert float((found - expected).norm() / expected.norm()) < 0.03
    torch.testing.assert_close(expected_errors(base, b[:4], shares.expand(4, -1)), found)
    left = x - b - expected_errors(base, b, shares)
    assert float(left.square().mean() / (x - b).square().mean()) == pytest.approx(1 - (1 - rho) / 2, rel=0.02)

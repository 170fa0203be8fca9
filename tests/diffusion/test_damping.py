"""What a background tells of its error, against the regression of a joint Gaussian in closed form."""

import pytest
import torch

from genda.diffusion.damping import Damping
from genda.diffusion.zonal_gaussian import ZonalGaussian

SHAPE = (2, 4, 8)


@pytest.mark.parametrize("modes", [1000, 20])
def test_forecasts_with_the_climate_of_truths_are_damped_by_half_their_share_of_error(modes):
    """With b = ρ x + √(1 - ρ²) x', x and x' of one climate C: errors x - b have 2 (1 - ρ) C, and E[x - b | b] = -(1 - ρ) b."""
    generator, rhos = torch.Generator().manual_seed(0), (0.8, 0.5)
    roots = [torch.randn(8, 8, generator=generator, dtype=torch.complex64) for _ in range(5)]
    roots = [root.real.to(root) if m in (0, 4) else root for m, root in enumerate(roots)]
    climate = ZonalGaussian.truncated([root @ root.mH for root in roots], SHAPE, modes)
    x, other = (climate.filtered(torch.randn(20_000, *SHAPE, generator=generator), torch.sqrt) for _ in range(2))
    middle, scale = torch.randn(1, *SHAPE, generator=generator), torch.tensor([(2 * (1 - rho)) ** 0.5 for rho in rhos])
    forecasts = torch.cat([middle + rho * x + (1 - rho**2) ** 0.5 * other for rho in rhos])
    lead = torch.arange(2).repeat_interleave(len(x))
    damping = Damping.fit(climate, middle, scale.view(2, 1, 1, 1), forecasts, lead)
    assert damping.shares.shape == (2, len(climate.variance) + 1)
    shown = torch.tensor([0, 1, 30_000, 30_001])
    found = damping(forecasts[shown], lead[shown])
    share = (1 - torch.tensor(rhos))[lead[shown]] / scale[lead[shown]]
    expected = -share.view(-1, 1, 1, 1) * (forecasts[shown] - middle)
    assert float((found - expected).norm() / expected.norm()) < 0.03

"""The background in the prior against the Kalman formulas written out as matrices on a small grid."""

import pytest
import torch

from genda.diffusion.gaussian import ERROR_SIGMAS, SphericalGaussian
from genda.grid import LatLonGrid
from genda.guidance.background import GivenBackground
from genda.sphere import triangular_limit

GRID = LatLonGrid.gaussian(8, 16)
SHAPE = (2, 8, 16)
SIZE = 256
SIGMA = torch.tensor(0.7)


def gaussian(seed, scale):
    """Two correlated channels with a falling spectrum and nothing beyond the truncation."""
    lmax = triangular_limit(GRID)
    root = torch.randn(lmax, 2, 2, generator=torch.Generator().manual_seed(seed))
    spectrum = scale / (1 + torch.arange(lmax)).view(-1, 1, 1) ** 2
    covariance = spectrum * (root @ root.mT + 0.2 * torch.eye(2))
    return SphericalGaussian(GRID, covariance, torch.full((2, 8), 1e-9), torch.ones(len(ERROR_SIGMAS), 2))


def dense(product):
    """A product with fields as a matrix, in double precision."""
    return product(torch.eye(SIZE).view(-1, *SHAPE)).reshape(SIZE, SIZE).double()


def field(seed):
    """A draw within the truncation."""
    one = gaussian(seed, 1.0)
    return one.prior_covariance(torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(seed)))


@pytest.fixture
def case():
    prior, errors = gaussian(1, 1.0), gaussian(2, 0.1)
    background = field(5)[0]
    return prior, errors, background, GivenBackground(prior, prior, errors, background)


def test_the_estimate_moves_by_the_kalman_gain(case):
    prior, errors, background, given = case
    x_t = field(6)
    estimate = prior(x_t, SIGMA)
    v = dense(lambda x: prior.conditional_covariance(x, SIGMA))
    gain = v @ torch.linalg.pinv(v + dense(errors.prior_covariance), rtol=1e-7)
    expected = estimate.flatten().double() + gain @ (background - estimate).flatten().double()
    torch.testing.assert_close(given(x_t, SIGMA).flatten().double(), expected, rtol=0, atol=2e-4)


def test_its_covariance_is_that_of_the_kalman_update(case):
    prior, errors, _, given = case
    v = dense(lambda x: prior.conditional_covariance(x, SIGMA))
    expected = v - v @ torch.linalg.pinv(v + dense(errors.prior_covariance), rtol=1e-7) @ v
    found = dense(lambda x: given.conditional_covariance(x, SIGMA))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.max()))


def test_a_sampler_starts_from_the_gaussian_posterior(case):
    prior, errors, background, given = case
    mean, posterior = given.start()
    c = dense(prior.prior_covariance)
    gain = c @ torch.linalg.pinv(c + dense(errors.prior_covariance), rtol=1e-7)
    torch.testing.assert_close(mean.flatten().double(), gain @ background.flatten().double(), rtol=0, atol=2e-4)
    found, expected = dense(posterior.prior_covariance), c - gain @ c
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(c.max()))


def test_several_noise_levels_in_a_batch_are_refused(case):
    with pytest.raises(ValueError, match="several noise levels in a batch"):
        case[-1](torch.zeros(2, *SHAPE), torch.tensor([0.1, 0.2]))

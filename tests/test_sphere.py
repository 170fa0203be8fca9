"""The spherical transform against torch-harmonics and its own adjoint, on Gaussian grids and grids with poles."""

import numpy as np
import pytest
import torch
from torch_harmonics import InverseRealSHT, RealSHT

from genda.diffusion.gaussian import SphericalGaussian
from genda.grid import LatLonGrid
from genda.sphere import SphericalGradient, SphericalTransform

GRIDS = {
    "legendre-gauss": LatLonGrid.gaussian(16, 32),
    "equiangular": LatLonGrid(tuple(np.linspace(90, -90, 17)), tuple(np.arange(32) * 11.25)),
}


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", GRIDS)
@pytest.mark.parametrize("lmax", [10, 16])
def test_analysis_and_synthesis_are_those_of_torch_harmonics(kind, lmax):
    grid, x = GRIDS[kind], normal(2, 3, *GRIDS[kind].shape)
    transform = SphericalTransform(grid, lmax)
    limits = {"lmax": lmax, "mmax": lmax, "grid": kind, "norm": "ortho"}
    expected = RealSHT(*grid.shape, **limits).double()(x)
    torch.testing.assert_close(transform.analysis(x), expected, rtol=0, atol=1e-12)
    fields = InverseRealSHT(*grid.shape, **limits).double()(expected)
    torch.testing.assert_close(transform.synthesis(expected), fields, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", GRIDS)
def test_projections_are_the_adjoint_of_synthesis(kind):
    transform = SphericalTransform(GRIDS[kind])
    x, waves = normal(2, 3, *GRIDS[kind].shape), normal(transform.lmax, transform.lmax, 2, 2, 3)
    twice = torch.full((transform.lmax, 1, 1, 1, 1), 2.0, dtype=torch.float64)
    twice[0] = 1.0
    expected = float((x * transform.fields(waves)).sum())
    assert float((twice * waves * transform.projections(x)).sum()) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("kind", GRIDS)
def test_the_covariance_of_a_spherical_gaussian_is_symmetric_and_positive(kind):
    grid = GRIDS[kind]
    generator = torch.Generator().manual_seed(1)
    gaussian = SphericalGaussian.fit(torch.randn(20, 3, *grid.shape, generator=generator), grid).double()
    a, b = normal(1, 3, *grid.shape), normal(2, 3, *grid.shape)[1:]
    sigma = torch.tensor([0.7], dtype=torch.float64)
    for product in (gaussian.prior_covariance, lambda v: gaussian.conditional_covariance(v, sigma)):
        assert float((a * product(b)).sum()) == pytest.approx(float((b * product(a)).sum()), rel=1e-8)
        assert float((a * product(a)).sum()) > 0


@pytest.mark.parametrize("kind", GRIDS)
def test_gradients_are_the_derivatives_of_analytic_fields(kind):
    """x = sin φ + cos³ φ sin 3λ + sin φ cos φ cos λ: degrees 1, 3 and 2; its gradient has limits at the poles."""
    grid = GRIDS[kind]
    lat, lon = torch.meshgrid(
        *(torch.deg2rad(torch.tensor(c, dtype=torch.float64)) for c in (grid.latitude, grid.longitude)), indexing="ij"
    )
    x = lat.sin() + lat.cos() ** 3 * (3 * lon).sin() + lat.sin() * lat.cos() * lon.cos()
    north = lat.cos() - 3 * lat.cos() ** 2 * lat.sin() * (3 * lon).sin() + (2 * lat).cos() * lon.cos()
    east = 3 * lat.cos() ** 2 * (3 * lon).cos() - lat.sin() * lon.sin()
    found = SphericalGradient(grid).double()(torch.stack([x, 2 * x]))
    torch.testing.assert_close(found[0], torch.stack([east, 2 * east]), rtol=0, atol=1e-12)
    torch.testing.assert_close(found[1], torch.stack([north, 2 * north]), rtol=0, atol=1e-12)


def test_more_degrees_than_the_grid_resolves_are_refused():
    with pytest.raises(ValueError, match="found 18 degrees, expected at most 16"):
        SphericalTransform(GRIDS["legendre-gauss"], 18)

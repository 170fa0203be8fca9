"""The zonally homogeneous covariance against its definition written out on a small grid."""

import numpy as np
import pytest
import torch

from genda.diffusion.gaussian import SphericalGaussian
from genda.grid import EARTH_RADIUS, LatLonGrid
from genda.methods.localisation import gaspari_cohn, sphere
from genda.methods.zonal_covariance import ZonalCovariance
from genda.sphere import SphericalTransform

GRID = LatLonGrid.gaussian(6, 12)
SHAPE = (2, 6, 12)


def errors(count=30):
    white = torch.randn(count, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return white + torch.roll(white, 1, dims=-1) + 0.5 * torch.roll(white, 1, dims=1)


def dense(sample, radius, nugget):
    """Mean over all rotations in longitude of the sample covariance, times the taper of great-circle distance."""
    rolled = torch.cat([torch.roll(sample, k, dims=-1) for k in range(SHAPE[2])]).flatten(1)
    matrix = rolled.T @ rolled / len(rolled)
    place = sphere(GRID) / EARTH_RADIUS
    chord = np.linalg.norm(place[:, None] - place[None], axis=-1)
    angle = 2 * np.arcsin(np.clip(chord / 2, 0, 1))
    taper = gaspari_cohn(torch.as_tensor(EARTH_RADIUS * angle), radius).repeat(SHAPE[0], SHAPE[0])
    matrix = matrix * taper
    return matrix + nugget * torch.diag(matrix.diagonal())


def test_it_is_the_rotated_sample_covariance_times_the_taper():
    sample, radius, nugget = errors(), 8.0e6, 1e-3
    fitted = ZonalCovariance.fit(sample, GRID, radius, nugget)
    columns = torch.eye(fitted.size, dtype=torch.float64).view(-1, *SHAPE)
    found = fitted.covariance(columns).flatten(1)
    torch.testing.assert_close(found, dense(sample, radius, nugget), rtol=0, atol=1e-6)


def test_the_transpose_is_the_transpose():
    fitted = ZonalCovariance.fit(errors(), GRID)
    generator = torch.Generator().manual_seed(1)
    v = torch.randn(2, fitted.size, dtype=torch.float64, generator=generator)
    x = torch.randn(2, *SHAPE, dtype=torch.float64, generator=generator)
    assert float((fitted.apply(v) * x).sum()) == pytest.approx(float((v * fitted.transpose(x)).sum()), rel=1e-10)


def test_draws_through_the_root_have_the_covariance():
    fitted = ZonalCovariance.fit(errors(), GRID)
    white = torch.randn(40_000, fitted.size, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    draws = fitted.apply(white).flatten(1)
    expected = dense(errors(), 5.0e6, 1e-4)
    assert float((draws.T @ draws / len(draws) - expected).abs().max()) < 0.05 * float(expected.max())


def test_a_regional_grid_is_refused():
    regional = LatLonGrid(tuple(np.linspace(60, 40, 6)), tuple(np.linspace(0, 30, 12)))
    with pytest.raises(ValueError, match="regional grid"):
        ZonalCovariance.fit(errors(), regional)


def test_its_elements_are_those_of_the_product():
    fitted = ZonalCovariance.fit(errors(), GRID, 8.0e6)
    index = torch.tensor([0, 5, 17, 80, 143])
    columns = torch.zeros(len(index), fitted.size, dtype=torch.float64)
    columns[torch.arange(len(index)), index] = 1.0
    products = fitted.covariance(columns.view(-1, *SHAPE)).flatten(1)
    torch.testing.assert_close(fitted.elements(index), products[:, index], rtol=0, atol=1e-10)


def test_the_root_is_a_root():
    fitted = ZonalCovariance.fit(errors(), GRID)
    x = torch.randn(2, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(fitted.apply(fitted.transpose(x)), fitted.covariance(x), rtol=0, atol=1e-10)


def test_the_operational_form_of_a_homogeneous_sample_is_its_spherical_gaussian():
    """Where the standard deviations do not depend on latitude, it is the covariance that SphericalGaussian applies."""
    grid = LatLonGrid.gaussian(16, 32)
    transform = SphericalTransform(grid)
    white = torch.randn(400, 2, *grid.shape, generator=torch.Generator().manual_seed(0))
    smooth = (1 + (torch.arange(transform.lmax) / 3.0) ** 4).rsqrt().view(-1, 1)
    area = torch.as_tensor(grid.area_weights).float().rsqrt().view(-1, 1)
    sample = transform.synthesis(transform.analysis(white * area) * smooth)
    sample = sample / sample.pow(2).mean(dim=(0, 3), keepdim=True).sqrt()
    fitted = ZonalCovariance.isotropic(sample, grid, radius=1e9)
    expected = SphericalGaussian.fit(sample, grid)
    x = torch.randn(3, 2, *grid.shape, generator=torch.Generator().manual_seed(1))
    found, wanted = fitted.covariance(x), expected.prior_covariance(x)
    assert float((found - wanted).norm() / wanted.norm()) < 3e-4

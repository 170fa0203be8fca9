"""Latent methods on a linear case whose answer is the Kalman analysis: increments from N(0, C), C a zonal Gaussian."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from genda.diffusion.hybrid_gaussian import EnsembleBase
from genda.diffusion.increments import IncrementDenoiser, IncrementPrior
from genda.diffusion.sampler import Sampler
from genda.diffusion.zonal_gaussian import ZonalGaussian
from genda.guidance.latent_optimisation import Optimiser
from genda.guidance.mmps import MMPS
from genda.guidance.sda import SDA
from genda.linalg import Diagonal
from genda.methods.diffda import DiffDA
from genda.methods.envar import HybridCovariance
from genda.methods.latent import LatentSampling
from genda.methods.latent_gaussian import LatentGaussian
from genda.methods.latent_variational import LatentVariational
from genda.methods.localisation import Localisation, plane
from genda.methods.losda import LatentOptimisationGuidance
from genda.nn.autoencoder import Autoencoder
from genda.nn.transformer import DiT
from genda.observations.operators import Composed, LinearOperator
from genda.problem import Problem, Source

SHAPE = (2, 4, 8)
SIZE = 64
ERROR = 0.2


def covariance_model():
    """Two channels on four latitudes that correlate with each other and along the circle."""
    generator = torch.Generator().manual_seed(0)
    spectra = []
    for m in range(SHAPE[2] // 2 + 1):
        a = torch.randn(8, 8, dtype=torch.complex64, generator=generator)
        a = a.real.to(a.dtype) if m in (0, 4) else a
        spectra.append((a @ a.mH / 8 + 0.2 * torch.eye(8)) * 3 / (1 + m**2))
    return ZonalGaussian.truncated(spectra, SHAPE, 20)


def prior(floor=0.0, damping=None):
    """Fresh networks say nothing, so that the prior is its Gaussian; the latent is the state itself."""
    base = covariance_model()
    network = DiT(4, 2, SHAPE[1:], context=2, condition=1, patch=2, width=16, depth=1, head=8)
    autoencoder = Autoencoder(2, 2, SHAPE[1:], kind="identity", patch=1)
    return IncrementPrior(
        autoencoder,
        IncrementDenoiser(network, base),
        mean=torch.zeros(2, 1, 1),
        scale=torch.full((2, 1, 1), 0.5),
        static=torch.zeros(0, *SHAPE[1:]),
        floor=torch.full((2,), floor),
        damping=damping,
    ).eval()


def dense(base):
    """Of x - x_b: the increments are in units of 0.5."""
    return 0.25 * base.prior_covariance(torch.eye(SIZE).view(-1, *SHAPE)).flatten(1).double()


def problem(rows=(3, 9, 14, 30, 41, 58), function=None):
    matrix = sp.csr_array(sp.eye_array(SIZE).tocsr()[list(rows)])
    operator = LinearOperator(matrix, SHAPE)
    generator = torch.Generator().manual_seed(2)
    background = torch.randn(SHAPE, generator=generator)
    values = operator(background.unsqueeze(0))[0] + torch.randn(len(rows), generator=generator)
    covariance = Diagonal(torch.full((len(rows),), ERROR**2))
    seen = operator if function is None else Composed(function, operator)
    return Problem(SHAPE, (Source(values, seen, covariance),), background, condition=torch.zeros(1))


def kalman(c, given):
    h = torch.as_tensor(given.sources[0].operator.matrix.toarray())
    gain = c @ h.T @ torch.linalg.inv(h @ c @ h.T + ERROR**2 * torch.eye(len(h)))
    b = given.background.double().flatten()
    return b + gain @ (given.sources[0].values.double() - h @ b), c - gain @ h @ c


def analyse(method, given, members=400):
    return method.analyse(given, members, torch.Generator().manual_seed(0)).double().flatten(1)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_gaussians_own_analysis_is_kalmans(scale):
    p, given = prior().scaled(scale), problem()
    mean, _ = kalman(scale * dense(p.denoiser.base), given)
    (found,) = analyse(LatentGaussian(p), given, 5)  # one analysis, whatever is asked for
    torch.testing.assert_close(found, mean, rtol=0, atol=2e-3)


def test_a_curved_operator_is_linearised_again():
    given = problem(function=lambda y: y + 0.1 * y**3)
    once, thrice = (LatentGaussian(prior(), outer=n) for n in (1, 3))
    long = analyse(LatentGaussian(prior(), outer=30), given)
    assert float((analyse(thrice, given) - long).norm()) < 0.2 * float((analyse(once, given) - long).norm())


@pytest.mark.parametrize(("name", "scale"), [("LO-SDA", 1.0), ("LO-SDA", 3.0), ("MMPS", 1.0)])
def test_ensembles_have_the_kalman_posteriors_mean_and_spread(name, scale):
    p, given = prior().scaled(scale), problem()
    sampler = Sampler(steps=32, sigma_min=0.005, sigma_max=60.0)
    guidance = {
        "LO-SDA": LatentOptimisationGuidance(sampler, optimiser=Optimiser(iterations=1, inner=20)),
        "MMPS": partial(MMPS, iterations=6),
    }[name]
    mean, covariance = kalman(scale * dense(p.denoiser.base), given)
    found = analyse(LatentSampling(p, guidance, sampler), given)
    spread = covariance.diagonal().mean().sqrt()
    assert float((found.mean(dim=0) - mean).square().mean().sqrt() / spread) < 0.08
    assert float(found.var(dim=0).mean().sqrt() / spread) == pytest.approx(1, abs=0.04)


def with_members(given, count=6):
    """The same problem with members about its background, and a taper between the points of its grid."""
    localisation = Localisation(plane(*SHAPE[1:]), 6.0)
    spread = torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(4))
    return replace(given, ensemble=given.background + 0.7 * spread), localisation


def test_with_an_ensembles_covariance_they_have_that_of_the_hybrid_kalman_posterior():
    p, (given, localisation) = prior(), with_members(problem())
    sampler = Sampler(steps=32, sigma_min=0.005, sigma_max=60.0)
    guidance = LatentOptimisationGuidance(sampler, optimiser=Optimiser(iterations=1))
    ensemble = EnsembleBase(localisation.root(1e-9), 0.3, 0.7, 1.0)
    deviations = given.ensemble - given.ensemble.mean(dim=0)
    product = HybridCovariance(deviations.double(), localisation, 0.7).covariance
    hybrid = 0.3 * dense(p.denoiser.base) + product(torch.eye(SIZE).double().view(-1, *SHAPE)).flatten(1)
    mean, covariance = kalman(hybrid, given)
    found = analyse(LatentSampling(p, guidance, sampler, lambda: ensemble), given)
    spread = covariance.diagonal().mean().sqrt()
    assert float((found.mean(dim=0) - mean).square().mean().sqrt() / spread) < 0.08
    assert float(found.var(dim=0).mean().sqrt() / spread) == pytest.approx(1, abs=0.04)


def test_beside_an_ensemble_only_a_share_of_the_networks_correction_is_kept():
    p, (given, localisation) = prior(), with_members(problem())
    torch.nn.init.normal_(p.denoiser.network.head.weight, generator=torch.Generator().manual_seed(0))
    x, sigma = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(1)), torch.tensor(0.5)
    about = p.about(given.background, given.condition)
    kept = {}
    for share in (0.0, 0.5, 1.0):
        kept[share] = about.joined_by(given.ensemble, EnsembleBase(localisation.root(), 0.5, 0.5, share))(x, sigma)
    assert float((kept[1.0] - kept[0.0]).detach().abs().max()) > 0.1
    torch.testing.assert_close(kept[0.5], 0.5 * (kept[0.0] + kept[1.0]))


def test_an_ensembles_covariance_takes_an_ensemble_of_several():
    (given, localisation), sampler = with_members(problem(), 1), Sampler(steps=2)
    ensemble = EnsembleBase(localisation.root(), 0.5, 0.5, 1.0)
    with pytest.raises(ValueError, match="ensemble base: found 1 member"):
        analyse(LatentSampling(prior(), MMPS, sampler, lambda: ensemble), given, 1)
    alone = analyse(LatentSampling(prior(), MMPS, sampler), problem(), 1)
    torch.testing.assert_close(analyse(LatentSampling(prior(), MMPS, sampler, lambda: ensemble), problem(), 1), alone)


def test_dps_comes_to_the_observations_but_not_to_the_posterior():
    p, given = prior(), problem()
    mean, _ = kalman(dense(p.denoiser.base), given)
    sampler = Sampler(steps=64, sigma_max=60.0)
    found = analyse(LatentSampling(p, partial(SDA, gamma=0.3), sampler), given, 100)
    background = given.background.double().flatten()
    assert float((found.mean(dim=0) - mean).norm() / (background - mean).norm()) < 0.6


def test_latent_variational_takes_increments_as_uncorrelated():
    given = problem()
    with pytest.raises(ValueError, match="scaled by -1, expected more than 0"):
        prior().scaled(-1.0)
    values, b = given.sources[0].values, given.background.flatten().double()
    seen = [3, 9, 14, 30, 41, 58]
    for scale in (1.0, 4.0):
        found = analyse(LatentVariational(prior().scaled(scale)), given, 1)[0]
        expected = b.clone()
        variance = 0.25 * scale
        expected[seen] += variance / (variance + ERROR**2) * (values.double() - b[seen])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_nonlinear_observations_are_fitted():
    p = prior()
    given = problem(function=lambda x: x + 0.1 * x**3)
    sampler = Sampler(steps=20, sigma_max=60.0)
    found = LatentSampling(p, LatentOptimisationGuidance(sampler), sampler).analyse(
        given, 64, torch.Generator().manual_seed(0)
    )
    chi_square = float((given.stacked.misfit(found) ** 2).mean() / ERROR**2)
    assert chi_square < 1.5


def test_what_the_latent_cannot_hold_joins_the_observations_errors():
    p, given = prior(floor=0.09), problem()
    latent = p.about(given.background, given.condition).observed(given)
    torch.testing.assert_close(latent.sources[0].covariance.variance, torch.full((6,), ERROR**2 + 0.09))


def test_decoding_about_the_background_keeps_what_the_latent_loses_of_it():
    autoencoder = Autoencoder(2, 3, SHAPE[1:], kind="linear")
    autoencoder.start_from(torch.randn(50, *SHAPE), torch.ones(2))
    fitted = {"mean": torch.zeros(3, 1, 1), "scale": torch.ones(3, 1, 1), "floor": torch.zeros(2)}
    p = IncrementPrior(autoencoder, prior().denoiser, static=torch.zeros(0, 2, 4), **fitted)
    background = torch.randn(SHAPE)
    about = p.about(background, None)
    torch.testing.assert_close(about.decode(torch.zeros(1, *about.shape))[0], background)
    e = torch.randn(2, *about.shape)
    torch.testing.assert_close(about.encode(about.decode(e)), e, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["latent-gaussian", "latent-3d-var", "losda"])
def test_a_forecast_is_damped_and_a_mean_of_members_is_not(name):
    """Without observations to speak of, an analysis is the background, damped by the prior's shares of it."""
    share = 0.2
    base = prior().denoiser.base
    p = prior(damping=torch.full((len(base.variance) + 1,), share))
    blind = problem()
    blind = replace(blind, sources=(replace(blind.sources[0], covariance=Diagonal(torch.full((6,), 1e8))),))
    members = blind.background + torch.randn(4, *SHAPE)
    sampler = Sampler(steps=4, antithetic=True)
    method = {
        "latent-gaussian": LatentGaussian(p),
        "latent-3d-var": LatentVariational(p),
        "losda": LatentSampling(p, LatentOptimisationGuidance(sampler), sampler),
    }[name]
    for given, factor in (
        (blind, 1 - share),
        (replace(blind, averaged=True), 1.0),
        (replace(blind, ensemble=members), 1 - share),  # members about a forecast of their own
        (replace(blind, background=None, ensemble=blind.background + members - members.mean(dim=0)), 1.0),
    ):
        found = method.analyse(given, 2, torch.Generator().manual_seed(0)).mean(dim=0)
        torch.testing.assert_close(found, factor * blind.background, rtol=0, atol=1e-3)
    doubled = p.scaled(2.0)
    torch.testing.assert_close(doubled.damping, torch.full_like(p.damping, 2 * share))
    assert float(p.scaled(9.0).damping.max()) == 1


def test_the_schedule_counts_from_the_end():
    sampler = Sampler(steps=10)
    levels = [float(level) for level in sampler.levels[:-1]]

    def chosen(**settings):
        guidance = LatentOptimisationGuidance(sampler, **settings)
        return [i for i, level in enumerate(levels) if guidance.scheduled(level)]

    assert chosen() == list(range(10))
    assert chosen(every=3) == [0, 3, 6, 9]
    assert chosen(last=0.3) == [7, 8, 9]
    assert chosen(last=0.5, every=2) == [5, 7, 9]
    assert chosen(last=0.0) == []


def test_diffda_paints_what_is_observed_and_lets_the_rest_follow():
    p, given = prior(), problem(rows=(3, 35))
    points = np.stack(np.meshgrid(np.arange(4.0), np.arange(8.0), indexing="ij"), axis=-1).reshape(-1, 2)
    distance = torch.as_tensor(np.linalg.norm(points[:, None] - points, axis=-1)).float()
    sampler = Sampler(steps=20, sigma_max=60.0, jump=5, repeats=3)
    with pytest.raises(ValueError, match="mask 0 wide, expected a positive width"):
        DiffDA(p, distance, 0.0)
    found = analyse(DiffDA(p, distance, 0.2, sampler), given)
    values = given.sources[0].values.double()
    torch.testing.assert_close(found[:, [3, 35]].mean(dim=0), values, rtol=0, atol=0.05)
    mean, _ = kalman(dense(p.denoiser.base), given)
    background = given.background.double().flatten()
    assert float((found.mean(dim=0) - mean).norm()) < 0.75 * float((background - mean).norm())


def test_near_gradients_leave_the_value_and_are_those_of_the_linear_map():
    about = bent_prior().about(torch.randn(SHAPE), None)
    for _ in range(2):  # what is kept of one increment is not used for another
        e, de = torch.randn(2, 3, 2, 4), torch.randn(2, 3, 2, 4)
        torch.testing.assert_close(about.decode_with_near_gradient(e), about.decode(e))
        _, tangent = torch.func.jvp(about.prior.autoencoder.decode_linear, (e,), (about.prior.scale * de,))
        operator = Composed(about.decode_with_near_gradient, _All())
        torch.testing.assert_close(operator.tangent(e, de), tangent.flatten(1))
        counted = about.counted_from(de[:1])  # nor for increments that are counted from another place
        torch.testing.assert_close(counted.decode_with_near_gradient(e), about.decode(e + de[:1]))


def bent_prior():
    """A decoder that bends, about a latent of three channels."""
    torch.manual_seed(0)
    autoencoder = Autoencoder(2, 3, SHAPE[1:], kind="conv", width=8, depth=1)
    for parameter in autoencoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    scale = torch.linspace(0.5, 1.5, 6).view(3, 2, 1)
    fitted = {"mean": torch.ones(3, 1, 1), "scale": scale, "floor": torch.zeros(2)}
    return IncrementPrior(autoencoder, prior().denoiser, static=torch.zeros(0, 2, 4), **fitted)


@pytest.mark.parametrize("decoder", [prior, bent_prior])
def test_the_matrix_of_near_gradients_is_their_tangent(decoder):
    given = problem()
    about = decoder().about(given.background, None)
    operator = about.observed(given, near=True).sources[0].operator
    e, de = torch.randn(2, 4, *about.shape)
    product = de.flatten(1).double() @ torch.as_tensor(operator.matrix.toarray()).T
    torch.testing.assert_close(operator.tangent(e, de), product.float(), rtol=0, atol=1e-5)


class _All:
    """Every value observed."""

    linear = True

    def __call__(self, x):
        return x.flatten(1)

    def tangent(self, x, dx):
        return dx.flatten(1)

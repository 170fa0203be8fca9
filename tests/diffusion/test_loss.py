"""The loss against its expectation for exact denoisers, and a network trained with it against the exact answer."""

import torch
from torch import Tensor, nn

from genda.diffusion.denoiser import IsotropicGaussian, PreconditionedDenoiser
from genda.diffusion.loss import denoising_loss, draw_noise, error_by_noise_level


class Silent(nn.Module):
    """A network that corrects nothing."""

    def forward(self, inputs: Tensor, c_noise: Tensor, condition: Tensor | None = None) -> Tensor:
        return torch.zeros_like(inputs)


class Perceptron(nn.Module):
    """The channels of a point to the channels of a point."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(channels + 1, 32), nn.SiLU(), nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, channels)
        )

    def forward(self, inputs: Tensor, c_noise: Tensor, condition: Tensor | None = None) -> Tensor:
        points = inputs.movedim(1, -1)
        level = c_noise.view(-1, 1, 1, 1).expand(*points.shape[:-1], 1)
        return self.layers(torch.cat([points, level], dim=-1)).movedim(-1, 1)


def test_the_base_alone_scores_one_whatever_the_noise_level():
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(4000, 2, 2, 2, generator=generator)
    sigma, noise = draw_noise(x0.shape[1:], range(4000))
    weights = torch.tensor([0.5, 1.5])
    loss = denoising_loss(
        PreconditionedDenoiser(Silent(), IsotropicGaussian(), sees_base=False), x0, sigma, noise, None, weights
    )
    for band in (sigma < 0.3, (sigma > 0.3) & (sigma < 1), sigma > 1):
        assert abs(float(loss[band].mean()) - 1) < 0.04


def test_noise_levels_are_log_normal_and_a_function_of_the_seed_alone():
    sigma, noise = draw_noise((1, 2, 3), range(4000), p_mean=-0.5, p_std=1.5)
    assert abs(float(sigma.log().mean()) + 0.5) < 0.07
    assert abs(float(sigma.log().std()) - 1.5) < 0.05
    alone = draw_noise((1, 2, 3), [17])
    torch.testing.assert_close(alone[0][0], sigma[17], rtol=0, atol=0)
    torch.testing.assert_close(alone[1][0], noise[17], rtol=0, atol=0)


def test_training_on_a_correlated_gaussian_approaches_the_exact_denoiser():
    """x ~ N(0, [[1, .9], [.9, 1]]) at every point; E|D - x|² of the exact denoiser is tr(C sigma² (C + sigma²)^-1) / 2."""
    torch.manual_seed(0)
    covariance = torch.tensor([[1.0, 0.9], [0.9, 1.0]])
    root = torch.linalg.cholesky(covariance)
    denoiser = PreconditionedDenoiser(Perceptron(2), IsotropicGaussian(), sees_base=False)
    optimiser = torch.optim.Adam(denoiser.parameters(), 5e-3)
    weights = torch.ones(4)
    for step in range(300):
        for group in optimiser.param_groups:
            group["lr"] = 5e-3 * (1 - step / 300)
        x0 = torch.einsum("cd,bdhw->bchw", root, torch.randn(64, 2, 4, 4))
        sigma, noise = draw_noise(x0.shape[1:], range(64 * step, 64 * step + 64))
        loss = denoising_loss(denoiser, x0, sigma, noise, None, weights).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    sigmas = (0.3, 1.0, 3.0)
    test = torch.einsum("cd,bdhw->bchw", root, torch.randn(512, 2, 4, 4))
    learned = error_by_noise_level(denoiser, test, None, weights, sigmas, batch=512).mean(dim=1)
    eigenvalues = torch.tensor([0.1, 1.9])
    for sigma, error in zip(sigmas, learned, strict=True):
        exact = float((eigenvalues * sigma**2 / (eigenvalues + sigma**2)).mean())
        isotropic = sigma**2 / (1 + sigma**2)
        assert float(error) < exact + 0.25 * (isotropic - exact)
        assert float(error) > 0.95 * exact


def test_validation_noise_does_not_depend_on_the_batch():
    torch.manual_seed(0)
    x0 = torch.randn(5, 2, 4, 4)
    denoiser = PreconditionedDenoiser(Perceptron(2), IsotropicGaussian(), sees_base=False)
    weights = torch.ones(4)
    by_batch = [error_by_noise_level(denoiser, x0, None, weights, (0.5, 2.0), batch=b) for b in (1, 3, 5)]
    torch.testing.assert_close(by_batch[0], by_batch[1])
    torch.testing.assert_close(by_batch[0], by_batch[2])

"""Autoencoders against principal components, and what training adds to them."""

import pytest
import torch
from torch.nn import functional as F

from genda.nn.autoencoder import Autoencoder, LatentDistribution

GRID = (8, 16)


def smooth(count=64, seed=0):
    """Three channels of smooth fields, the third a function of the first two."""
    generator = torch.Generator().manual_seed(seed)
    waves = torch.fft.rfft2(torch.randn(count, 2, *GRID, generator=generator))
    latitude, longitude = torch.fft.fftfreq(GRID[0]).view(-1, 1) * GRID[0], torch.arange(waves.shape[-1])
    x = torch.fft.irfft2(waves * torch.exp(-(latitude**2 + longitude**2) / 8), s=GRID)
    x = x / x.std()
    return torch.cat([x, x[:, :1] * x[:, 1:]], dim=1)


@pytest.mark.parametrize("kind", ["conv", "transformer", "linear"])
def test_it_starts_as_the_principal_components_of_patches(kind):
    x, weights = smooth(), torch.tensor([1.0, 2.0, 0.5])
    network = Autoencoder(3, 5, GRID, kind=kind, width=16, depth=1, head=8, windows=((0, 0),))
    network.start_from(x, weights)
    encoded = network.encode(x).mean
    patches = (F.pixel_unshuffle(x, 2) * weights.sqrt().repeat_interleave(4).view(-1, 1, 1)).transpose(0, 1).flatten(1)
    values = torch.linalg.svdvals(patches.double()) ** 2 / patches.shape[1]
    lost = (weights.view(-1, 1, 1) * (network.decode(encoded) - x) ** 2).mean() * 12 / 4
    assert float(lost.detach()) == pytest.approx(float(values[5:].sum()) / 4, rel=1e-3)
    latents = encoded.transpose(0, 1).flatten(1)
    torch.testing.assert_close(latents @ latents.T / latents.shape[1], torch.eye(5), rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", ["conv", "transformer"])
def test_training_loses_less_than_principal_components(kind):
    x, unseen = smooth(256), smooth(64, seed=1)
    torch.manual_seed(0)
    network = Autoencoder(3, 5, GRID, kind=kind, width=32, depth=2, head=8, windows=((0, 0),))
    network.start_from(x, torch.ones(3))

    def lost():
        with torch.no_grad():
            return float((network.decode(network.encode(unseen).mean) - unseen).square().mean())

    before = lost()
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)
    for step in range(150):
        batch = x[torch.arange(32) + 32 * (step % 8)]
        loss = (network.decode(network.encode(batch).mean) - batch).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert lost() < 0.7 * before


def test_divergence_is_that_of_normal_distributions():
    mean, log_variance = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    found = LatentDistribution(mean, log_variance).divergence
    normal, unit = (torch.distributions.Normal(*a) for a in ((mean, (0.5 * log_variance).exp()), (0.0, 1.0)))
    expected = torch.distributions.kl_divergence(normal, unit).flatten(1).mean(dim=1)
    torch.testing.assert_close(found, expected)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"grid of \(7, 16\)"):
        Autoencoder(3, 5, (7, 16))
    with pytest.raises(ValueError, match="found 13 latent channels, expected 1 to 12"):
        Autoencoder(3, 13, GRID)

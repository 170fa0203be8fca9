"""What encoders of observations may not depend on: gaps, how many points there are, the longitude they begin at."""

import pytest
import torch
from torch.nn import functional as F

from genda.nn.observation_encoder import (
    ConvolutionalEncoder,
    MaskedInstanceNorm,
    NoEncoder,
    ObservationConditioned,
    VirtualReconstruction,
    enlarged,
    folded,
)

FIELDS = (0, 0, 1)
GRID = (8, 16)


def observations(share=0.2, seed=0, rows=16, columns=32):
    """Values and density (2, 3, rows, columns) of columns at random points."""
    generator = torch.Generator().manual_seed(seed)
    density = (torch.rand(2, 1, rows, columns, generator=generator) < share).float().expand(-1, 3, -1, -1)
    size = torch.tensor([2.0, 2.0, 30.0]).view(1, 3, 1, 1)
    return density * (5.0 + size * torch.randn(2, 3, rows, columns, generator=generator)), density


def encoders():
    torch.manual_seed(0)
    made = (
        VirtualReconstruction(FIELDS, 5, GRID, 2, width=32, scales=2, head=16),
        ConvolutionalEncoder(3, 5, 2, width=32),
    )
    return tuple(encoder.eval() for encoder in made)


def test_statistics_are_those_of_observed_points_by_field():
    values, density = observations()
    normalised, statistics = MaskedInstanceNorm(FIELDS)(values, density)
    seen = density[0, 0] > 0
    first = torch.cat([values[0, 0][seen], values[0, 1][seen]])
    torch.testing.assert_close(statistics[0, 0], first.mean())
    torch.testing.assert_close(statistics[0, 2], first.std(correction=0).log(), atol=1e-3, rtol=0)
    torch.testing.assert_close(
        normalised[0, 0][seen] * first.std(correction=0) + first.mean(), values[0, 0][seen], atol=1e-3, rtol=0
    )
    assert not normalised[0, :, ~seen].any()
    nothing, statistics = MaskedInstanceNorm(FIELDS)(torch.zeros(1, 3, 4, 8), torch.zeros(1, 3, 4, 8))
    assert not nothing.any()
    assert not statistics.any()


def test_values_in_gaps_do_not_count():
    values, density = observations()
    encoder, junk = encoders()[0], values + 100 * (1 - density)
    torch.testing.assert_close(encoder(junk, density), encoder(values, density))


def test_statistics_keep_their_precision_where_networks_do_not():
    values, density = observations()
    norm = MaskedInstanceNorm(FIELDS)
    expected = norm(3 + values, density)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = norm(3 + values, density)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_maps_turn_with_the_observations():
    values, density = observations()
    for encoder in encoders():
        turned = encoder(values.roll(8, -1), density.roll(8, -1))
        torch.testing.assert_close(turned, encoder(values, density).roll(4, -1), atol=2e-5, rtol=1e-4)


def test_tokens_carry_one_column_around_the_globe_and_convolutions_do_not():
    values, density = torch.zeros(1, 3, 16, 32), torch.zeros(1, 3, 16, 32)
    values[..., 8, 4], density[..., 8, 4] = torch.tensor([1.0, -2.0, 3.0]), 1.0
    virtual, plain = (
        encoder(values, density) - encoder(torch.zeros_like(values), torch.zeros_like(density))
        for encoder in encoders()
    )
    far = (slice(None), slice(None), slice(None), slice(9, 12))  # half the globe from column 2 of the maps
    assert virtual[far].abs().max() > 1e-4
    assert plain[far].abs().max() == 0


def test_a_network_sees_what_the_encoder_makes_of_observations_beside_its_maps():
    class Shown(torch.nn.Module):
        def forward(self, inputs, c_noise, condition, context):
            return context

    values, density = observations()
    maps = torch.randn(2, 5, *GRID)
    encoder = encoders()[0]
    context = torch.cat([maps, folded(values, density, 2)], dim=1)
    network = ObservationConditioned(Shown(), encoder, 5, 2)
    expected = torch.cat([maps, encoder(values, density)], dim=1)
    torch.testing.assert_close(network(None, None, None, context), expected)
    torch.testing.assert_close(network.encoded(folded(values, density, 2)), encoder(values, density))
    unencoded = ObservationConditioned(Shown(), NoEncoder(2), 5, 2)
    torch.testing.assert_close(unencoded(None, None, None, context), context)
    torch.testing.assert_close(unencoded.encoded(folded(values, density, 2)), folded(values, density, 2))


def test_enlarging_keeps_a_wave_along_the_circle():
    longitude = torch.arange(32) * 2 * torch.pi / 32
    wave = torch.cos(longitude).expand(1, 1, 4, 32)
    fine = (torch.arange(64) + 0.5) / 64 * 2 * torch.pi - torch.pi / 32  # centres of halves of cells
    torch.testing.assert_close(enlarged(wave, 2)[0, 0, 0], torch.cos(fine), atol=5e-3, rtol=0)
    torch.testing.assert_close(F.avg_pool2d(enlarged(wave, 2), 2)[..., 1:2, :], wave[..., 1:2, :], atol=5e-3, rtol=0)


def test_a_bump_goes_down_and_up_the_scales_in_its_place():
    """With weights alike on either side, what a token says of its square stands about the middle of the square."""
    encoder = encoders()[0]
    for down in encoder.down:
        torch.nn.init.constant_(down.weight, 1.0)
        x = torch.zeros(1, 32, 8, 16)
        x[..., 3:5, 7:9] = 1.0  # about 3.5, 7.5
        up = enlarged(down(F.pixel_unshuffle(x, 2)), 2)[0, 0] - down.bias[0]
        rows, columns = torch.arange(8.0).view(-1, 1), torch.arange(16.0)
        assert float((up * rows).sum() / up.sum()) == pytest.approx(3.5, abs=1e-4)
        assert float((up * columns).sum() / up.sum()) == pytest.approx(7.5, abs=1e-4)


def test_grids_that_do_not_halve_are_refused():
    with pytest.raises(ValueError, match="found a grid of \\(12, 24\\), expected multiples of 8 for 3 scales"):
        VirtualReconstruction(FIELDS, 5, (12, 24), 2)

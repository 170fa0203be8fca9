"""The UNet against symmetry, automatic differentiation in both modes, and the published size of SongUNet."""

import pytest
import torch
from torch import nn

from genda.nn.layers import Conv2d, ResidualBlock
from genda.nn.unet import UNet

SMALL = {"base": 8, "multipliers": (1, 2), "blocks": 1, "attention": (1,), "condition": 2}
SONG = {
    "patch": 1,
    "base": 8,
    "multipliers": (1, 2),
    "blocks": 1,
    "attention": (1,),
    "resample_blocks": True,
    "head": None,
}


def randomised(**arguments):
    """A network whose zero-initialised layers are not zero."""
    torch.manual_seed(0)
    network = UNet(5, 3, **arguments).double().eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network


def call(network, x):
    condition = torch.ones(len(x), 2, dtype=x.dtype) if network.embed.condition is not None else None
    return network(x, torch.linspace(-1, 1, len(x), dtype=x.dtype), condition)


@pytest.mark.parametrize("arguments", [SMALL, SONG])
def test_turning_the_globe_turns_the_output(arguments):
    network, x = randomised(**arguments), torch.randn(2, 5, 12, 16, dtype=torch.float64)
    turned = call(network, x.roll(4, dims=-1))
    torch.testing.assert_close(turned, call(network, x).roll(4, dims=-1), rtol=0, atol=1e-10)
    assert turned.std() > 0.1


def test_a_convolution_equals_one_on_an_explicitly_wrapped_field():
    convolution, x = Conv2d(2, 3), torch.randn(1, 2, 6, 8)
    wrapped = nn.functional.pad(nn.functional.pad(x, (1, 1, 0, 0), mode="circular"), (0, 0, 1, 1))
    torch.testing.assert_close(convolution(x), nn.functional.conv2d(wrapped, convolution.weight, convolution.bias))


@pytest.mark.parametrize("arguments", [SMALL, SONG])
def test_forward_and_reverse_derivatives_are_transposes_and_match_finite_differences(arguments):
    network, x = randomised(**arguments), torch.randn(2, 5, 8, 16, dtype=torch.float64)
    v, u = torch.randn_like(x), torch.randn(2, 3, 8, 16, dtype=torch.float64)
    value, jv = torch.func.jvp(lambda x: call(network, x), (x,), (v,))
    _, pullback = torch.func.vjp(lambda x: call(network, x), x)
    torch.testing.assert_close((u * jv).sum(), (pullback(u)[0] * v).sum(), rtol=1e-10, atol=1e-10)
    step = 1e-6
    difference = (call(network, x + step * v) - call(network, x - step * v)) / (2 * step)
    torch.testing.assert_close(jv, difference, rtol=1e-5, atol=1e-5)
    assert value.shape == u.shape


def test_size_of_the_published_cifar_network():
    """Karras et al. 2022 quote 55.7 M for DDPM++ at 32 x 32; theirs adds the embedding, ours also scales by it."""
    with torch.device("meta"):
        network = UNet(
            3, 3, base=128, multipliers=(2, 2, 2), blocks=4, attention=(1,), patch=1, resample_blocks=True, head=None
        )
    scales = sum(
        b.affine.weight.numel() + b.affine.bias.numel() for b in network.modules() if isinstance(b, ResidualBlock)
    )
    augmentation = 9 * 128  # an input of theirs that we have no use for
    assert sum(p.numel() for p in network.parameters()) - scales // 2 + augmentation == 55_733_891


def test_rows_that_do_not_divide_are_padded_and_columns_refused():
    network = randomised(**SMALL)
    assert call(network, torch.randn(1, 5, 9, 16, dtype=torch.float64)).shape == (1, 3, 9, 16)
    with pytest.raises(ValueError, match="found 14 columns, expected a multiple of 4"):
        call(network, torch.randn(1, 5, 8, 14, dtype=torch.float64))


def test_on_a_region_nothing_wraps_around():
    """The convolution is torch's own with zeros around, a turned field is another field, and any number of columns is taken."""
    convolution, x = Conv2d(5, 3, periodic=False).double(), torch.randn(1, 5, 8, 16, dtype=torch.float64)
    expected = nn.functional.conv2d(x, convolution.weight, convolution.bias, padding=1)
    torch.testing.assert_close(convolution(x), expected, rtol=0, atol=1e-12)
    network = randomised(**SMALL, periodic=False)
    assert (call(network, x.roll(4, -1)) - call(network, x).roll(4, -1)).abs().max() > 1e-3
    assert call(network, x[..., :13]).shape == (1, 3, 8, 13)


def test_a_condition_of_the_wrong_size_is_refused():
    network, x = randomised(**SMALL), torch.zeros(1, 5, 8, 16, dtype=torch.float64)
    with pytest.raises(ValueError, match="condition: found none, expected 2"):
        network(x, x.new_zeros(1), None)
    with pytest.raises(ValueError, match="expected none"):
        randomised(**SONG)(x, x.new_zeros(1), x.new_zeros(1, 2))


def test_position_maps_break_the_symmetry_and_need_a_grid():
    network = randomised(**SMALL, position=2, grid=(8, 16))
    x = torch.randn(1, 5, 8, 16, dtype=torch.float64)
    assert (call(network, x.roll(4, -1)) - call(network, x).roll(4, -1)).abs().max() > 1e-3
    with pytest.raises(ValueError, match="position"):
        UNet(5, 3, position=2)

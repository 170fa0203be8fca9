"""The transformer against symmetry and automatic differentiation in both modes."""

import pytest
import torch
from torch import nn

from genda.nn.transformer import DiT


def randomised(**arguments):
    """A network whose zero-initialised layers are not zero."""
    torch.manual_seed(0)
    settings = {"width": 16, "depth": 2, "head": 8, "context": 2, "condition": 2} | arguments
    network = DiT(3, 4, (8, 16), **settings).double().eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network


def call(network, x, context):
    return network(x, torch.linspace(-1, 1, len(x)).double(), torch.ones(len(x), 2).double(), context)


def fields():
    generator = torch.Generator().manual_seed(1)
    return (torch.randn(2, c, 8, 16, generator=generator, dtype=torch.float64) for c in (3, 2))


@pytest.mark.parametrize("conditioning", ["concatenate", "cross", "both"])
def test_turning_globe_and_context_turns_the_output_and_turning_one_does_not(conditioning):
    network, (x, context) = randomised(conditioning=conditioning), fields()
    turn = {"shifts": 6, "dims": -1}  # three tokens
    expected = call(network, x, context).roll(**turn)
    torch.testing.assert_close(call(network, x.roll(**turn), context.roll(**turn)), expected, rtol=0, atol=1e-6)
    assert (call(network, x.roll(**turn), context) - expected).abs().max() > 1e-3


def test_windows_are_local_and_shifted_ones_close_the_circle():
    def reach(depth):
        network, (x, context) = randomised(windows=((2, 4),), depth=depth, conditioning="concatenate"), fields()
        changed = x.clone()
        changed[..., 0, 0] += 1.0
        difference = (call(network, changed, context) - call(network, x, context)).abs().amax(dim=(0, 1))
        return difference > 1e-12

    one, two = reach(1), reach(2)
    window = torch.zeros(8, 16, dtype=torch.bool)
    window[:4, :8] = True
    assert torch.equal(one, window)
    window[:4] = True  # a shifted window joins it to its neighbours, the one beyond the date line too
    assert torch.equal(two, window)


def test_forward_and_reverse_derivatives_are_transposes():
    network, (x, context) = randomised(), fields()
    v, u = torch.randn_like(x), torch.randn(2, 4, 8, 16, dtype=torch.float64)
    _, jv = torch.func.jvp(lambda x: call(network, x, context), (x,), (v,))
    _, pullback = torch.func.vjp(lambda x: call(network, x, context), x)
    torch.testing.assert_close((u * jv).sum(), (pullback(u)[0] * v).sum(), rtol=1e-10, atol=1e-10)


def test_a_fresh_network_says_nothing():
    network, (x, context) = DiT(3, 4, (8, 16), context=2, width=16, depth=1, head=8).double(), fields()
    assert not network(x, torch.zeros(2).double(), None, context).any()


@pytest.mark.parametrize(("arguments", "complaint"), [({"width": 20}, "width of 20"), ({"patch": 3}, "patch, 3")])
def test_what_does_not_fit_is_refused(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        DiT(3, 4, (8, 16), **({"head": 8} | arguments))

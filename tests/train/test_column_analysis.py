"""Columns packed side by side: what is decoded there, and the adjoint of that."""

import pytest
import torch
from torch.nn import functional as F

from genda.train.column_analysis import _ColumnMap


@pytest.mark.parametrize("patch", [1, 2])
def test_columns_are_those_of_the_decoded_state_and_their_adjoint_is_one(patch):
    """Samples of unequal numbers of columns, one of none at all."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3 * patch**2, 5, generator=generator, dtype=torch.float64)
    latents = torch.randn(4, 5, 6, 8, generator=generator, dtype=torch.float64)
    shares = torch.tensor([0.0, 0.05, 0.2, 0.6]).view(-1, 1, 1, 1)
    columns = torch.rand(4, 1, 6 * patch, 8 * patch, generator=generator) < shares
    decode = _ColumnMap.of(columns, patch, weight)
    states = F.pixel_shuffle(torch.einsum("kl,blij->bkij", weight, latents), patch)
    decoded = decode(latents)
    assert decode.seen.sum(dim=(1, 2)).tolist() == columns.sum(dim=(1, 2, 3)).tolist()
    for i in range(4):
        expected = states[i].flatten(1)[:, decode.point[i]].T
        torch.testing.assert_close(decoded[i], expected)
        assert set(decode.point[i][decode.seen[i, :, 0]].tolist()) == set(
            columns[i].flatten().nonzero().flatten().tolist()
        )
    u = decode.seen * torch.randn(decoded.shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close((decoded * u).sum(), (latents * decode.adjoint(u, latents.shape)).sum())

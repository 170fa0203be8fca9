"""Innovation statistics on cases whose covariances are known."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from genda.linalg import Diagonal
from genda.observations.operators import LinearOperator
from genda.problem import Source
from genda.verify.innovations import desroziers, ensemble_chi_square

SHAPE = (1, 1, 12)


def test_chi_square_is_the_quadratic_form_written_out():
    generator = torch.Generator().manual_seed(0)
    members = torch.randn(9, *SHAPE, dtype=torch.float64, generator=generator)
    variance = 0.2 + torch.rand(12, dtype=torch.float64, generator=generator)
    operator = LinearOperator(sp.eye_array(12).tocsr(), SHAPE)
    source = Source(torch.randn(12, dtype=torch.float64, generator=generator), operator, Diagonal(variance))
    innovation = source.values - members.mean(dim=0).flatten()
    covariance = torch.cov(members.flatten(1).T) + torch.diag(variance)
    expected = innovation @ torch.linalg.solve(covariance, innovation) / 12
    assert ensemble_chi_square(source, members) == pytest.approx(float(expected), rel=1e-10)


def test_desroziers_finds_the_errors_that_made_the_departures():
    """A scalar analysis with the right gain: errors 0.5 and 1.2, assumed 1.0 for the observations."""
    rng = np.random.default_rng(0)
    count, r, b = 200_000, 0.5, 1.2
    background, observation = b * rng.standard_normal(count), r * rng.standard_normal(count)
    analysis = background + b**2 / (b**2 + r**2) * (observation - background)
    table = pd.DataFrame(
        {"variable": "t", "pressure": 5e4, "observation": observation, "hx_b": background, "hx_a": analysis}
    ).assign(obs_error=1.0)
    (row,) = desroziers(table).to_dict("records")
    assert row["count"] == count
    assert row["assumed_error"] == pytest.approx(1.0)
    assert row["observation_error"] == pytest.approx(r, rel=0.02)
    assert row["background_error"] == pytest.approx(b, rel=0.02)
    with pytest.raises(ValueError, match="no column hx_a"):
        desroziers(table.drop(columns="hx_a"))

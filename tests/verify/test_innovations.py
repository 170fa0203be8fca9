"""Innovation statistics on cases whose covariances are known."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
import yaml

from genda.linalg import Diagonal
from genda.observations.errors import assign_errors, read_errors
from genda.observations.operators import LinearOperator
from genda.problem import Source
from genda.verify.innovations import desroziers, ensemble_chi_square, error_entries

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


def test_errors_estimated_from_departures_go_back_into_tables(tmp_path):
    """Two levels and a surface field with errors known, assumed twice too large: a right gain gives them back."""
    rng = np.random.default_rng(1)
    count, b = 20_000, 1.0
    parts = []
    for variable, pressure, r in (("t", 85000.0, 0.5), ("t", 50400.0, 1.5), ("msl", np.nan, 0.8)):
        background, observation = b * rng.standard_normal(count), r * rng.standard_normal(count)
        analysis = background + b**2 / (b**2 + r**2) * (observation - background)
        columns = {"variable": variable, "pressure": pressure, "observation": observation, "hx_b": background}
        parts.append(pd.DataFrame(columns | {"hx_a": analysis, "obs_error": 2 * r, "quality": 0, "source": "s"}))
    monitored = parts[0].assign(observation=99.0, quality=1)  # passive rows moved nothing and say nothing
    estimates, entries = error_entries([*parts, monitored], by_source=True)
    assert len(estimates) == 3
    path = tmp_path / "errors.yaml"
    path.write_text(yaml.safe_dump({"errors": entries}))
    wanted = pd.concat([part.head(1).assign(obs_error=np.nan) for part in parts])
    assigned = assign_errors(wanted, read_errors(path))["obs_error"]
    np.testing.assert_allclose(assigned, [0.5, 1.5, 0.8], rtol=0.05)
    with pytest.raises(ValueError, match="found 20000 departures at most in a group, expected 30000"):
        error_entries(parts, fewest=30_000)

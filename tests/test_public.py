"""The names and the example of the README."""

from __future__ import annotations

import pytest
import torch

import genda
import small_model
from genda.demo import simulate_columns


@pytest.mark.parametrize("name", genda.__all__)
def test_public_names_resolve(name):
    assert callable(getattr(genda, name))


def test_the_example_of_the_readme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert genda.load("embedded").channels == genda.read_sample().truth.channels
    model = genda.load(small_model.saved(tmp_path / "model"))
    truth = small_model.states(1, seed=9)
    time = truth.times[0]
    table, mapping = genda.usable_observations(model, simulate_columns(model, truth, 0), time, 3.0, map_climate=True)
    source = genda.point_source(model, table[table.quality == 0], time)
    analysis = genda.assimilate(model, [source], time, method="optimal-interpolation", seed=0)
    assert mapping is not None
    shift = torch.as_tensor(mapping.on_channels(model.channels, model.grid.latitude)).unsqueeze(-1)
    back = analysis.mean.values[0] + shift
    std = model.normalisation.std.view(-1, 1, 1)
    error = ((back - truth.values[0]) / std).pow(2).mean()
    climatology = ((model.normalisation.mean_at(truth.times)[0] - truth.values[0]) / std).pow(2).mean()
    assert error < 0.5 * climatology

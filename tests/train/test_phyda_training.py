"""Training of a network that is shown observations, with the equations in its loss."""

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from genda.diffusion.observed_maps import observed_maps
from genda.grid import LatLonGrid
from genda.latent_methods import EnsembleShare, complete_settings, make_latent_method
from genda.latent_model import load_latent_model
from genda.linalg import Diagonal
from genda.methods.latent_gaussian import gaussian_analysis
from genda.nn.autoencoder import Autoencoder
from genda.nn.observation_encoder import folded
from genda.observations.operators import LinearOperator
from genda.physics import BalanceResidual, PrimitiveEquations, ResidualNorm, TendencyResidual
from genda.physics.residuals import mean_squares
from genda.problem import Problem, Source
from genda.state import State, to_dataset
from genda.train import train
from genda.train.config import ObservationConfig, PhysicsConfig
from genda.train.physics import PhysicsTerm
from genda.train.run import averaged
from genda.train.simulated_columns import SimulatedColumns

from . import small

NAMES = tuple(f"{field}{level}" for level in (850, 500, 200) for field in "zuvt")
SEEN = {"encoder": "virtual", "width": 32, "scales": 1, "head": 8}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """States on three levels whose background error is one number a date, everywhere alike."""
    generator = torch.Generator().manual_seed(1)
    size = torch.tensor([{"z": 300.0, "t": 5.0}.get(name[0], 8.0) for name in NAMES]).view(-1, 1, 1)
    middle = torch.tensor([{"z": 3e4, "t": 250.0}.get(name[0], 0.0) for name in NAMES]).view(-1, 1, 1)
    count, path = 40, tmp_path_factory.mktemp("data") / "nature.zarr"
    values = middle + size * torch.randn(count, len(NAMES), *small.GRID.shape, generator=generator)
    times = np.datetime64("2001-01-01", "ns") + np.arange(count) * np.timedelta64(12, "h")
    marks = {"split": ("time", ["train"] * 32 + ["validation"] * 8), "written": ("time", [1] * count)}
    to_dataset(State(values, NAMES, small.GRID, times)).assign_coords(marks).to_zarr(path)
    shift = torch.randn(count, 1, 1, 1, 1, generator=generator)
    background = to_dataset(State(values.unsqueeze(1) + 0.3 * size * shift, NAMES, small.GRID, times))
    background = background.rename(number="lead").assign_coords(marks | {"lead": [24]})
    background.to_zarr(path, group="background")
    return path


def config(data, out, **changes):
    made = small.increment_config(data, out, None).model_dump(mode="json")
    made["data"] |= {"channels": NAMES}
    made["architecture"] = {"unet": {"base": 16, "multipliers": [1], "blocks": 1, "patch": 1}, "observations": SEEN}
    return type(small.increment_config(data, out, None)).model_validate(made | changes)


def test_a_network_learns_from_what_it_is_shown_and_is_stored(data, tmp_path):
    shown = {"density": [0.05, 0.3], "noise": 0.0, "hidden": 0.2}
    noise, validation = {"p_mean": 2.0, "p_std": 0.7}, {"every_images": 10_000, "samples": 8, "sigmas": [5.0, 15.0]}
    settings = {
        "context_dropout": 1.0,
        "observations": shown,
        "noise": noise,
        "validation": validation,
        "max_images": 1200,
        "batch": 8,
    }
    run = train(config(data, tmp_path / "run", **settings))
    with torch.no_grad():
        scores = run.task.validate()
    assert scores["ratio_observed"] < 0.8 * scores["ratio_to_base"]
    model = load_latent_model(tmp_path / "run" / "model")
    variance = model.error[0]
    assert variance.shape == (len(NAMES),)
    torch.testing.assert_close(variance, torch.full_like(variance, 0.09), rtol=0.8, atol=0)
    errors = {name: 0.0 for name in ("phyda", "latent-prior")}
    samples = run.task._validation
    for i, time in enumerate(samples.times):
        truth, background = samples.pairs.truth[i].float(), samples.pairs.background[i, 0].float()
        rows = (
            (torch.rand(small.GRID.shape, generator=torch.Generator().manual_seed(i)) < 0.2).flatten().nonzero()[:, 0]
        )
        rows = (rows + 128 * torch.arange(len(NAMES)).view(-1, 1)).flatten()
        matrix = sp.csr_array(sp.eye_array(truth.numel()).tocsr()[rows.numpy()])
        operator = LinearOperator(matrix, tuple(truth.shape))
        source = Source(truth.flatten()[rows], operator, Diagonal(torch.full((len(rows),), 1e-4)))
        condition = model.condition(np.array([time]), 24)[0]
        problem = Problem(tuple(truth.shape), (source,), background, condition=condition)
        for name in errors:
            members = make_latent_method(name, model, 24).analyse(problem, 4, torch.Generator().manual_seed(0))
            errors[name] += float((members.mean(dim=0) - truth).square().mean())
    assert errors["phyda"] < 0.8 * errors["latent-prior"]
    with pytest.raises(ValueError, match="ensemble: found one for phyda with increments about the background"):
        make_latent_method("phyda", model, 24, ensemble=EnsembleShare(ensemble_weight=1.0))
    assert "ensemble" not in complete_settings("phyda", model, {})


def test_training_sees_what_an_analysis_will(data, tmp_path):
    """The maps of simulated columns are those of a problem with the same columns."""
    run = train(config(data, tmp_path / "run", max_images=8))
    samples, space = run.task._train, run.task._space
    variance = torch.rand(1, len(NAMES)) + 0.1
    simulated = SimulatedColumns(variance, ObservationConfig(density=(0.2, 0.2), noise=0.5, noisy=1.0, hidden=0.0), 1)
    index = np.array([3, 20])
    columns, lead = simulated.columns(samples, index, [5, 6]), samples.lead[index]
    maps = simulated.maps(columns, lead)
    values, density = maps.chunk(2, dim=1)
    for i, date in enumerate(samples.date[index].tolist()):
        seen = density[i, 0] > 0
        background = samples.pairs.background[date, 0].float()
        rows = seen.expand(len(NAMES), -1, -1).flatten().nonzero().flatten()
        observed = (values[i] * variance[0].sqrt().view(-1, 1, 1) + background).flatten()[rows]
        matrix = sp.csr_array(sp.eye_array(background.numel()).tocsr()[rows.numpy()])
        source = Source(
            observed, LinearOperator(matrix, tuple(background.shape)), Diagonal(torch.full((len(rows),), 0.25))
        )
        found = observed_maps(Problem(tuple(background.shape), (source,)), background, variance[0])
        torch.testing.assert_close(folded(*found, 1)[0], maps[i], rtol=1e-4, atol=1e-5)
    assert not simulated.nothing(samples, 2).any()
    assert simulated.nothing(samples, 2).shape == maps.shape
    assert space.encoded is False


@pytest.mark.parametrize("encoded", [False, True])
def test_increments_about_an_analysis_are_those_an_analysis_is_about(tmp_path, encoded):
    """Simulated columns and a problem with the same columns have one Gaussian analysis; sampling adds it again."""
    data = small.write_data(tmp_path / "nature.zarr")
    if encoded:
        train(small.autoencoder_config(data, tmp_path / "space"))
    space = tmp_path / "space" / "model" if encoded else None
    seen = {"density": [0.3, 0.3], "noise": 0.5, "hidden": 0.0}
    made = small.increment_config(data, tmp_path / "run", space, observations=seen).model_dump(mode="json")
    made["architecture"]["observations"] = SEEN | {"about": "analysis"}
    run = train(small.IncrementConfig.model_validate(made))
    task, model = run.task, load_latent_model(tmp_path / "run" / "model")
    samples, seeds = task._train, range(6)
    index = np.array([*range(5), len(samples.times) - 1])  # the last is of the last turn
    columns = task._columns.columns(samples, index, seeds)
    mean, _ = task._statistics(samples, index)
    found = task._analysis.of(columns, mean, samples.lead[index])
    e, _, _, _, context = task.batch(index, seeds)
    torch.testing.assert_close(e + found, samples.truth[index].float())
    assert len(set(columns.noise.tolist())) == 2
    for i, sample in enumerate(index):
        background = samples.states(samples.pairs.background, torch.tensor([sample]))[0]
        rows = columns.columns[i].expand(background.shape).flatten().nonzero().flatten()
        matrix = sp.csr_array(sp.eye_array(background.numel()).tocsr()[rows.numpy()])
        operator = LinearOperator(matrix, tuple(background.shape))
        variance = torch.full((len(rows),), max(float(columns.noise[i]) ** 2, 1e-6))
        source = Source((columns.values[i] + background).flatten()[rows], operator, Diagonal(variance))
        problem = Problem(tuple(background.shape), (source,), background)
        about = model.prior(model.leads[int(samples.lead[sample])]).about(background, None)
        about = replace(about, centre=mean[i : i + 1])
        expected = gaussian_analysis(about, problem)
        assert float((found[i] - expected[0]).norm() / expected.norm()) < 0.05
        centred = about.counted_from(expected)
        torch.testing.assert_close(centred.decode(torch.zeros_like(expected)), about.decode(expected))
        torch.testing.assert_close(centred.encode(background[None]) + expected, about.encode(background[None]))
        shown = about.prior.context(about.latent, about.analysis, about.observations)
        seen = centred.prior.context(centred.latent, centred.analysis, centred.observations) - shown
        latent, static = about.shape[0], len(about.prior.static)
        where = slice(latent + static, 2 * latent + static)
        torch.testing.assert_close(context[i, where], found[i])
        torch.testing.assert_close(seen[0, where], expected[0])
        assert not seen[:, : latent + static].any()
        assert not task._unobserved(samples, context[:, : latent + static])[:, latent + static :].any()


SIZE = torch.tensor([{"z": 300.0, "t": 5.0}.get(name[0], 8.0) for name in NAMES])
MIDDLE = torch.tensor([{"z": 3e4, "t": 250.0}.get(name[0], 0.0) for name in NAMES]).view(-1, 1, 1)


def term_and_states(form, **settings):
    """A term on states themselves, and three increments with what decodes them; e is what leads to the truth."""
    grid, generator = LatLonGrid.gaussian(8, 16), torch.Generator().manual_seed(0)
    truth = MIDDLE + SIZE.view(-1, 1, 1) * torch.randn(3, len(NAMES), 8, 16, generator=generator)
    area = torch.as_tensor(grid.area_weights).float()
    norm = ResidualNorm(form, area, mean_squares(*form.of_truth(truth, truth), area).mean(dim=0).sqrt())
    autoencoder = Autoencoder(len(NAMES), len(NAMES), (8, 16), kind="identity", patch=1)
    term = PhysicsTerm(autoencoder, norm, SIZE, PhysicsConfig(**settings))
    background = truth + 0.1 * SIZE.view(-1, 1, 1) * torch.randn(truth.shape, generator=generator)
    latent, mean, scale = torch.randn(truth.shape), 0.2 * torch.ones(truth.shape), 0.5 * torch.ones(3, 1, 1, 1)
    e = ((truth - background) / SIZE.view(-1, 1, 1) - mean) / scale
    return term, norm, truth, e, (latent, mean, scale, background)


@pytest.mark.parametrize("schedule", ["reciprocal", "step", "constant"])
def test_the_term_is_the_weighted_residual_of_the_decoded_estimate(schedule):
    residual = TendencyResidual(PrimitiveEquations(LatLonGrid.gaussian(8, 16), NAMES))
    term, norm, truth, e, decoding = term_and_states(residual, weight=3.0, schedule=schedule, level=1.0)
    sigma, error_std = torch.tensor([0.5, 0.9, 2.0]), torch.tensor([0.4, 0.6, 0.8])
    assert float(term(e, e, sigma, error_std, *decoding)) < 1e-6
    _, mean, _, background = decoding
    squares = torch.stack(list(norm(background + SIZE.view(-1, 1, 1) * mean, truth).values())).mean(dim=0)
    weight = {"reciprocal": 1 / error_std**2, "step": torch.tensor([1.0, 1.0, 0.0]), "constant": torch.ones(3)}[
        schedule
    ]
    expected = float((3.0 * weight * squares).mean())
    assert float(term(0 * e, e, sigma, error_std, *decoding)) == pytest.approx(expected, rel=1e-3)


def test_a_smoother_state_than_the_truth_is_not_pushed_on():
    """Less left over than the truth leaves is no gain: no value and no gradient."""
    residual = BalanceResidual(PrimitiveEquations(LatLonGrid.gaussian(8, 16), NAMES))
    term, _, truth, e, decoding = term_and_states(residual, residual="balances")
    _, mean, scale, background = decoding
    flat = truth.mean(dim=-1, keepdim=True).expand_as(truth)
    estimate = (((flat - background) / SIZE.view(-1, 1, 1) - mean) / scale).requires_grad_()
    calm = term(estimate, e, torch.ones(3), torch.ones(3), *decoding)
    (slope,) = torch.autograd.grad(calm, estimate)
    assert float(calm) == 0
    assert not slope.any()
    rough = ((2 * truth - MIDDLE - background) / SIZE.view(-1, 1, 1) - mean) / scale
    assert float(term(rough, e, torch.ones(3), torch.ones(3), *decoding)) > 0.1


@pytest.mark.parametrize("residual", ["tendencies", "two-times", "balances"])
def test_every_residual_trains_and_resumes_to_the_same_bits(data, tmp_path, residual):
    physics = {"residual": residual, "weight": 0.1, "every": 2}
    whole = train(config(data, tmp_path / "whole", physics=physics, max_images=16))
    assert math.isfinite(whole.task.validate()["ratio_to_base"])
    half = config(data, tmp_path / "half", physics=physics, max_images=16, max_minutes=1e-6)
    train(half)
    resumed = train(half.model_copy(update={"max_minutes": None}), resume=True)
    for name, expected in whole.task.network.state_dict().items():
        torch.testing.assert_close(resumed.task.network.state_dict()[name], expected, rtol=0, atol=0)


@pytest.mark.parametrize(("encoder", "width"), [("virtual", 32), ("convolutional", 2 * len(NAMES)), ("none", 32)])
def test_every_encoder_trains_and_is_stored(data, tmp_path, encoder, width):
    made = config(data, tmp_path / "run", max_images=8).model_dump(mode="json")
    made["architecture"]["observations"] = SEEN | {"encoder": encoder, "width": width}
    run = train(type(config(data, tmp_path)).model_validate(made))
    index, network = np.arange(2), run.task.network
    e, sigma, _, condition, context = run.task.batch(index, [0, 1])
    stored = load_latent_model(tmp_path / "run" / "model").denoiser.network
    with torch.no_grad(), averaged(run):
        for name, weight in network.encoder.state_dict().items():
            assert torch.equal(stored.encoder.state_dict()[name], weight.half().float())
        inputs = torch.cat([e, e], dim=1)
        expected = network.eval()(inputs, sigma.log() / 4, condition, context)
        torch.testing.assert_close(stored(inputs, sigma.log() / 4, condition, context), expected, rtol=0, atol=3e-3)


def test_channels_without_an_equation_are_refused(data, tmp_path):
    made = config(data, tmp_path / "run", physics={}).model_dump(mode="json")
    made["data"]["channels"] = ["t850", "u500"]
    with pytest.raises(ValueError, match="found no equation that these channels allow"):
        train(type(config(data, tmp_path)).model_validate(made))

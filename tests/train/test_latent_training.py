"""Autoencoders and priors of increments: what training them yields, and what is refused."""

import json
import shutil

import numpy as np
import pytest
import torch

from genda.checkpoint import CARD, WEIGHTS
from genda.diffusion.increments import IncrementDenoiser
from genda.latent_card import has_autoencoder, latent_card, latent_digests
from genda.latent_model import BASE, load_autoencoder, load_latent_model, read_normalisation, save_latent_model
from genda.nn.unet import UNet
from genda.train import train
from genda.train.config import IncrementConfig
from genda.train.increments import widened
from genda.train.pairs import read_pairs
from genda.train.run import averaged

from . import small


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return small.write_data(tmp_path_factory.mktemp("data") / "nature.zarr", count=40)


@pytest.fixture(scope="module")
def autoencoder(data, tmp_path_factory):
    config = small.autoencoder_config(data, tmp_path_factory.mktemp("autoencoder"), max_images=400)
    return config, train(config)


@pytest.fixture(scope="module")
def increments(data, autoencoder, tmp_path_factory):
    config = small.increment_config(
        data, tmp_path_factory.mktemp("increments"), autoencoder[0].out / "model", max_images=240
    )
    return config, train(config)


def test_a_latent_of_half_the_size_of_two_channels_loses_what_principal_components_lose(data, autoencoder):
    config, _ = autoencoder
    model = load_autoencoder(config.out / "model")
    pairs = read_pairs(config.data, "train", model.normalisation)
    x = pairs.truth.float()
    weights = model.weights.view(-1, 1, 1) * torch.as_tensor(small.GRID.area_weights).float().view(-1, 1)
    folded = torch.nn.functional.pixel_unshuffle(x * weights.sqrt(), 2).transpose(0, 1).flatten(1).double()
    values = torch.linalg.eigvalsh(folded @ folded.T)
    principal = float(values[:4].sum() / values.sum())
    lost = model.autoencoder.decode(model.autoencoder.encode(x).mean) - x
    found = float((weights * lost**2).mean() / (weights * x**2).mean())
    assert found == pytest.approx(principal, rel=0.1)
    assert model.channels == small.CHANNELS


def test_the_trained_prior_loads_as_it_was(increments):
    config, run = increments
    model = load_latent_model(config.out / "model")
    assert model.leads == (24, 48)
    assert model.card["images"] == 240
    assert str(config.out.parent) not in (config.out / "model" / "model.json").read_text()
    prior = model.prior(48)
    assert (prior.mean.shape, prior.scale.shape) == ((4, 4, 8), (4, 1, 1))
    e, sigma = torch.randn(2, 4, 4, 8), torch.tensor([0.5, 2.0])
    condition = model.condition(np.array(["2001-03-01", "2001-09-01"], "datetime64[ns]"), 48)
    context = torch.randn(2, 5, 4, 8)
    trained = run.task.objective.denoiser
    gaussians = [d.base(e, sigma) for d in (model.denoiser, trained)]
    assert float((gaussians[0] - gaussians[1]).norm() / gaussians[1].norm()) < 0.01  # modes are stored in bytes
    modes = torch.view_as_complex(model.denoiser.base.modes).flatten(1)
    same = model.denoiser.base.wavenumber.unsqueeze(1) == model.denoiser.base.wavenumber
    torch.testing.assert_close((modes @ modes.mH).abs() * same, torch.eye(len(modes)), rtol=0, atol=1e-5)
    denoiser = IncrementDenoiser(trained.network, model.denoiser.base, trained.sees_base)
    with torch.no_grad():
        newest = denoiser.eval()(e, sigma, condition, context)
        with averaged(run):
            expected = denoiser(e, sigma, condition, context)
    found = model.denoiser(e, sigma, condition, context)
    torch.testing.assert_close(found, expected, rtol=0, atol=3e-4)  # the network in half precision
    assert float((found - expected).square().mean().sqrt()) < 0.5 * float((newest - expected).square().mean().sqrt())


def test_increments_of_training_pairs_have_mean_zero_and_unit_variance(data, increments):
    config, _ = increments
    model = load_latent_model(config.out / "model")
    pairs = read_pairs(config.data, "train", model.normalisation)
    encode = model.space.autoencoder.encode
    for i in range(2):
        e = encode(pairs.truth.float()).mean - encode(pairs.background[:, i].float()).mean
        e = (e - model.mean[i]) / model.scale[i]
        assert float(e.mean(dim=0).abs().max()) < 0.01
        area = torch.as_tensor(small.GRID.coarsened(2).area_weights).float().view(-1, 1)
        assert float((e**2 * area).mean()) == pytest.approx(1, abs=0.25)


def test_increments_of_a_damped_prior_are_those_an_analysis_decodes(data, autoencoder, tmp_path):
    config = small.increment_config(data, tmp_path / "run", autoencoder[0].out / "model", damped=True)
    run = train(config)
    task, model = run.task, load_latent_model(tmp_path / "run" / "model")
    assert model.damping.shape == (2, len(model.denoiser.base.variance) + 1)
    samples = task._train
    plain = small.increment_config(data, tmp_path / "plain", autoencoder[0].out / "model")
    undamped = train(plain).task._train
    told = undamped.truth.float() - samples.truth.float()
    assert float(told.square().mean()) > 1e-4
    for sample in (0, len(model.space.autoencoder.encode(samples.pairs.truth.float()).mean) + 3):  # of either lead
        date, lead = int(samples.date[sample]), int(samples.lead[sample])
        assert int(samples.turn[sample]) == 0
        about = model.prior(model.leads[lead]).about(samples.pairs.background[date, lead].float(), None)
        found = about.encode(samples.pairs.truth[date].float()[None])[0]
        torch.testing.assert_close(
            found, samples.truth[sample].float(), rtol=0.02, atol=0.02
        )  # modes are stored in bytes
        mean, _ = task._statistics(samples, np.array([sample]))
        torch.testing.assert_close(about.centre, mean, rtol=0.02, atol=0.02)
        members = model.prior(model.leads[lead]).about(
            samples.pairs.background[date, lead].float(), None, averaged=True
        )
        torch.testing.assert_close(members.centre[0], model.mean[lead])
    half = config.model_copy(update={"out": tmp_path / "half", "max_minutes": 1e-6})
    train(half)
    resumed = train(half.model_copy(update={"max_minutes": None}), resume=True)
    for name, expected in run.task.network.state_dict().items():
        torch.testing.assert_close(resumed.task.network.state_dict()[name], expected, rtol=0, atol=0)


def test_a_prior_may_share_gaussian_and_autoencoder_with_another(increments, tmp_path):
    whole, part = increments[0].out / "model", tmp_path / "part"
    save_latent_model(part, load_latent_model(whole), shares=str(whole))
    assert {path.name for path in part.iterdir()} == {CARD, WEIGHTS}
    card = json.loads((part / CARD).read_text())
    e, sigma = torch.randn(2, 4, 4, 8), torch.tensor([0.5, 2.0])
    torch.testing.assert_close(*(load_latent_model(m).denoiser.base(e, sigma) for m in (part, whole)), rtol=0, atol=0)
    assert latent_digests(part) == latent_digests(whole)
    own = {"shares": str(whole), "space_sha256": latent_digests(whole)[2]}
    assert latent_card(part) == latent_card(whole) | own
    assert has_autoencoder(part)
    torch.testing.assert_close(load_autoencoder(part).weights, load_autoencoder(whole).weights)
    (part / CARD).write_text(json.dumps(card | {"space_sha256": "0" * 64}))
    with pytest.raises(ValueError, match=r"shares: found an autoencoder [0-9a-f]{8}, expected 00000000"):
        load_latent_model(part)
    second = tmp_path / "second"
    shutil.copytree(part, second)
    (part / CARD).write_text(json.dumps(card))
    (second / CARD).write_text(json.dumps(card | {"shares": str(part)}))
    with pytest.raises(
        FileNotFoundError, match=r"shares: found no autoencoder in .*, expected a model that has its own"
    ):
        load_latent_model(second)
    card = {key: value for key, value in card.items() if key not in own}
    (part / CARD).write_text(json.dumps(card | {"shares": "nothing"}))
    with pytest.raises(FileNotFoundError, match="model 'nothing': found neither"):
        load_latent_model(part)
    (part / CARD).write_text(json.dumps(card))
    with pytest.raises(FileNotFoundError, match="autoencoder"):
        load_latent_model(part)


def test_a_prior_of_other_channels_leads_or_data_is_refused(data, autoencoder, increments, tmp_path):
    directory = autoencoder[0].out / "model"
    with pytest.raises(ValueError, match="found channels t850 u500, expected u500 t850"):
        read_normalisation(directory, ("u500", "t850"))
    config = small.increment_config(data, tmp_path / "run", directory)

    def reading(**changes):
        return config.model_copy(update={"data": config.data.model_copy(update=changes)})

    with pytest.raises(ValueError, match="found channels t850 u500, expected u500 t850"):
        train(reading(channels=("u500", "t850")))
    with pytest.raises(ValueError, match="lead: found 12 h, expected one of 24, 48"):
        load_latent_model(increments[0].out / "model").prior(12)
    with pytest.raises(ValueError, match="found no backgrounds of 'spare', expected some"):
        train(reading(train="spare"))
    with pytest.raises(ValueError, match="expected the name of a split for backgrounds"):
        train(reading(train=("2001-01-01", "2001-01-05")))


def test_without_an_autoencoder_the_errors_of_states_are_diffused(data, tmp_path):
    config = small.increment_config(data, tmp_path / "run", None)
    train(config)
    model = load_latent_model(config.out / "model")
    assert model.space.spec.kind == "identity"
    about = model.prior(24).about(torch.randn(2, 8, 16), model.condition(np.array(["2001-03-01"], "M8[ns]"), 24)[0])
    e = torch.randn(3, 2, 8, 16)
    expected = about.background + model.mean[0] + model.scale[0] * e
    torch.testing.assert_close(about.decode(e), expected)
    torch.testing.assert_close(model.floor, torch.zeros(2, 2), rtol=0, atol=1e-9)


def test_training_begins_with_the_network_of_another_prior(data, autoencoder, increments, tmp_path):
    initial, directory = increments[0].out / "model", autoencoder[0].out / "model"
    still = {"initial": str(initial), "base": None, "max_images": 8, "optimiser": {"warmup_images": 8, "lr": 1e-9}}
    config = small.increment_config(data, tmp_path / "run", directory, **still)
    begun = train(config).task.network.state_dict()
    for name, expected in load_latent_model(initial).denoiser.network.state_dict().items():
        torch.testing.assert_close(begun[name], expected, rtol=0, atol=1e-6)
    card = load_latent_model(config.out / "model").card
    expected = load_latent_model(initial)
    assert card["initial"] == expected.card
    torch.testing.assert_close(load_latent_model(config.out / "model").scale, expected.scale, rtol=0, atol=0)
    assert (config.out / "model" / BASE).read_bytes() == (initial / BASE).read_bytes()
    assert card["config"]["initial"] == "model"
    assert str(tmp_path) not in json.dumps(card)
    document = config.model_dump(mode="json")
    turned = document["architecture"] | {"static": ["land_sea_mask", "sin_latitude"]}
    other = document | {"architecture": turned, "out": tmp_path / "other"}
    with pytest.raises(ValueError, match="found another architecture, expected this run's"):
        train(IncrementConfig.model_validate(other))
    for base in ({"modes": 20}, None):  # a Gaussian of another latent can't be kept either
        with pytest.raises(ValueError, match="found another autoencoder"):
            train(small.increment_config(data, tmp_path / "none", None, initial=str(initial), base=base))


@pytest.mark.parametrize("position", [0, 2])
def test_a_network_that_reads_further_maps_begins_as_it_was(position):
    def unet(maps):
        return UNet(2 + maps, 2, 0, base=16, multipliers=[1], blocks=1, patch=1, position=position, grid=(8, 16)).eval()

    torch.manual_seed(0)
    before, after = unet(1), unet(4)
    for parameter in before.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    after.load_state_dict(widened(before.state_dict(), after.state_dict()))
    inputs, context, noise = torch.randn(3, 2, 8, 16), torch.randn(3, 4, 8, 16), torch.randn(3)
    expected = before(inputs, noise, context=context[:, :1])
    torch.testing.assert_close(after(inputs, noise, context=context), expected)


def test_a_run_is_not_resumed_on_another_autoencoder(data, autoencoder, tmp_path):
    directory = tmp_path / "model"
    shutil.copytree(autoencoder[0].out / "model", directory)
    config = small.increment_config(data, tmp_path / "run", directory)
    train(config)
    other = small.autoencoder_config(data, tmp_path / "other", seed=3)
    train(other)
    shutil.rmtree(directory)
    shutil.copytree(other.out / "model", directory)
    with pytest.raises(ValueError, match="found another autoencoder than that of the run to resume"):
        train(config.model_copy(update={"max_images": 48}), resume=True)


@pytest.mark.parametrize("name", ["base.safetensors", "autoencoder/model.safetensors"])
def test_a_part_of_another_model_is_refused(increments, tmp_path, name):
    directory = tmp_path / "model"
    shutil.copytree(increments[0].out / "model", directory)
    path = directory / name
    path.write_bytes(path.read_bytes()[:-4] + b"abcd")
    with pytest.raises(ValueError, match=f"{name}: damaged or from another model"):
        load_latent_model(directory)

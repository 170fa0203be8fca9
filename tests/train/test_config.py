"""Configurations: the shipped files, overrides, and everything that is refused."""

from pathlib import Path

import pytest
import torch

from genda.checkpoint import build_network
from genda.grid import LatLonGrid
from genda.latent_model import build_autoencoder, build_increment_network
from genda.train.config import read_config
from genda.train.data import sample_order
from genda.variables import ERA5_CHANNELS

CONFIGS = Path(__file__).parents[2] / "configs"


def test_the_embedded_network_fits_the_shipped_size():
    config = read_config(CONFIGS / "embedded.yaml")
    network = build_network(config.architecture, len(config.data.names), LatLonGrid.gaussian(48, 96))
    assert 2 * sum(p.numel() for p in network.parameters()) < 13.5e6  # 16 MiB less climatology and base


SHIPPED = [
    ("embedded", 29),
    ("paper001", 13),
    ("era5", 69),
    ("autoencoder", 29),
    ("losda", 29),
    ("diffda", 29),
    ("autoencoder-era5", 69),
    ("losda-era5", 69),
    ("phyda", 29),
    ("phyda-era5", 69),
]


@pytest.mark.parametrize(("name", "channels"), SHIPPED)
def test_shipped_configurations_are_valid(name, channels):
    assert len(read_config(CONFIGS / f"{name}.yaml").data.names) == channels


@pytest.mark.parametrize("name", ["losda-era5", "phyda-era5"])
def test_the_papers_sizes_fit_each_other(name):
    grid = LatLonGrid.gaussian(128, 256)
    space = read_config(CONFIGS / "autoencoder-era5.yaml").autoencoder
    prior = read_config(CONFIGS / f"{name}.yaml").architecture
    with torch.device("meta"):
        autoencoder = build_autoencoder(space, 69, grid)
        network = build_increment_network(prior, space, ERA5_CHANNELS, (32, 64))
        latent = autoencoder.encode(torch.empty(1, 69, 128, 256)).mean
        seen = 0 if prior.observations is None else 2 * 69 * space.patch**2
        context = torch.empty(1, space.latent + len(prior.static) + seen, 32, 64)
        estimate = network(torch.cat([latent, latent], dim=1), torch.empty(1), torch.empty(1, 3), context)
    assert latent.shape == estimate.shape == (1, 69, 32, 64)
    assert autoencoder.decode(latent).shape == (1, 69, 128, 256)


def test_overrides_reach_nested_keys(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("batch: 4\n")
    config = read_config(
        path, ["architecture.network.base=32", "optimiser.lr=2e-4", "data.train=[2001-01-01, 2001-06-30]"]
    )
    assert (config.batch, config.architecture.network.base, config.optimiser.lr) == (4, 32, 2e-4)
    assert config.data.train == ("2001-01-01", "2001-06-30")


def test_channels_are_named_as_in_data_prepare_or_as_a_list(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("data: {channels: [z500, t850]}\n")
    for override in ([], ["data.channels=z500,t850"], ["data.channels=[z500, t850]"]):
        assert read_config(path, override).data.names == ("z500", "t850")
    assert len(read_config(path, ["data.channels=era5"]).data.names) == 69


@pytest.mark.parametrize(
    ("document", "override", "complaint"),
    [
        ("bach: 4", None, "bach: unknown key"),
        ("batch: 4", "optimiser.learning_rate=1", "optimiser.learning_rate: unknown key"),
        ("batch: many", None, "batch: .*integer.*found 'many'"),
        ("batch: 4", "batch", "expected key=value"),
        ("batch: 4", "batch.size=3", "batch holds a value"),
        ("batch: 4", "data.channels=embeded", "data.channels: unknown channel 'embeded'.*sets embedded, era5"),
        ("batch: 4", "data.channels=[t850, t850]", "data.channels: .*more than once: t850"),
        ("- 1", None, "found list, expected keys"),
        ("a: [", None, "expected YAML"),
    ],
)
def test_bad_configurations_are_one_clear_line(tmp_path, document, override, complaint):
    path = tmp_path / "c.yaml"
    path.write_text(document)
    with pytest.raises(ValueError, match=complaint) as caught:
        read_config(path, [override] if override else [])
    assert "\n" not in str(caught.value)


def test_every_epoch_is_a_shuffle_however_it_is_cut():
    whole = sample_order(0, 30, size=10, seed=3)
    assert all(sorted(whole[i : i + 10]) == list(range(10)) for i in (0, 10, 20))
    assert not (whole[:10] == whole[10:20]).all()
    pieces = [*sample_order(0, 7, 10, 3), *sample_order(7, 16, 10, 3), *sample_order(23, 7, 10, 3)]
    assert (whole == pieces).all()

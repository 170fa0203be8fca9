"""Models on disk: what is read is what was written, and everything damaged or mismatched is refused in one line."""

import json

import numpy as np
import pytest
import torch

from genda.checkpoint import (
    Architecture,
    Model,
    UNetConfig,
    build_denoiser,
    build_network,
    check_model,
    load_model,
    read_card,
    save_model,
)
from genda.diffusion.gaussian import SphericalGaussian
from genda.grid import LatLonGrid
from genda.state import Normalisation, State

GRID = LatLonGrid.gaussian(8, 16)
CHANNELS = ("t850", "u500")
ARCHITECTURE = Architecture(
    network=UNetConfig(base=8, multipliers=(1, 2), blocks=1),
    condition="season",
    static=("land_sea_mask", "sin_latitude"),
)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    times = np.datetime64("2001-01-01", "ns") + np.arange(40) * np.timedelta64(9, "D")
    state = State(torch.randn(40, 2, 8, 16) * 5 + 280, CHANNELS, GRID, times)
    normalisation = Normalisation.fit(state, harmonics=1)
    base = SphericalGaussian.fit(normalisation.normalise(state.values, times), GRID)
    network = build_network(ARCHITECTURE, 2, GRID)
    torch.nn.init.normal_(network.head.weight)
    denoiser = build_denoiser(ARCHITECTURE, network, base, torch.randn(2, 8, 16)).eval()
    return Model(denoiser, normalisation, CHANNELS, GRID, ARCHITECTURE, {"images": 7})


@pytest.fixture
def directory(model, tmp_path):
    save_model(tmp_path / "m", model)
    return tmp_path / "m"


def answer(model):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 2, 8, 16, generator=generator)
    with torch.no_grad():
        return model.denoiser(x, torch.tensor([0.1, 1.0, 10.0]), torch.randn(3, 2, generator=generator))


@pytest.mark.parametrize(("half", "tolerance"), [(False, 0.0), (True, 2e-2)])
def test_a_model_read_back_denoises_alike(model, tmp_path, half, tolerance):
    save_model(tmp_path, model, half=half)
    loaded = load_model(tmp_path)
    torch.testing.assert_close(answer(loaded), answer(model), rtol=0, atol=tolerance)
    assert torch.equal(loaded.normalisation.mean, model.normalisation.mean)
    assert torch.equal(loaded.normalisation.std, model.normalisation.std)
    assert torch.equal(loaded.static["sin_latitude"], model.static["sin_latitude"])
    assert (loaded.channels, loaded.grid, loaded.architecture, loaded.card) == (
        CHANNELS,
        GRID,
        ARCHITECTURE,
        {"images": 7},
    )


def test_loading_leaves_the_callers_random_numbers_alone(directory):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    load_model(directory)
    assert torch.equal(torch.rand(4), expected)


def edit(directory, **changes):
    path = directory / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def reseal(directory):
    """Make the card agree with the tensor file, as another program might."""
    import hashlib

    edit(directory, sha256=hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest())


@pytest.mark.parametrize("keep", [0, 5, 1000, -1])
def test_a_truncated_tensor_file_is_refused(directory, keep):
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(
        ValueError, match=r"model\.safetensors: damaged or from another model, found sha256 \w+, expected"
    ):
        load_model(directory)
    reseal(directory)
    with pytest.raises(ValueError, match=r"model\.safetensors: expected a safetensors file"):
        load_model(directory)


def test_a_pickle_is_not_opened(directory):
    torch.save({"denoiser.network.stem.weight": torch.zeros(3)}, directory / "model.safetensors")
    reseal(directory)
    with pytest.raises(ValueError, match="expected a safetensors file"):
        load_model(directory)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"channels": ["t850", "u500", "v500"]}, r"found shape .* expected"),
        ({"channels": ["t850", "x999"]}, r"model\.json: unknown channel 'x999'"),
        ({"weights": "http://somewhere"}, r"model\.json: weights: unknown key"),
        ({"version": 2}, r"model\.json: version: .*found 2"),
        ({"harmonics": 2}, r"normalisation\.mean: found shape \(3, 2, 8, 16\), expected \(5, 2"),
        ({"grid": {"latitude": [10.0, 20.0], "longitude": [0.0, 180.0]}}, r"model\.json: latitude: expected strictly"),
        ({"architecture": {"network": {"base": 16}}}, r"model\.safetensors: found \d+ tensors without|found shape"),
    ],
)
def test_a_card_of_something_else_is_refused(directory, changes, complaint):
    edit(directory, **changes)
    with pytest.raises(ValueError, match=complaint) as caught:
        load_model(directory)
    assert "\n" not in str(caught.value)
    assert str(directory) in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"channels": 3}'])
def test_a_damaged_card_is_refused(directory, text):
    (directory / "model.json").write_text(text)
    with pytest.raises(ValueError, match=r"model\.json: ") as caught:
        read_card(directory)
    assert "\n" not in str(caught.value)


def test_a_value_that_is_not_finite_is_refused_by_name(model, tmp_path):
    with torch.no_grad():
        bias = model.denoiser.network.head.bias
        bias[0] = float("nan")
        save_model(tmp_path, model)
        bias[0] = 0.0
    with pytest.raises(ValueError, match=r"denoiser\.network\.head\.bias: found a value that is not finite"):
        load_model(tmp_path)


def test_an_absent_model_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model\.json: no such file"):
        load_model(tmp_path / "nowhere")


def test_a_check_reads_no_tensor(directory, monkeypatch):
    def refuse(*_):
        raise AssertionError("a tensor was read")

    monkeypatch.setattr("genda.checkpoint.read_tensors", refuse)
    assert check_model(directory).channels == CHANNELS
    assert len(check_model("embedded").channels) == 29


def _without(name):
    return lambda directory: (directory / name).unlink()


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (
            _without("model.json"),
            r"found neither a shipped model \(diffda, embedded, losda, phyda\) nor a directory with model\.json",
        ),
        (_without("model.safetensors"), r"model\.safetensors: no such file, expected a model directory"),
        (
            lambda d: (d / "model.safetensors").write_bytes((d / "model.safetensors").read_bytes()[:-9]),
            "something else",
        ),
        (lambda d: (d / "model.safetensors").write_bytes(b"x" * 100), r"expected the tensors of a model"),
        (lambda d: edit(d, channels=["t850"]), r"found standard deviations \[2\], expected one for each of 1 channels"),
        (lambda d: (d / "model.json").write_text("{"), r"model\.json: "),
    ],
)
def test_a_check_refuses_what_cannot_be_a_model_in_one_line(directory, damage, complaint):
    damage(directory)
    with pytest.raises(ValueError, match=complaint) as caught:
        check_model(directory)
    assert "\n" not in str(caught.value)
    assert str(directory) in str(caught.value)

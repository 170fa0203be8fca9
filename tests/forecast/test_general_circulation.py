"""The general circulation model between analyses, at T21."""

import numpy as np
import pytest
import torch

from genda.forecast.general_circulation import GeneralCirculation, Standing, arrays_of, normalised, standing_of
from genda.forecast.incremental import channels_at_end, single_model
from genda.state import Normalisation
from genda.variables import EMBEDDED_CHANNELS

TIME = np.datetime64("2001-01-03", "ns")
TYPICAL = {"z": 3e4, "t": 265.0, "q": 4e-3, "t2m": 285.0, "msl": 1e5}
NORMALISATION = Normalisation(
    torch.tensor([TYPICAL.get(name.rstrip("0123456789"), 0.0) for name in EMBEDDED_CHANNELS]).view(1, -1, 1, 1),
    torch.tensor([0.02 * TYPICAL.get(name.rstrip("0123456789"), 300.0) for name in EMBEDDED_CHANNELS]),
)
STRENGTH = np.linspace(-0.4, 0.4, 22).reshape(2, 11)


@pytest.fixture(scope="module")
def model():
    pytest.importorskip("jcm", reason="the general circulation model is an optional extra: genda[nature]")
    return single_model("t21")


@pytest.fixture(scope="module")
def standing(model):
    """Two members, two days after a start at rest."""
    states, values = [], []
    for seed in (3, 4):
        state = model.start([seed], [TIME - np.timedelta64(2, "D")])
        for _ in range(2):
            state, (fields,) = model.advance(state)
        states.append(state)
        values.append(channels_at_end(fields, EMBEDDED_CHANNELS))
    return Standing(tuple(states), normalised(NORMALISATION, np.stack(values), TIME), TIME)


def gcm(model, standing, members=(0, 1)):
    chosen = Standing(tuple(standing.states[k] for k in members), standing.shown[list(members)], standing.time)
    return GeneralCirculation(model, NORMALISATION, EMBEDDED_CHANNELS, STRENGTH[list(members)], chosen)


def same(model, one, other):
    return all((a == b).all() for a, b in zip(model.leaves(one), model.leaves(other), strict=True))


def test_an_analysis_that_changes_nothing_leaves_the_forecast_to_the_bit(model, standing):
    cycled = gcm(model, standing)
    shown = cycled.step(standing.shown.clone(), 1.0)
    assert cycled.standing.time == TIME + np.timedelta64(1, "D")
    for member, start in enumerate(standing.states):
        alone, (fields,) = model.advance(start, STRENGTH[member : member + 1])
        assert same(model, cycled.standing.states[member], alone)
        expected = torch.as_tensor(channels_at_end(fields, EMBEDDED_CHANNELS)).float()
        back = NORMALISATION.physical(shown[member : member + 1], np.array([TIME]))[0]
        torch.testing.assert_close(back, expected, rtol=1e-5, atol=1e-5)


def test_a_member_depends_on_itself_and_goes_on_from_what_was_kept(model, standing):
    analysis = standing.shown + 0.1 * torch.randn(standing.shown.shape, generator=torch.Generator().manual_seed(0))
    both, second = gcm(model, standing), gcm(model, standing, (1,))
    shown = both.step(analysis, 1.0)
    torch.testing.assert_close(second.step(analysis[1:], 1.0)[0], shown[1], rtol=0, atol=0)
    kept = standing_of(model, arrays_of(model, both.standing))
    assert kept.time == both.standing.time
    torch.testing.assert_close(gcm(model, kept).step(shown, 1.0), both.step(shown, 1.0), rtol=0, atol=0)


def test_an_analysis_is_where_the_forecast_starts(model, standing):
    """Two kelvin of warming are still there after a day, most of them."""
    warm = torch.tensor([2.0 * (name[0] == "t") for name in EMBEDDED_CHANNELS]).view(-1, 1, 1)
    change = warm / NORMALISATION.std.view(-1, 1, 1)
    left, moved = (gcm(model, standing, (0,)).step(standing.shown[:1] + k * change, 1.0)[0] for k in (0, 1))
    area = torch.as_tensor(model.grid.area_weights).view(-1, 1)
    after = (area * (moved - left)).mean(dim=(-2, -1)) * NORMALISATION.std
    for name in ("t700", "t500", "t300"):
        assert 1.5 < float(after[EMBEDDED_CHANNELS.index(name)]) < 2.2, name


def test_other_numbers_of_members_and_parts_of_days_are_refused(model, standing):
    with pytest.raises(ValueError, match="state: found 1 members, expected 2"):
        gcm(model, standing).step(standing.shown[:1], 1.0)
    with pytest.raises(ValueError, match=r"forecast time: found 0\.5 days"):
        gcm(model, standing).step(standing.shown, 0.5)
    names = [name for name in EMBEDDED_CHANNELS if name != "q850"]
    with pytest.raises(ValueError, match="found no q850, expected all"):
        GeneralCirculation(model, NORMALISATION, names, STRENGTH, standing)

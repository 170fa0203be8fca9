"""Ensembles about the backgrounds: their draws, and the shipped errors; and with the model, members of a tiny run."""

import numpy as np
import pytest

from genda.assets import SAMPLE_CASE, SAMPLE_ERRORS
from genda.forecast.backgrounds import days_of_year_apart, plan, scattered
from genda.forecast.ensembles import APART, starts
from genda.forecast.errors import open_errors
from genda.forecast.sample_case import open_sample_case
from genda.forecast.timeline import Timeline

TIMELINE = Timeline(1, 3)
PAIRS = plan(TIMELINE, {"train": 20, "validation": 30, "test": 60})


def test_members_share_no_perturbation_with_any_background_they_are_judged_with():
    taken = {pair.source_day for pair in PAIRS if pair.split != "train"}
    for pair in [p for p in PAIRS if p.split == "test"][::10]:
        members = starts(TIMELINE, pair, PAIRS, 16)
        own = [start.source_days[1] for start in members]
        assert len(set(own)) == 16
        assert not set(own) & taken
        assert min(abs(day - pair.source_day) for day in own) >= APART
        assert {start.source_days[0] for start in members} == {pair.source_day}  # about the background, not the truth
        assert max(days_of_year_apart(TIMELINE, pair.frame, np.array(own))) <= 60
        strengths = np.stack([start.strength for start in members])
        assert not (strengths == pair.strength).any()
        again = starts(TIMELINE, pair, PAIRS, 16)
        assert [start.source_days for start in again] == [start.source_days for start in members]


def test_more_members_than_free_days_are_refused():
    with pytest.raises(ValueError, match="members: found 400, expected at most"):
        starts(TIMELINE, PAIRS[0], PAIRS, 400)


def test_a_beginning_of_scattered_dates_covers_them_all():
    assert sorted(scattered(range(11))) == list(range(11))
    assert sorted(scattered(range(64))[:8]) == list(range(0, 64, 8))
    assert scattered([]) == []


def test_shipped_errors_are_those_of_the_nature_run():
    """Root mean square errors against docs/results/nature-run.md; members are as far from the background as that from the truth."""
    errors, case = open_errors(SAMPLE_ERRORS), open_sample_case(SAMPLE_CASE)
    area = np.asarray(errors.transform.grid.area_weights).reshape(-1, 1)
    channels = errors.dataset["channel"].values.tolist()

    def rms(fields):
        return np.sqrt((area * fields.numpy().astype(float) ** 2).mean(axis=(0, 2, 3)))

    for lead, published in ((24, {"z500": 102.7, "t850": 0.555}), (48, {"z500": 131.8, "t850": 0.685})):
        found = dict(zip(channels, rms(errors.errors(lead)), strict=True))
        for name, value in published.items():
            assert found[name] == pytest.approx(value, rel=0.12), (lead, name)
    assert set(errors.ensemble_times) <= set(case.truth.time.values)
    ratio = rms(errors.ensemble(errors.ensemble_times[0])) / rms(errors.errors(24))
    assert 0.7 < np.median(ratio) < 1.4
    with pytest.raises(ValueError, match="lead: found 36 h, expected one of 24, 48 h"):
        errors.errors(36)

"""Splits, streams and the plan of background dates."""

import numpy as np
import pytest

from genda.forecast.backgrounds import VARIANTS, plan
from genda.forecast.timeline import FRAMES_PER_DAY, Timeline

COUNTS = {"train": 500, "validation": 60, "test": 100}


@pytest.mark.parametrize("members", [1, 2, 3, 6])
def test_splits_are_ten_days_apart_whatever_the_streams(members):
    timeline = Timeline(4, 0, members)
    time, split = timeline.time, timeline.split
    assert np.unique(np.diff(time)) == np.timedelta64(12, "h")
    for first, second in (("train", "validation"), ("validation", "test"), ("train", "test")):
        assert time[split == second].min() - time[split == first].max() > np.timedelta64(10, "D")
    assert (split == "test").sum() == 365 * 2  # every season
    assert (split == "train").sum() == (4 * 365 - 10) * 2


@pytest.mark.parametrize("members", [1, 2, 3, 4, 6])
def test_streams_tile_the_axis_with_seeds_of_their_own(members):
    timeline = Timeline(4, 7, members)
    ends = 0
    for number, stream in enumerate(timeline.streams):
        assert stream.offset == ends
        assert timeline.time[stream.offset] == stream.start + np.timedelta64(12, "h")
        assert (timeline.stream_of_frame[ends : ends + stream.days * 2] == number).all()
        ends += stream.days * FRAMES_PER_DAY
    assert ends == timeline.time.size
    seeds = {stream.seed for stream in (*timeline.streams, timeline.source)}
    assert len(seeds) == members + 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"years": 0, "seed": 0}, "years: found 0"),
        ({"years": 1, "seed": 0, "members": 4}, "members: found 4, expected 1 to 3"),
        ({"years": 1, "seed": -1}, "seed: found -1"),
        ({"years": 1, "seed": 0, "year_days": 12}, "year_days: found 12"),
        ({"years": 1, "seed": 0, "spin_up": 3}, "spin_up: found 3"),
    ],
)
def test_bad_timelines_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Timeline(**arguments)


def test_no_source_date_serves_two_splits_and_test_dates_have_one_each():
    pairs = plan(Timeline(4, 1, 3), COUNTS)
    days = {split: [p.source_day for p in pairs if p.split == split] for split in COUNTS}
    assert {split: len(d) for split, d in days.items()} == COUNTS
    assert len(set(days["test"])) == COUNTS["test"]
    assert not set(days["test"]) & set(days["train"])
    assert not set(days["test"]) & set(days["validation"])
    assert not set(days["validation"]) & set(days["train"])


def test_dates_lie_in_their_split_apart_and_after_a_start_in_the_same_stream():
    timeline = Timeline(4, 1, 3)
    pairs = plan(timeline, COUNTS)
    longest = max(VARIANTS["b"].hours) // 24
    for pair in pairs:
        assert timeline.split[pair.frame] == pair.split
        assert timeline.time[pair.frame] == pair.stream.start + np.timedelta64(24 * pair.day, "h")
        assert longest <= pair.day < pair.stream.days
    for split in ("validation", "test"):
        frames = np.array([p.frame for p in pairs if p.split == split])
        assert np.diff(frames).min() >= 3 * FRAMES_PER_DAY
        assert np.ptp(frames) > 340 * FRAMES_PER_DAY


def test_perturbations_come_from_the_season_of_their_date():
    timeline = Timeline(4, 1, 3)
    for pair in plan(timeline, COUNTS):
        apart = abs((pair.frame + 1) // 2 % 365 - pair.source_day)
        assert min(apart, 365 - apart) <= 75


def test_a_plan_depends_on_the_seed_alone():
    first, again, other = (plan(Timeline(1, seed), COUNTS) for seed in (3, 3, 4))
    for a, b in zip(first, again, strict=True):
        assert a.source_day == b.source_day
        assert (a.strength == b.strength).all()
    assert any((a.strength != b.strength).any() for a, b in zip(first, other, strict=True))
    strength = np.concatenate([pair.strength for pair in first])
    assert abs(strength.mean()) < 0.02
    assert strength.std() == pytest.approx(0.25, rel=0.05)


def test_unknown_variant_and_split_are_refused():
    with pytest.raises(ValueError, match="variant: found 'c'"):
        plan(Timeline(1, 0), COUNTS, "c")
    with pytest.raises(ValueError, match="counts: found holdout"):
        plan(Timeline(1, 0), {"holdout": 3})

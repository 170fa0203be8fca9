"""Paired significance against Student's test and, for correlated dates, against how often it cries wolf."""

import numpy as np
import pytest
from scipy import signal, stats

from genda.verify.significance import paired_difference


def autoregressive(rng, r, shape):
    """Gaussian series of lag-one autocorrelation r along the first axis."""
    white = rng.standard_normal((200 + shape[0], *shape[1:]))
    return signal.lfilter([np.sqrt(1 - r**2)], [1, -r], white, axis=0)[200:]


@pytest.mark.parametrize("r", [0.0, 0.3, 0.6])
def test_it_cries_wolf_one_time_in_twenty(r):
    rng = np.random.default_rng(0)
    found = paired_difference(autoregressive(rng, r, (72, 4000)), np.zeros((72, 4000)))
    assert 0.02 < (found.p < 0.05).mean() < 0.08


def test_ignoring_the_correlation_would_cry_wolf_far_more_often():
    rng = np.random.default_rng(0)
    naive = stats.ttest_1samp(autoregressive(rng, 0.6, (72, 4000)), 0.0, axis=0).pvalue
    assert (naive < 0.05).mean() > 0.25


def test_independent_dates_give_students_paired_test():
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((2, 400, 300)) + np.array([0.1, 0.0]).reshape(2, 1, 1)
    found, expected = paired_difference(a, b), stats.ttest_rel(a, b)
    assert np.median(np.abs(found.p - expected.pvalue)) < 0.02
    assert found.stderr.mean() == pytest.approx(np.sqrt(2 / 400), rel=0.05)


def test_equal_scores_are_not_significant_and_few_dates_are_refused():
    assert paired_difference(np.ones((5, 2)), np.ones((5, 2))).p.tolist() == [1.0, 1.0]
    with pytest.raises(ValueError, match="found 2 dates"):
        paired_difference(np.ones((2, 1)), np.ones((2, 1)))

"""What experiments on an archive of states share: model, channels, units, and what would fail on every date."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from genda.benchmark.archive import Archive, fingerprint
from genda.benchmark.generative import check_unseen, model_of
from genda.benchmark.latent import LatentSpec, check_latent
from genda.benchmark.observing import check_fits
from genda.benchmark.twin_suite import CycledMethodSpec, CycledSuite, TwinMethodSpec, TwinSuite, takes_part
from genda.checkpoint import Model, check_model
from genda.verify.scores import Array


class OnArchive:
    """An experiment whose truth, backgrounds and training errors are an archive's.

    Attributes:
        suite: what to do.
    """

    suite: TwinSuite | CycledSuite
    _archive: Archive

    @cached_property
    def model(self) -> Model:
        return model_of(self.suite.prior)

    @property
    def channels(self) -> tuple[str, ...]:
        return self.model.channels

    @property
    def std(self) -> Array:
        """Of each channel, normalised units to physical, shape (channel,)."""
        return self.model.normalisation.std.double().numpy()

    @property
    def scenarios(self) -> tuple[str, ...]:
        return tuple(self.suite.scenarios)

    def applies(self, spec: TwinMethodSpec | CycledMethodSpec, scenario: str) -> bool:
        return takes_part(spec, scenario)

    @cached_property
    def _fingerprint(self) -> str:
        return fingerprint(self._archive, self.suite.lead)

    def _check_dates(self, times: NDArray[np.datetime64]) -> None:
        """Refuse what would fail on every one of these dates.

        Raises:
            ValueError: for a date inside a prior's training period, too few training backgrounds, networks or rows that do not fit.
        """
        suite = self.suite
        check_unseen(suite.prior, check_model(suite.prior).training, times)
        if suite.pairs > self._archive.training_pairs:
            found = f"found {self._archive.training_pairs} training backgrounds, expected {suite.pairs}"
            raise ValueError(f"suite {suite.suite}: {found}")
        check_fits(suite, self._archive.truth(times[0]))
        for name, spec in suite.methods.items():
            if isinstance(spec, LatentSpec):
                check_latent(self.model, name, spec, suite.lead, suite.members, times)

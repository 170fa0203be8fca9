r"""An explicit mapping between two climates, so that a prior trained on one can analyse observations of the other.

A nature run's climate is not Earth's: its mean temperature at a station may be several kelvin off, and an analysis would
spend its observations on that; its storms and stationary waves may be too weak, and a prior that knows only those refuses
stronger ones. With m = H(model climatology), the mapping is

    y_mapped = m + (y - m - b) / a,        b = Σ_n c_n P_n(sin latitude) for each variable and pressure,

with Legendre coefficients c fitted by ridge regression to y - m at the assimilated stations alone, and one amplitude a for
all variables, chosen by the user, so that the balance between mass and wind is kept. Errors are divided by a. The mapping is
written beside what was made with it, it is the same for every method compared, and it is undone on whatever is verified
against real observations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genda.variables import channels as parse_channels

Array = NDArray[np.float64]


@dataclass(frozen=True)
class ClimateMapping:
    """Mean shift and amplitude between Earth's climate and a model's.

    Attributes:
        coefficients: (variable, pressure in Pa or -1 at the surface) to coefficients of P_0, P_1, …, physical units.
        amplitude: a, standard deviation of Earth's anomalies in units of the model's.
    """

    coefficients: dict[tuple[str, float], Array]
    amplitude: float = 1.0

    def __post_init__(self) -> None:
        if not self.amplitude > 0:
            raise ValueError(f"climate amplitude: found {self.amplitude:g}, expected a positive number")

    @staticmethod
    def fit(
        table: pd.DataFrame,
        mean_at_observations: Array,
        amplitude: float = 1.0,
        order: int = 4,
        ridge: float = 0.2,
    ) -> ClimateMapping:
        """Fit to an observation table.

        Args:
            table: the assimilated observations.
            mean_at_observations: H(model climatology) for every row, physical units.
            amplitude: a.
            order: highest Legendre degree.
            ridge: weight of zero as a guess for every coefficient but the first, times its degree squared; keeps a gap in
                the network from being filled by extrapolation.

        Raises:
            ValueError: if the table is empty.
        """
        if not len(table):
            raise ValueError("climate mapping: found an empty observation table, expected the assimilated observations")
        misfit = table["observation"].to_numpy() - mean_at_observations
        coefficients = {}
        for key, rows in _groups(table).items():
            basis = _legendre(table["latitude"].to_numpy()[rows], order)
            penalty = ridge * np.diag(np.arange(order + 1, dtype=np.float64) ** 2)
            coefficients[key] = _solve(basis.T @ basis + penalty + 1e-9 * np.eye(order + 1), basis.T @ misfit[rows])
        return ClimateMapping(coefficients, amplitude)

    def to_model(self, table: pd.DataFrame, mean_at_observations: Array) -> pd.DataFrame:
        """The table with observations and errors in the model's climate; ``mean_at_observations`` as in :meth:`fit`."""
        anomaly = table["observation"].to_numpy() - self.at(table) - mean_at_observations
        return table.assign(
            observation=mean_at_observations + anomaly / self.amplitude,
            obs_error=table["obs_error"].to_numpy() / self.amplitude,
        )

    def to_earth(self, table: pd.DataFrame, values: Array, mean_at_observations: Array) -> Array:
        """Values at the rows of a table, in the model's climate, moved to Earth's."""
        return mean_at_observations + self.amplitude * (values - mean_at_observations) + self.at(table)

    def __str__(self) -> str:
        return f"amplitude {self.amplitude:g}, mean shift " + ", ".join(
            f"{name} {values[0]:.3g}" for name, values in self.as_dict()["coefficients"].items()
        )

    def as_dict(self) -> dict[str, Any]:
        """Amplitude, and coefficients of P_0, P_1, … by channel: the first is the mean shift over the sphere, Earth minus model."""
        named = {
            f"{variable}{pressure / 100:g}" if pressure > 0 else variable: [float(f"{c:.6g}") for c in coefficients]
            for (variable, pressure), coefficients in self.coefficients.items()
        }
        return {"amplitude": self.amplitude, "coefficients": named}

    def at(self, table: pd.DataFrame) -> Array:
        """Earth minus model for every row, physical units; zero for a level that the mapping was not fitted on."""
        values = np.zeros(len(table))
        for key, rows in _groups(table).items():
            c = self.coefficients.get(key, np.zeros(1))
            values[rows] = _legendre(table["latitude"].to_numpy()[rows], len(c) - 1) @ c
        return values

    def on_channels(self, channels: Sequence[str], latitude: Sequence[float]) -> Array:
        """Earth minus model for fields, shape (channel, latitude); zero for channels it was not fitted on."""
        values = np.zeros((len(channels), len(latitude)))
        for i, item in enumerate(parse_channels(channels)):
            pressure = -1.0 if item.pressure is None else item.pressure
            c = self.coefficients.get((item.field.id, pressure), np.zeros(1))
            values[i] = _legendre(np.asarray(latitude), len(c) - 1) @ c
        return values


def _groups(table: pd.DataFrame) -> dict[tuple[str, float], NDArray[np.intp]]:
    keys = [table["variable"].to_numpy(), table["pressure"].fillna(-1.0).to_numpy()]
    indices: dict[Any, Any] = dict(table.groupby(keys, sort=True).indices)
    return {(str(variable), float(pressure)): np.asarray(rows) for (variable, pressure), rows in indices.items()}


def _solve(matrix: Array, right: Array) -> Array:
    return np.asarray(np.linalg.solve(matrix, right), dtype=np.float64)


def _legendre(latitude: Array, order: int) -> Array:
    return np.asarray(np.polynomial.legendre.legvander(np.sin(np.radians(latitude)), order), dtype=np.float64)

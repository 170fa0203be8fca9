"""Twin experiments with toy models: truth, observations and forecasts from one model, every method cycled."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import cache

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from genda.benchmark.suite import ToyMethodSpec, ToyModelSpec, ToySuite
from genda.cycle import cycle
from genda.diffusion.noise import derived_seed
from genda.forecast import ForecastModel
from genda.forecast.lorenz import Lorenz63, Lorenz96
from genda.forecast.quasi_geostrophic import QuasiGeostrophic
from genda.linalg import Diagonal
from genda.methods import Method
from genda.methods.baseline import Climatology, Persistence
from genda.methods.ensemble_kalman import ETKF, EnKF
from genda.methods.letkf import LETKF
from genda.methods.localisation import Localisation, plane, ring
from genda.methods.particle import ParticleFilter
from genda.methods.variational import DenseRoot, Variational
from genda.observations.operators import LinearOperator
from genda.problem import Problem, Source
from genda.verify import Statistics

MODELS = {"lorenz63": Lorenz63, "lorenz96": Lorenz96, "quasi-geostrophic": QuasiGeostrophic}
SPIN_UP = 20.0
CLIMATE_STATES = 4000


@dataclass(frozen=True)
class ToyExperiment:
    """The experiment of a toy suite."""

    suite: ToySuite

    def __post_init__(self) -> None:
        toy_model(self.suite.model)  # settings that do not fit are refused before any work

    @property
    def channels(self) -> tuple[str, ...]:
        return {"lorenz63": ("x", "y", "z"), "quasi-geostrophic": ("upper", "lower")}.get(self.suite.model.name, ("x",))

    @property
    def std(self) -> None:
        return None

    @property
    def scenarios(self) -> tuple[str, ...]:
        return ("",)

    @property
    def cases(self) -> tuple[str, ...]:
        return tuple(str(seed) for seed in self.suite.seeds)

    def applies(self, spec: ToyMethodSpec, scenario: str) -> bool:
        return True

    def decides(self, spec: ToyMethodSpec, scenario: str) -> list[object]:
        experiment = self.suite.model_dump(mode="json", exclude={"methods", "reference", "seeds", "quick"})
        return [experiment, spec.model_dump(mode="json")]

    def run(self, spec: ToyMethodSpec, scenario: str, case: str) -> Statistics:
        """Cycle one method through one case.

        Returns:
            squared error of the mean, its root over all channels and squared spread, averaged over blocks of turns.
        """
        suite, model = self.suite, self._model
        truth, observations = self._truth(int(case))
        generator = torch.Generator().manual_seed(derived_seed(int(case), "members"))
        white = torch.randn(spec.members, *model.shape, generator=generator, dtype=torch.float64)
        start = truth[:1] + suite.start_error * white
        errors, spreads = [], []
        method = self._method(spec)
        turns = cycle(model, method, start, observations, suite.interval, generator, spec.window)
        for k, turn in enumerate(turns):
            members = turn.analysis
            errors.append((members.mean(dim=0) - truth[k + 1]).pow(2).mean(dim=(-2, -1)).numpy())
            if len(members) > 1:
                factor = (len(members) + 1) / len(members)
                spreads.append(factor * members.var(dim=0).mean(dim=(-2, -1)).numpy())
        roots = [np.sqrt(error.mean(keepdims=True)) for error in errors]
        values = {"squared_error": self._blocks(errors), "state_error": self._blocks(roots)}
        if spreads:
            values["squared_spread"] = self._blocks(spreads)
        samples = tuple(f"{case}:{i}" for i in range(len(values["squared_error"])))
        return Statistics(samples, self.channels, values, np.ones_like(values["squared_error"]))

    def _blocks(self, turns: list[np.ndarray]) -> np.ndarray:
        kept = np.stack(turns[self.suite.burn_in :])
        count = len(kept) // self.suite.block
        return np.asarray(kept[: count * self.suite.block].reshape(count, self.suite.block, -1).mean(axis=1))

    @property
    def _model(self) -> ForecastModel:
        return toy_model(self.suite.model)

    def _truth(self, seed: int) -> tuple[Tensor, list[tuple[Source, ...]]]:
        """Truth (turn, channel, lat, lon), the start included, and the sources of every turn."""
        suite, model = self.suite, self._model
        generator = torch.Generator().manual_seed(derived_seed(seed, "truth"))
        state = model.step(_anywhere(model, 1, generator), SPIN_UP)
        states = [state]
        for _ in range(suite.turns):
            states.append(model.step(states[-1], suite.interval))
        truth = torch.cat(states)
        size = math.prod(model.shape)
        seen = np.arange(0, size, suite.every)
        matrix = sp.csr_array((np.ones(len(seen)), (np.arange(len(seen)), seen)), shape=(len(seen), size))
        operator = LinearOperator(matrix, model.shape)
        covariance = Diagonal(torch.full((len(seen),), suite.error**2, dtype=torch.float64))
        noise = torch.randn(len(truth), len(seen), generator=generator, dtype=torch.float64)
        values = operator(truth) + suite.error * noise
        return truth, [(Source(v, operator, covariance),) for v in values[1:]]

    def _method(self, spec: ToyMethodSpec) -> Method:
        if spec.method == "persistence":
            return Persistence()
        if spec.method == "enkf":
            return EnKF(spec.inflation)
        if spec.method == "etkf":
            return ETKF(spec.inflation, spec.rotate)
        if spec.method == "letkf":
            return LETKF(Localisation(_coordinates(self._model), spec.radius), spec.inflation, spec.rotate)
        if spec.method == "particle-filter":
            return ParticleFilter(spec.jitter)
        mean, covariance = climate(self.suite.model)
        if spec.method == "climatology":
            return Climatology(mean)
        root = DenseRoot.of(spec.covariance * covariance, self._model.shape)
        static = Variational(root, spec.outer, spec.inner)
        return _FromClimatology(static, mean) if spec.method == "optimal-interpolation" else static


@dataclass(frozen=True)
class _FromClimatology:
    """Optimal interpolation: the climatological mean is the background, whatever was forecast."""

    method: Method
    mean: Tensor

    def analyse(self, problem: Problem, members: int, generator: torch.Generator) -> Tensor:
        return self.method.analyse(replace(problem, background=self.mean, ensemble=None), members, generator)


def toy_model(spec: ToyModelSpec) -> ForecastModel:
    """The model of a suite.

    Raises:
        ValueError: for a setting that the model does not have, or of another type.
    """
    known = {setting.name: type(setting.default) for setting in fields(MODELS[spec.name])}
    for name, value in spec.settings.items():
        if name not in known:
            raise ValueError(f"model.settings: found {name}, expected some of {', '.join(known)} for {spec.name}")
        if known[name] is not float and not isinstance(value, int):
            raise ValueError(f"model.settings.{name}: found {value}, expected a whole number")
    model: ForecastModel = MODELS[spec.name](**spec.settings)
    return model


def climate(spec: ToyModelSpec) -> tuple[Tensor, Tensor]:
    """Mean (channel, lat, lon) and covariance (n, n) of independent states of a model."""
    return _climate(spec.model_dump_json())


@cache
def _climate(spec: str) -> tuple[Tensor, Tensor]:
    model = toy_model(ToyModelSpec.model_validate_json(spec))
    generator = torch.Generator().manual_seed(derived_seed(0, "climate"))
    state = model.step(_anywhere(model, CLIMATE_STATES, generator), SPIN_UP)
    return state.mean(dim=0), torch.cov(state.flatten(1).T)


def _anywhere(model: ForecastModel, count: int, generator: torch.Generator) -> Tensor:
    """States from which a spin-up leads to the attractor."""
    centre = model.forcing if isinstance(model, Lorenz96) else 1.0
    scale = 0.1 if isinstance(model, QuasiGeostrophic) else 1.0
    return scale * (centre + torch.randn(count, *model.shape, generator=generator, dtype=torch.float64))


def _coordinates(model: ForecastModel) -> np.ndarray:
    _, rows, columns = model.shape
    return ring(columns) if rows == 1 else plane(rows, columns)

"""The general circulation model behind the embedded experiment: SPEEDY physics on a spectral core, in JAX.

`jcm <https://pypi.org/project/jcm/>`_ 3.0.0 on 8 sigma levels with a 30-minute step, climatological sea-surface
temperature, sea ice, snow and soil moisture from the files inside its wheel, no annual trend. The initial surface
pressure is scaled by 0.983 so that the global mean meets Earth's 985 hPa. Molteni (2003), Climate Dynamics 20, 175.

A model of ``members`` members advances them together: one compiled function, vectorised over members when there is
more than one. Members never interact.

jax and jcm are imported when a model is made, not with this module; both come with the extra ``nature``.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import import_module, resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genda.extras import installing
from genda.forecast.pressure import SigmaFields
from genda.forecast.sigma import Ground, SigmaChange
from genda.grid import LatLonGrid
from genda.variables import STANDARD_GRAVITY

GRIDS: dict[str, tuple[int, int, int]] = {"t21": (21, 32, 64), "t31": (31, 48, 96), "t42": (42, 64, 128)}
"""Spectral truncation, latitudes and longitudes of the grids the model runs on."""
STEP_MINUTES = 30
FRAME_HOURS = 12
SURFACE_PRESSURE_SCALE = 0.983
_REFERENCE_PRESSURE = 1.0e5  # Pa, by which jcm normalises surface pressure
_WIND_REDUCTION = 0.95  # SPEEDY's ratio of near-surface to lowest-level wind (fwind0)
_HUMIDITY = "specific_humidity"  # the one tracer of the dynamics

PERTURBED_PARAMETERS: dict[tuple[str, str], float] = {
    ("convection", "trcnv"): 9.0,
    ("convection", "rhbl"): 0.85,
    ("convection", "entmax"): 0.35,
    ("vertical_diffusion", "trvdi"): 36.0,
    ("vertical_diffusion", "trshc"): 9.0,
    ("surface_flux", "cds"): 1.3e-3,
    ("surface_flux", "cdl"): 1.8e-3,
    ("surface_flux", "chs"): 1.1e-3,
    ("shortwave_radiation", "albcl"): 0.38,
    ("condensation", "rhlsc"): 0.85,
    ("condensation", "trlsc"): 6.0,
}
"""The imperfect model at full strength: SPEEDY parameter (scheme, name) and its perturbed value."""

PERTURBATION_WAVENUMBER = 14
"""Total wavenumber at which the initial perturbation's filter passes one half."""


@dataclass(frozen=True)
class GcmState:
    """All a model needs to continue to the same bits: dynamics, physics carry, exact clock, step counter.

    Every leaf is an array with the member axis first.
    """

    dynamics: Any
    physics: Any
    time: Any
    step: Any


def optional(module: str) -> Any:
    """A module of the extra that holds the model.

    Raises:
        ModuleNotFoundError: one line that says how to install it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(
            f"the nature run needs {missing.name}, which is not installed: {installing('nature')}"
        ) from None


class NatureModel:
    """The model on one grid.

    Args:
        grid: ``"t21"``, ``"t31"`` or ``"t42"``.
        members: how many states advance together.

    Raises:
        ValueError: for an unknown grid or fewer than one member.
        ModuleNotFoundError: where jcm is not installed.
    """

    def __init__(self, grid: str = "t31", members: int = 1) -> None:
        if grid not in GRIDS:
            raise ValueError(f"grid: found {grid!r}, expected one of {', '.join(GRIDS)}")
        if members < 1:
            raise ValueError(f"members: found {members}, expected at least 1")
        jax = optional("jax")
        truncation, nlat, nlon = GRIDS[grid]
        self.members = members
        self.grid = LatLonGrid.gaussian(nlat, nlon)
        speedy_coords = optional("jcm.physics.speedy.speedy_coords")
        coords = speedy_coords.get_speedy_coords(layers=8, spectral_truncation=truncation)
        boundary = resources.files("jcm") / "data" / "bc" / "t30" / "clim"
        with warnings.catch_warnings():  # jcm reads its own files with xarray defaults that are about to change
            warnings.simplefilter("ignore", FutureWarning)
            terrain = optional("jcm.terrain").TerrainData.from_file(str(boundary / "terrain.nc"), coords=coords)
            self._forcing = optional("jcm.forcing").ForcingData.from_file(
                str(boundary / "forcing.nc"), coords=coords, align_mode="wrap_year"
            )
        self._dycore = optional("jcm.dycore.dinosaur.dycore").DinosaurDycore(
            coords=coords, terrain=terrain, dt_seconds=60.0 * STEP_MINUTES
        )
        self._model = self._with_parameters(None)
        self.sigma = np.asarray(coords.vertical.centers, dtype=np.float64)
        orography = np.asarray(coords.horizontal.to_nodal(self._dycore.primitive.orography), dtype=np.float64)
        self.surface_geopotential = _north_up(orography) * STANDARD_GRAVITY
        self.land_sea_mask = _north_up(np.asarray(terrain.fmask, dtype=np.float64))
        self._advance = jax.jit(self._one_day if members == 1 else jax.vmap(self._one_day, in_axes=(0, 0, None)))

    def start(self, seeds: Sequence[int], dates: Sequence[np.datetime64]) -> GcmState:
        """An isothermal atmosphere at rest with a small random pressure perturbation; one seed and date a member."""
        return self.from_dynamics([self._initial(seed) for seed in seeds], dates)

    def from_dynamics(self, dynamics: Sequence[Any], dates: Sequence[np.datetime64]) -> GcmState:
        """A state from modal dynamics, one per member, with a fresh physics carry."""
        jax, jnp = optional("jax"), optional("jax.numpy")
        if len(dynamics) != self.members or len(dates) != self.members:
            raise ValueError(f"members: found {len(dynamics)} states and {len(dates)} dates, expected {self.members}")
        stack = lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves])  # noqa: E731
        return GcmState(
            dynamics=jax.tree.map(stack, *dynamics),
            physics=jax.tree.map(stack, *[self._model.initial_physics_carry()] * self.members),
            time=jax.tree.map(stack, *[_clock(date) for date in dates]),
            step=jnp.zeros(self.members, dtype=jnp.int32),
        )

    def with_dynamics(self, state: GcmState, dynamics: Any) -> GcmState:
        """A state of one member that goes on from other dynamics, with its clock and its physics' memory."""
        return replace(state, dynamics=optional("jax").tree.map(lambda leaf: leaf[None], dynamics))

    def advance(
        self, state: GcmState, strength: NDArray[np.float64] | None = None
    ) -> tuple[GcmState, list[SigmaFields]]:
        """One day forward.

        Args:
            state: as returned by :meth:`start`, :meth:`from_dynamics` or this method.
            strength: ``s`` of the imperfect model for each of :data:`PERTURBED_PARAMETERS`, shape (members, 11);
                None is the true model.

        Returns:
            the state after 24 h, and for each member its fields at 12 h and 24 h.
        """
        jax, jnp = optional("jax"), optional("jax.numpy")
        if strength is None:
            strength = np.zeros((self.members, len(PERTURBED_PARAMETERS)))
        s = jnp.asarray(strength, dtype=jnp.float32)
        run = (state.dynamics, state.physics, state.time, state.step)
        if self.members == 1:
            run, frames = self._advance(jax.tree.map(lambda leaf: leaf[0], run), s[0], self._forcing)
            run, frames = jax.tree.map(lambda leaf: leaf[None], (run, frames))
        else:
            run, frames = self._advance(run, s, self._forcing)
        host = jax.device_get(frames)
        return GcmState(*run), [
            self._fields({name: values[member] for name, values in host.items()}) for member in range(self.members)
        ]

    def leaves(self, state: Any) -> list[NDArray[Any]]:
        """The arrays of a state or of its dynamics, in a fixed order, on the host."""
        jax = optional("jax")
        tree = (state.dynamics, state.physics, state.time, state.step) if isinstance(state, GcmState) else state
        return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]

    def restore(self, leaves: Sequence[NDArray[Any]]) -> GcmState:
        """A whole state from its :meth:`leaves`."""
        jax = optional("jax")
        template = self.start([0] * self.members, [np.datetime64("2001-01-01")] * self.members)
        tree = (template.dynamics, template.physics, template.time, template.step)
        return GcmState(*jax.tree.unflatten(jax.tree.structure(tree), list(leaves)))

    def perturbed(
        self,
        start: Sequence[NDArray[Any]],
        earlier: Sequence[NDArray[Any]],
        later: Sequence[NDArray[Any]],
        alpha: float,
    ) -> Any:
        """Modal dynamics of one member, ``start + α F(l) (later − earlier)`` with ``F(l) = l⁴ / (l⁴ + 14⁴)``.

        The three states are given by their :meth:`leaves`; the humidity perturbation is doubled.
        """
        base, before, after = (self.dynamics(leaves) for leaves in (start, earlier, later))
        l4 = np.arange(base.vorticity.shape[-1], dtype=np.float64) ** 4
        weight = (alpha * l4 / (l4 + PERTURBATION_WAVENUMBER**4)).astype(np.float32)

        def add(name: str) -> Any:
            return getattr(base, name) + weight * (getattr(after, name) - getattr(before, name))

        moist = base.tracers[_HUMIDITY] + 2.0 * weight * (after.tracers[_HUMIDITY] - before.tracers[_HUMIDITY])
        prognostic = ("vorticity", "divergence", "temperature_variation", "log_surface_pressure")
        return base.replace(**{name: add(name) for name in prognostic}, tracers={_HUMIDITY: moist})

    def ground(self, dynamics: Any) -> Ground:
        """What the columns of one member stand on."""
        horizontal = self._dycore.coords.horizontal
        lowest = _north_up(np.asarray(horizontal.to_nodal(dynamics.temperature_variation[-1]), dtype=np.float64))
        pressure = np.exp(np.asarray(horizontal.to_nodal(dynamics.log_surface_pressure[0]), dtype=np.float64))
        return Ground(
            sigma=self.sigma,
            surface_pressure=_REFERENCE_PRESSURE * _north_up(pressure),
            temperature=lowest + float(self._dycore.primitive.reference_temperature[-1]),
            geopotential=self.surface_geopotential,
            wind_reduction=_WIND_REDUCTION,
        )

    def moved(self, dynamics: Any, change: SigmaChange) -> Any:
        """Modal dynamics of one member with a change added, in harmonics up to the model's truncation.

        u and v become vorticity and divergence by the core's own transforms.
        """
        horizontal = self._dycore.coords.horizontal
        jnp, harmonics = optional("jax.numpy"), optional("dinosaur.spherical_harmonic")

        def nodal(values: NDArray[np.float64]) -> Any:
            return jnp.asarray(_south_up(values), dtype=jnp.float32)

        def modal(values: NDArray[np.float64]) -> Any:
            return horizontal.clip_wavenumbers(horizontal.to_modal(nodal(values)))

        vorticity, divergence = harmonics.uv_nodal_to_vor_div_modal(horizontal, nodal(change.u), nodal(change.v))
        return dynamics.replace(
            vorticity=dynamics.vorticity + vorticity,
            divergence=dynamics.divergence + divergence,
            temperature_variation=dynamics.temperature_variation + modal(change.temperature),
            log_surface_pressure=dynamics.log_surface_pressure + modal(change.log_surface_pressure[None]),
            tracers={_HUMIDITY: dynamics.tracers[_HUMIDITY] + modal(change.q)},
        )

    def dynamics(self, leaves: Sequence[NDArray[Any]]) -> Any:
        """Modal dynamics of one member from its :meth:`leaves`."""
        jax = optional("jax")
        return jax.tree.unflatten(jax.tree.structure(self._model.initial_state()), list(leaves))

    def _with_parameters(self, parameters: Any) -> Any:
        """A jcm model with these SPEEDY parameters; None is the default ones."""
        physics = optional("jcm.physics.speedy.speedy_terms").speedy_physics(parameters, checkpoint_terms=False)
        return optional("jcm.model").Model(self._dycore, physics=physics)

    def _initial(self, seed: int) -> Any:
        horizontal = self._dycore.coords.horizontal
        state = self._model.initial_state(random_seed=seed)
        scaled = horizontal.to_nodal(state.log_surface_pressure) + np.log(SURFACE_PRESSURE_SCALE)
        return state.replace(log_surface_pressure=horizontal.to_modal(scaled))

    def _one_day(self, run: Any, strength: Any, forcing: Any) -> tuple[Any, dict[str, Any]]:
        """Traced: a model with these parameters, made anew so that they are arguments of the compiled function."""
        parameters = optional("jcm.physics.speedy.params").Parameters.default()
        for s, ((scheme, name), value) in zip(strength, PERTURBED_PARAMETERS.items(), strict=True):
            default = getattr(getattr(parameters, scheme), name)
            setattr(getattr(parameters, scheme), name, default + s * (value - default))
        model = self._with_parameters(parameters)
        dynamics, physics, time, step = run
        final, saved = model.run_from_state_with_carry(
            dynamics,
            forcing,
            save_interval=FRAME_HOURS / 24.0,
            total_time=1.0,
            initial_physics_state=physics,
            initial_time=time,
            initial_step=step,
        )
        grid = saved.dynamics
        frames = {
            "geopotential": grid.geopotential,
            "temperature": grid.temperature,
            "u": grid.u_wind,
            "v": grid.v_wind,
            "q": grid.specific_humidity,
            "surface_pressure": grid.normalized_surface_pressure,
            "t2m": saved.physics["_surface_flux"].t0,
        }
        return (final.dynamics, final.physics, final.time, final.step), frames

    def _fields(self, host: dict[str, NDArray[Any]]) -> SigmaFields:
        fields = {name: _north_up(np.asarray(values, dtype=np.float64)) for name, values in host.items()}
        return SigmaFields(
            sigma=self.sigma,
            surface_geopotential=self.surface_geopotential,
            surface_pressure=_REFERENCE_PRESSURE * fields.pop("surface_pressure"),
            u10=_WIND_REDUCTION * fields["u"][:, -1],
            v10=_WIND_REDUCTION * fields["v"][:, -1],
            **fields,
        )


def _north_up(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """From jcm's (…, longitude, south-to-north latitude) to (…, north-to-south latitude, longitude)."""
    return np.swapaxes(values, -1, -2)[..., ::-1, :]


def _south_up(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The way back from :func:`_north_up`."""
    return np.swapaxes(values[..., ::-1, :], -1, -2)


def _clock(date: np.datetime64) -> Any:
    return optional("jax_datetime").to_datetime(str(date.astype("datetime64[s]")))

"""Backgrounds: forecasts by an imperfect model from a perturbed truth, valid at chosen dates.

For a verification time ``t`` and each of two leads, with ``S`` the truth's modal state:

1. start from ``S(t − h)`` plus ``α F(l) [S'(t₁ + 24 h) − S'(t₁)]``, ``F(l) = l⁴ / (l⁴ + 14⁴)``, applied to vorticity,
   divergence, temperature, log surface pressure and humidity (×2). ``S'`` is a separate run used for nothing else; a
   ``t₁`` used for a test date is used nowhere else, nor one used for a validation date.
2. integrate ``h`` hours with SPEEDY parameters ``default + s_k (perturbed − default)``, ``s_k`` drawn for each
   parameter and each date, uniform with mean zero and standard deviation ``s``, so that the bias is no fixed pattern.

Variant B (the default): α = s = 0.25, and h = 72 and 96 h play the 24 h and 48 h forecasts, so that errors have
grown along the flow. Variant A: α = 0.4, s = 0.5, h = 24 and 48 h. Both leads of a date share ``t₁`` and ``s_k``:
the same imperfect system, started a day apart. A forecast's first step lacks the radiation of the step before (the
physics carry is not stored for every day), a shock of about 9 m² s⁻² in z500 that adds 1 % to the error variance.

``OUT.zarr/background`` has the truth's fields with dimensions (time, lead, …); ``time`` is the verification time. One
chunk is one date, marked in ``written`` when it is finished.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genda.data.store import consolidate, coordinates_of, create_fields
from genda.forecast.nature import PERTURBED_PARAMETERS, GcmState, NatureModel
from genda.forecast.pressure import SigmaFields, to_pressure_levels
from genda.forecast.store import Run, modal_state
from genda.forecast.timeline import FRAMES_PER_DAY, Stream, Timeline
from genda.variables import EMBEDDED_CHANNELS, EMBEDDED_LEVELS, FIELDS

LEADS = (24, 48)
"""Leads in hours, as played."""
_SEASON_CHOICES = 41  # source dates considered for one background: about ±20 days of the same season


@dataclass(frozen=True)
class Variant:
    """Strength of a recipe: α, standard deviation of s, and the hours integrated for each of :data:`LEADS`."""

    alpha: float
    strength: float
    hours: tuple[int, int]


VARIANTS = {"a": Variant(0.4, 0.5, (24, 48)), "b": Variant(0.25, 0.25, (72, 96))}


@dataclass(frozen=True)
class Pair:
    """One date with its draws.

    Attributes:
        frame: index of the verification time on the truth's time axis (00 UTC).
        split: "train", "validation" or "test".
        stream: truth stream it belongs to.
        day: days from that stream's start to the verification time.
        source_day: ``t₁``, in days from the start of the source run.
        strength: ``s_k``, shape (parameters,).
    """

    frame: int
    split: str
    stream: Stream
    day: int
    source_day: int
    strength: NDArray[np.float64]


def plan(timeline: Timeline, counts: dict[str, int], variant: str = "b") -> tuple[Pair, ...]:
    """All dates and draws of an experiment, in the order of time; a function of its arguments alone.

    Dates are spread evenly over a split, at least three days apart for validation and test. A split too short for
    its count gets as many as fit.

    Args:
        timeline: the truth's.
        counts: dates wanted for "train", "validation" and "test".
        variant: ``"a"`` or ``"b"``.

    Raises:
        ValueError: for an unknown variant or split.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant: found {variant!r}, expected one of {', '.join(VARIANTS)}")
    unknown = set(counts) - {"train", "validation", "test"}
    if unknown:
        raise ValueError(f"counts: found {', '.join(sorted(unknown))}, expected train, validation or test")
    source_days = timeline.source.days - 1
    free = np.ones(source_days, dtype=bool)
    pairs = []
    for split in ("test", "validation", "train"):
        for frame, stream, day in _dates(timeline, split, counts.get(split, 0), variant):
            rng = np.random.default_rng([timeline.seed, frame, 7])
            distance = days_of_year_apart(timeline, frame, np.arange(source_days))
            candidates = np.flatnonzero(free)
            if candidates.size == 0:
                raise ValueError(f"counts: found {counts}, expected fewer than {source_days} validation and test dates")
            nearest = candidates[np.argsort(distance[candidates], kind="stable")][:_SEASON_CHOICES]
            source_day = int(rng.choice(nearest))
            if split != "train":
                free[source_day] = False
            half_width = np.sqrt(3.0) * VARIANTS[variant].strength
            strength = rng.uniform(-half_width, half_width, len(PERTURBED_PARAMETERS))
            pairs.append(Pair(frame, split, stream, day, source_day, strength))
    return tuple(sorted(pairs, key=lambda pair: pair.frame))


def days_of_year_apart(timeline: Timeline, frame: int, days: NDArray[np.int_]) -> NDArray[np.int_]:
    """How many days of the year lie between a frame and days of the source run, the shorter way round."""
    apart = np.abs(days - ((frame + 1) // FRAMES_PER_DAY) % timeline.year_days)
    return np.asarray(np.minimum(apart, timeline.year_days - apart))


def _dates(timeline: Timeline, split: str, count: int, variant: str) -> list[tuple[int, Stream, int]]:
    labels, longest = timeline.split, max(VARIANTS[variant].hours) // 24
    days = [
        (stream.offset + day * FRAMES_PER_DAY - 1, stream, day)
        for stream in timeline.streams
        if stream.offset is not None
        for day in range(longest, stream.days)
        if labels[stream.offset + day * FRAMES_PER_DAY - 1] == split
    ]
    apart = 1 if split == "train" else 3
    count = min(count, (len(days) + apart - 1) // apart)
    if split != "train":
        count = min(count, (timeline.source.days - 1) // 3)
    if count == 0:
        return []
    return [days[i] for i in np.linspace(0, len(days) - 1, count).round().astype(int)]


def create_group(run: Run, model: NatureModel, pairs: tuple[Pair, ...], variant: str) -> None:
    """Lay out ``background`` in the store, or check that the one there is this experiment's.

    Raises:
        ValueError: where it belongs to another plan.
    """
    import xarray as xr
    import zarr

    recipe = VARIANTS[variant]
    attributes = {
        "variant": variant,
        "alpha": recipe.alpha,
        "parameter_strength_std": recipe.strength,
        "integrated_hours": list(recipe.hours),
        "parameters": [f"{scheme}.{name}" for scheme, name in PERTURBED_PARAMETERS],
        "recipe": "perturbed start, imperfect model; see genda.forecast.backgrounds",
    }
    times = run.timeline.time[[pair.frame for pair in pairs]]
    time_attributes = {"standard_name": "time", "long_name": "verification time"}
    root = zarr.open_group(run.out, mode="r+")
    if "background" in root:
        group = zarr.open_group(run.out, mode="r", path="background")
        if group.attrs.get("variant") != variant:
            raise ValueError(f"{run.out}: found variant {group.attrs.get('variant')!r}, expected {variant!r}")
        stored = xr.open_zarr(run.out, group="background", consolidated=False).time.values
        if not np.array_equal(stored.astype("datetime64[h]"), times.astype("datetime64[h]")):
            raise ValueError(f"{run.out}: found {stored.size} background dates, expected {times.size} others")
        return
    dataset = xr.Dataset(
        {"parameter_strength": (("time", "parameter"), np.stack([pair.strength for pair in pairs]))},
        coords={
            **coordinates_of(model.grid, EMBEDDED_LEVELS),
            "time": ("time", times.astype("datetime64[ns]"), time_attributes),
            "lead": ("lead", np.array(LEADS, dtype=np.int32), {"units": "h", "long_name": "lead as played"}),
            "split": ("time", np.array([pair.split for pair in pairs], dtype=object)),
            "source_day": ("time", np.array([pair.source_day for pair in pairs], dtype=np.int32)),
        },
        attrs=attributes,
    )
    encoding = {"time": {"units": "hours since 1970-01-01", "dtype": "int64"}}
    dataset.to_zarr(run.out, group="background", mode="w", zarr_format=3, consolidated=False, encoding=encoding)
    group = zarr.open_group(run.out, mode="r+", path="background")
    create_fields(group, EMBEDDED_CHANNELS, model.grid, (("time", len(pairs), 1), ("lead", len(LEADS), len(LEADS))))
    group.attrs["coordinates"] = "split source_day written"
    consolidate(run.out)


def write_backgrounds(
    run: Run,
    pairs: tuple[Pair, ...],
    split: str,
    model: NatureModel,
    variant: str = "b",
    report: Callable[[str, int, int], None] | None = None,
) -> None:
    """Compute the backgrounds of one split that are not there yet, as many dates at a time as the model has members.

    Dates come in an order whose beginning is spread over the whole split.

    Raises:
        FileNotFoundError: where the truth or the source has not come far enough.
        FloatingPointError: naming the field and date, where a forecast is not finite; that date is not written.
        ValueError: as :func:`create_group`.
    """
    import zarr

    batch = model.members
    create_group(run, model, pairs, variant)
    group: Any = zarr.open_group(run.out, mode="r+", path="background")
    mine = scattered([i for i, pair in enumerate(pairs) if pair.split == split])
    todo = [i for i in mine if not group["written"][i]]
    for first in range(0, len(todo), batch):
        indices = todo[first : first + batch]
        padded = [pairs[i] for i in (indices + [indices[-1]] * batch)[:batch]]
        leads = [
            forecast(run, model, [Start.of(pair, hours) for pair in padded], VARIANTS[variant].alpha)
            for hours in VARIANTS[variant].hours
        ]
        for member, i in enumerate(indices):
            for field in FIELDS:
                values = np.stack([lead[member][field.id] for lead in leads]).astype(np.float32)
                if not np.isfinite(values).all():
                    raise FloatingPointError(f"{field.name} of the background for {run.timeline.time[pairs[i].frame]}"
                                             " is not finite")  # fmt: skip
                group[field.name][i] = values
            group["written"][i] = 1
        if report is not None:
            report(f"background-{split}", len(mine) - len(todo) + first + len(indices), len(mine))


@dataclass(frozen=True)
class Start:
    """Where a forecast begins.

    Attributes:
        stream, day: the truth it is perturbed from.
        source_days: ``t₁`` of every perturbation added.
        strength: ``s_k``, shape (parameters,).
        hours: to integrate.
    """

    stream: Stream
    day: int
    source_days: tuple[int, ...]
    strength: NDArray[np.float64]
    hours: int

    @staticmethod
    def of(pair: Pair, hours: int) -> Start:
        """The background of a pair."""
        return Start(pair.stream, pair.day - hours // 24, (pair.source_day,), pair.strength, hours)


def forecast(run: Run, model: NatureModel, starts: list[Start], alpha: float) -> list[dict[str, NDArray[np.float64]]]:
    """Fields at the end of forecasts of equal length, one for each member of the model."""
    levels = [100.0 * level for level in EMBEDDED_LEVELS]
    fields = integrated(run, model, starts, alpha)[1]
    return [{name: values[-1] for name, values in to_pressure_levels(f, levels).items()} for f in fields]


def integrated(
    run: Run, model: NatureModel, starts: Sequence[Start], alpha: float
) -> tuple[GcmState, list[SigmaFields]]:
    """The state at the end of forecasts of equal length, one for each member of the model, and the fields of their last day."""
    dynamics = []
    for start in starts:
        leaves = modal_state(run, start.stream, start.day)
        for source_day in start.source_days:
            earlier, later = (modal_state(run, run.timeline.source, source_day + i) for i in (0, 1))
            perturbed = model.perturbed(leaves, earlier, later, alpha)
            leaves = model.leaves(perturbed)
        dynamics.append(perturbed)
    dates = [start.stream.start + np.timedelta64(24 * start.day, "h") for start in starts]
    state = model.from_dynamics(dynamics, dates)
    strength = np.stack([start.strength for start in starts])
    for _ in range(starts[0].hours // 24):
        state, fields = model.advance(state, strength)
    return state, fields


def scattered(items: Sequence[int]) -> list[int]:
    """The items in bit-reversed order of their places: each beginning of it is spread over the whole."""
    bits = max(1, (len(items) - 1).bit_length())
    order = [int(format(i, f"0{bits}b")[::-1], 2) for i in range(2**bits)]
    return [items[i] for i in order if i < len(items)]

"""Ensembles of forecasts about the backgrounds: what the day's errors look like, for hybrid and ensemble methods.

Member ``k`` of a date starts from the *background's* perturbed start, not the truth's, plus a perturbation of its own,

    x_k(t − h) = x_b(t − h) + α F(l) [S'(t_k + 24 h) − S'(t_k)],

and is integrated ``h`` hours with model parameters of its own, as :mod:`genda.forecast.backgrounds` describes. The members
differ from the background as the background differs from the truth, and know no more of the truth than it does. A ``t_k``
is of the same season, used by no test or validation background, and at least :data:`APART` days from this date's own.

``OUT.zarr/ensemble`` has the truth's fields with dimensions (time, member, …) for the shorter lead; ``time`` holds the dates of
``background``. One chunk is one date, marked in ``written`` when it is finished.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from genda.data.store import consolidate, coordinates_of, create_fields
from genda.forecast.backgrounds import LEADS, VARIANTS, Pair, Start, days_of_year_apart, forecast, scattered
from genda.forecast.nature import PERTURBED_PARAMETERS, NatureModel
from genda.forecast.store import Run, dynamics_at, stream_at
from genda.forecast.timeline import FRAMES_PER_DAY, Timeline
from genda.variables import EMBEDDED_CHANNELS, EMBEDDED_LEVELS, FIELDS

MEMBERS = 16
APART = 3
_SEASON_CHOICES = 60  # source dates considered for members: about ±30 days of the same season


def starts(timeline: Timeline, pair: Pair, pairs: Sequence[Pair], members: int, variant: str = "b") -> list[Start]:
    """Where the members of one date begin; a function of its arguments alone.

    Raises:
        ValueError: for more members than there are free days in the source run.
    """
    rng = np.random.default_rng([timeline.seed, pair.frame, 11])
    days = np.arange(timeline.source.days - 1)
    taken = [other.source_day for other in pairs if other.split != "train"]
    free = days[~np.isin(days, taken) & (np.abs(days - pair.source_day) >= APART)]
    if free.size < members:
        raise ValueError(f"members: found {members}, expected at most {free.size}, the free days of the source run")
    nearest = free[np.argsort(days_of_year_apart(timeline, pair.frame, free), kind="stable")][
        : max(_SEASON_CHOICES, members)
    ]
    chosen = rng.choice(nearest, size=members, replace=False)
    half_width = np.sqrt(3.0) * VARIANTS[variant].strength
    strength = rng.uniform(-half_width, half_width, (members, len(PERTURBED_PARAMETERS)))
    hours = VARIANTS[variant].hours[0]
    return [
        Start(pair.stream, pair.day - hours // 24, (pair.source_day, int(day)), strength[k], hours)
        for k, day in enumerate(chosen)
    ]


def cycle_starts(run: Run, time: np.datetime64, members: int, seed: int, variant: str = "b") -> list[Start]:
    """Where the members of a cycle begin whose first forecast is valid at a time; a function of its arguments alone.

    As those of a background's ensemble: a perturbation they share, which makes their mean err, and one of each one's own. Member k
    is the same however many there are.

    Raises:
        FileNotFoundError: where the run has no state so long before that time.
        ValueError: for more members than there are perturbations of the season.
    """
    timeline, recipe = run.timeline, VARIANTS[variant]
    stream, day = stream_at(run, time)
    frame = (stream.offset or 0) + day * FRAMES_PER_DAY - 1
    rng = np.random.default_rng([timeline.seed, frame, seed, 13])
    days = np.arange(timeline.source.days - 1)
    season = days[np.argsort(days_of_year_apart(timeline, frame, days), kind="stable")][:_SEASON_CHOICES]
    if members >= season.size:
        raise ValueError(
            f"members: found {members}, expected fewer than {season.size}, the perturbations of the season"
        )
    shared, *own = rng.permutation(season)
    half_width = np.sqrt(3.0) * recipe.strength
    strength = rng.uniform(-half_width, half_width, (members, len(PERTURBED_PARAMETERS)))
    hours = recipe.hours[0]
    dynamics_at(run, time - np.timedelta64(hours, "h"))
    return [Start(stream, day - hours // 24, (int(shared), int(own[k])), strength[k], hours) for k in range(members)]


def create_group(run: Run, model: NatureModel, pairs: Sequence[Pair], members: int) -> None:
    """Lay out ``ensemble`` in the store, or check that the one there is this experiment's.

    Raises:
        ValueError: where it has other dates or members.
    """
    import xarray as xr
    import zarr

    times = run.timeline.time[[pair.frame for pair in pairs]]
    if "ensemble" in zarr.open_group(run.out, mode="r", use_consolidated=False):
        stored = xr.open_zarr(run.out, group="ensemble", consolidated=False)
        found = stored.time.values.astype("datetime64[h]")
        if stored.sizes["member"] != members or not np.array_equal(found, times.astype("datetime64[h]")):
            raise ValueError(
                f"{run.out}: found an ensemble of {stored.sizes['member']} members on {found.size} dates, "
                f"expected {members} on {times.size}"
            )
        return
    coordinates = {
        **coordinates_of(model.grid, EMBEDDED_LEVELS),
        "time": ("time", times.astype("datetime64[ns]"), {"standard_name": "time", "long_name": "verification time"}),
        "member": ("member", np.arange(members, dtype=np.int32), {"standard_name": "realization"}),
        "split": ("time", np.array([pair.split for pair in pairs], dtype=object)),
    }
    xr.Dataset(coords=coordinates, attrs={"lead": LEADS[0], "recipe": "see genda.forecast.ensembles"}).to_zarr(
        run.out,
        group="ensemble",
        mode="w",
        zarr_format=3,
        consolidated=False,
        encoding={"time": {"units": "hours since 1970-01-01", "dtype": "int64"}},
    )
    group = zarr.open_group(run.out, mode="r+", path="ensemble")
    create_fields(group, EMBEDDED_CHANNELS, model.grid, (("time", len(pairs), 1), ("member", members, members)))
    group.attrs["coordinates"] = "split written"
    consolidate(run.out)


def write_ensembles(
    run: Run,
    pairs: Sequence[Pair],
    split: str,
    model: NatureModel,
    members: int = MEMBERS,
    variant: str = "b",
    report: Callable[[str, int, int], None] | None = None,
) -> None:
    """Compute the ensembles of one split that are not there yet, in an order whose beginning covers the whole split.

    Raises:
        FileNotFoundError: where the truth or the source has not come far enough.
        FloatingPointError: naming the field and date, where a forecast is not finite; that date is not written.
        ValueError: as :func:`create_group` and :func:`starts`.
    """
    import zarr

    create_group(run, model, pairs, members)
    group: Any = zarr.open_group(run.out, mode="r+", path="ensemble")
    mine = scattered([i for i, pair in enumerate(pairs) if pair.split == split])
    todo = [i for i in mine if not group["written"][i]]
    together = max(1, model.members // members)
    for first in range(0, len(todo), together):
        indices = todo[first : first + together]
        wanted = [start for i in indices for start in starts(run.timeline, pairs[i], pairs, members, variant)]
        found = []
        for begin in range(0, len(wanted), model.members):
            batch = wanted[begin : begin + model.members]
            padded = batch + batch[-1:] * (model.members - len(batch))
            found += forecast(run, model, padded, VARIANTS[variant].alpha)[: len(batch)]
        for place, i in enumerate(indices):
            one = found[place * members : (place + 1) * members]
            for field in FIELDS:
                values = np.stack([member[field.id] for member in one]).astype(np.float32)
                if not np.isfinite(values).all():
                    raise FloatingPointError(
                        f"{field.name} of the ensemble for {run.timeline.time[pairs[i].frame]} is not finite"
                    )
                group[field.name][i] = values
            group["written"][i] = 1
        if report is not None:
            report(f"ensemble-{split}", len(mine) - len(todo) + first + len(indices), len(mine))

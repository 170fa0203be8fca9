"""Means over boxes and thinning: closed forms, counts, and what a selection of levels makes of them."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest
from tests.observations.test_checks import LEVELS, profile
from tests.shared_data import shared

from genda.observations import (
    Flag,
    assign_errors,
    check_bounds,
    check_duplicates,
    make_checks,
    read_observations,
    run_checks,
    select_levels,
    superob,
    thin,
    validate,
)
from genda.observations.errors import sounding_blocks

MODEL = [85000.0, 70000.0, 50000.0, 30000.0, 20000.0]


def stations(count: int = 4, **place: float) -> pd.DataFrame:
    """Ascents that share the standard levels, each with another significant level beside every one of them."""
    parts = []
    for k in range(count):
        standard = profile(f"s{k}", **({"latitude": 50.5 + 0.1 * k} | place))
        significant = standard.assign(pressure=standard["pressure"] * (0.985 - 0.003 * k))
        wind = 10 + 20 * np.log(1e5 / significant["pressure"])
        significant["observation"] = wind.where(significant["variable"] == "u", significant["observation"])
        parts += [standard, significant[significant["pressure"] > 6000]]
    return pd.concat(parts, ignore_index=True)


def passing(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["quality"] == Flag.PASS]


def test_superobservations_are_means_with_smaller_errors():
    near = pd.concat([profile(f"s{k}", latitude=50.5 + 0.1 * k) for k in range(4)], ignore_index=True)
    near["observation"] += near["station"].str[1:].astype(int) * (near["variable"] == "t")
    far = profile("far", latitude=-20.0)
    table = pd.concat([near, far], ignore_index=True).assign(hx_b=1.0)
    result = run_checks(table, [lambda t: superob(t, correlation=0.25)])
    validate(result)
    assert (result["quality"].iloc[: len(near)] == Flag.THINNED).all()
    assert (result["quality"].iloc[len(near) : len(table)] == Flag.PASS).all()
    new = result.iloc[len(table) :]
    assert len(new) == len(far)
    t = new[(new["variable"] == "t") & (new["pressure"] == 5e4)].iloc[0]
    one = near[(near["variable"] == "t") & (near["pressure"] == 5e4)]
    assert t["observation"] == pytest.approx(one["observation"].mean())
    assert t["latitude"] == pytest.approx(50.65)
    assert t["obs_error"] == pytest.approx(one["obs_error"].iloc[0] * np.sqrt((1 + 3 * 0.25) / 4))
    assert t["hx_b"] == 1.0


def test_columns_that_means_know_nothing_of_are_left_empty_there():
    table = stations().assign(note="mine", hx_spread=1.0)
    means = passing(superob(table))
    assert means[["note", "hx_spread"]].isna().all(axis=None)
    assert list(means) == list(table)


def test_means_are_a_sounding_on_the_levels_that_its_parts_share():
    """Linear in ln p as the profiles are in u, and equal at every station: means at any mean pressure are on the line."""
    means = passing(superob(stations()))
    assert means["station"].nunique() == means["time"].nunique() == means["source"].nunique() == 1
    assert set(LEVELS) <= set(means["pressure"])
    u = means[means["variable"] == "u"]
    np.testing.assert_allclose(u["observation"], 10 + 20 * np.log(1e5 / u["pressure"]), rtol=1e-12)
    rows, _ = sounding_blocks(means, 0.3)
    assert len(rows) == 5
    assert (means["obs_error"] < assign_errors(means.assign(obs_error=np.nan))["obs_error"]).any()


@pytest.mark.parametrize("exact", [False, True])
def test_a_box_gives_a_model_one_value_a_level_and_variable(exact):
    table = stations()
    alone = passing(select_levels(table, MODEL, exact))
    assert len(alone) == 4 * 5 * len(MODEL)
    for check in (superob, thin):
        kept = passing(run_checks(table, [check, partial(select_levels, levels=MODEL, exact=exact)]))
        assert len(kept) == 5 * len(MODEL)
        assert sorted(set(kept["pressure"])) == MODEL[::-1]


def test_real_ascents_become_fewer():
    table = assign_errors(read_observations(shared("temp.bufr")))
    table = run_checks(table, [check_bounds, check_duplicates])
    for exact in (False, True):
        select = partial(select_levels, levels=MODEL, exact=exact)
        every = len(passing(select(table)))
        counts = [len(passing(run_checks(table, [check, select]))) for check in (superob, thin)]
        assert all(0.9 * every < count < every for count in counts)


def test_what_differs_too_much_is_not_averaged():
    table = stations()
    other = table.assign(source="other")
    means = passing(superob(pd.concat([table, other], ignore_index=True)))
    assert set(means["source"]) == {"s-mean", "other-mean"}
    ground = assign_errors(
        pd.concat([profile(f"s{k}", elevation=h).iloc[:1] for k, h in enumerate((100.0, 120.0, 2000.0))]).assign(
            variable="t2m", pressure=np.nan, observation=[285.0, 287.0, 270.0], obs_error=np.nan
        )
    ).reset_index(drop=True)
    kept = passing(superob(ground))
    assert kept["observation"].tolist() == [270.0, 286.0]
    assert kept["elevation"].tolist() == [2000.0, 110.0]
    levels = profile().assign(pressure=lambda t: 5e4 - 100 * np.arange(len(t)))  # of one ascent
    assert (superob(levels)["quality"] == Flag.PASS).all()
    across = superob(pd.concat([profile("a", longitude=359.9), profile("b", longitude=359.5)], ignore_index=True))
    assert passing(across)["longitude"].unique() == pytest.approx(359.7)


def test_thinning_keeps_the_fullest_sounding_and_what_others_have_beyond_it():
    full = profile("full")[lambda t: t["pressure"] > 2e4]
    burst = profile("high", latitude=50.1)[lambda t: t["pressure"] < 4e4]
    aircraft = profile("plane", latitude=50.2)[lambda t: t["pressure"] == 5e4].assign(source="aircraft")
    table = pd.concat([burst, aircraft, full], ignore_index=True)
    kept = passing(thin(table))
    assert kept[kept["station"] == "full"].shape[0] == len(full)
    assert set(kept["pressure"][kept["station"] == "high"]) == set(LEVELS[LEVELS <= 2e4])
    assert "plane" not in set(kept["station"])
    lone = passing(thin(table[table["station"] != "full"]))
    assert (lone["station"] == "plane").sum() == 5  # below the other's lowest level
    assert (thin(table, box_km=1.0)["quality"] == Flag.PASS).all()
    with pytest.raises(ValueError, match="box_km: found 0"):
        thin(table, box_km=0)


def test_domain_and_levels_of_a_file_of_checks():
    table = pd.concat([profile(), profile("b", longitude=355.0), profile("c", latitude=-50.0)], ignore_index=True)
    settings = {"north": 60, "west": -10, "south": 40, "east": 5}
    checked = run_checks(table, make_checks([{"domain": settings}]).values())
    assert set(passing(checked)["station"]) == {"b"}
    with pytest.raises(ValueError, match="domain: found north 40, west -10"):
        run_checks(table, make_checks([{"domain": settings | {"north": 40, "south": 60}}]).values())
    selected = run_checks(table, make_checks([{"levels": {"levels": [850, 500]}}]).values())
    assert set(passing(selected)["pressure"]) == {85000.0, 50000.0}
    assert len(passing(selected)) == 3 * 2 * 5
    with pytest.raises(ValueError, match="found 85000, expected pressures in hPa"):
        run_checks(table, make_checks([{"levels": {"levels": [85000]}}]).values())

"""Quality control: planted errors are caught, good data pass, flags are never overwritten."""

from __future__ import annotations

import gzip
from functools import partial

import numpy as np
import pandas as pd
import pytest
from tests.shared_data import shared

from genda.grid import LatLonGrid
from genda.observations import (
    Flag,
    Rule,
    assign_errors,
    check_background,
    check_bounds,
    check_denied,
    check_domain,
    check_duplicates,
    check_missing,
    check_window,
    columns_table,
    read_checks,
    read_observations,
    run_checks,
    select_levels,
    summary,
    validate,
)
from genda.observations.errors import sounding_blocks
from genda.observations.operators import points
from genda.observations.places import Places, observation_table
from genda.observations.quality import set_flag

ISA = {
    1000: (287.4, 111), 850: (278.7, 1457), 700: (268.6, 3012), 500: (252.0, 5574), 300: (228.7, 9164),
    200: (216.7, 11784), 100: (216.7, 16180), 50: (216.7, 20576),
}  # fmt: skip
"""ICAO standard atmosphere: level in hPa to temperature K and height m."""


def ascent(levels: dict[float, dict[str, float]], station: str = "a") -> pd.DataFrame:
    """A sounding from {pressure in hPa: {variable: value}}."""
    place = pd.DataFrame({"station": [station], "latitude": [50.0], "longitude": [10.0], "elevation": [100.0]})
    rows = [(100.0 * p, variable, value) for p, values in levels.items() for variable, value in values.items()]
    table = columns_table(place, ["t500"], "2020-01-01T12").loc[[0] * len(rows)].reset_index(drop=True)
    pressure, variable, value = zip(*rows, strict=True)
    return table.assign(pressure=pressure, variable=pd.Series(variable, dtype="str"), observation=value, obs_error=1.0)


def flags(table: pd.DataFrame) -> list[int]:
    return table["quality"].tolist()


def test_the_standard_atmosphere_passes_and_wrong_units_do_not():
    good = ascent({p: {"t": t, "z": h * 9.80665, "u": 30.0, "q": 1e-5} for p, (t, h) in ISA.items()})
    assert set(flags(check_bounds(good))) == {Flag.PASS}
    celsius = ascent({p: {"t": t - 273.15} for p, (t, _) in ISA.items()})
    metres = ascent({p: {"z": float(h)} for p, (_, h) in ISA.items() if p < 850})
    hectopascals = good.assign(pressure=good["pressure"] / 100)
    grams = ascent({p: {"q": 5.0} for p in ISA})
    for wrong in (celsius, metres, grams):
        assert set(flags(check_bounds(wrong))) == {Flag.BOUNDS}
    assert (check_bounds(hectopascals)["quality"][good["variable"] == "z"] == Flag.BOUNDS).mean() > 0.6


def test_bounds_depend_on_the_level():
    """280 K is an ordinary 850 hPa and an impossible 300 hPa."""
    assert flags(check_bounds(ascent({850: {"t": 280.0}, 300: {"t": 280.0}}))) == [Flag.PASS, Flag.BOUNDS]


def test_strong_winds_blow_aloft():
    """154 m/s is a jet's extreme and no wind at the ground; a hurricane's 85 m/s is one at 900 hPa."""
    wind = {1011: {"u": -154.0}, 900: {"v": 85.0}, 250: {"u": 130.0}, 5: {"v": -154.0}, 700: {"u": 125.0}}
    expected = {101100.0: Flag.BOUNDS, 90000.0: 0, 25000.0: 0, 500.0: 0, 70000.0: Flag.BOUNDS}
    found = check_bounds(ascent(wind))
    assert dict(zip(found["pressure"], found["quality"], strict=True)) == expected


def test_only_the_first_of_equals_passes():
    table = ascent({500: {"t": 250.0}, 500.0001: {"t": 250.0}})
    table = pd.concat([table, table, table.assign(station="b")], ignore_index=True)
    assert flags(check_duplicates(table)) == [0, 0, Flag.DUPLICATE, Flag.DUPLICATE, 0, 0]
    # A row that was rejected is no reason to reject the next.
    table.loc[0, "quality"] = Flag.BOUNDS
    assert flags(check_duplicates(table)) == [Flag.BOUNDS, 0, 0, Flag.DUPLICATE, 0, 0]


def test_duplicate_surface_fields_have_no_pressure():
    place = pd.DataFrame({"station": ["a"], "latitude": [0.0], "longitude": [0.0], "elevation": [0.0]})
    table = columns_table(place, ["t2m", "msl"], "2020-01-01").assign(observation=[280.0, 1e5])
    assert flags(check_duplicates(pd.concat([table, table], ignore_index=True))) == [0, 0, 40, 40]


def test_an_ascent_from_two_sources_counts_once():
    """11:15 UTC in one source is 12 UTC in the other; what only one of them reports, and what is another ascent, stays."""
    levels = {850: {"t": 278.0}, 500: {"t": 252.0}}
    igra = ascent(levels, "AUM00011035").assign(source="igra")
    bufr = ascent({850: {"t": 278.1}, 700: {"t": 270.0}}, "11035").assign(source="bufr-temp")
    bufr["time"] -= pd.Timedelta(minutes=45)
    table = pd.concat([igra, bufr, bufr.assign(time=igra["time"][0] - pd.Timedelta(hours=3))], ignore_index=True)
    assert flags(check_duplicates(table)) == [0, 0, Flag.DUPLICATE, 0, 0, 0]
    assert flags(check_duplicates(table, hours=0)) == 6 * [0]
    within_one = pd.concat([igra, igra.assign(time=bufr["time"][0])], ignore_index=True)
    assert flags(check_duplicates(within_one)) == 4 * [0]
    again = pd.concat([igra, bufr, bufr.assign(time=bufr["time"] + pd.Timedelta(minutes=20))], ignore_index=True)
    assert flags(check_duplicates(again)) == [0, 0, 0, 0, Flag.DUPLICATE, 0]
    wigos = pd.concat([bufr, bufr.assign(station="0-20000-0-11035", source="other")], ignore_index=True)
    assert flags(check_duplicates(wigos)) == [0, 0, Flag.DUPLICATE, Flag.DUPLICATE]
    aircraft = table.assign(station=pd.Series(["EU1234"] * 2 + ["1234"] * 4, dtype="str"))
    assert flags(check_duplicates(aircraft)) == 6 * [0]


def test_window_includes_its_ends():
    table = pd.concat([ascent({500: {"t": 250.0}}) for _ in range(4)], ignore_index=True)
    times = ["2020-01-01T06:00", "2020-01-01T18:00", "2020-01-01T18:01", "2021-01-01T00:00"]
    table["time"] = np.array(times, dtype="datetime64[ns]")
    checked = check_window(table, time="2020-01-01T12", half_width="6h")
    assert flags(checked) == [0, 0, Flag.DOMAIN, Flag.DOMAIN]
    with pytest.raises(ValueError, match="half_width"):
        check_window(table, "2020-01-01", "-1h")


def test_domain_of_a_region_across_the_prime_meridian():
    grid, _, _ = LatLonGrid.from_coordinates(np.arange(60.0, 29, -1), np.arange(-10.0, 11))
    table = pd.concat([ascent({500: {"t": 250.0}})] * 4, ignore_index=True)
    table = table.assign(latitude=[45.0, 45.0, 45.0, 70.0], longitude=[355.0, 5.0, 20.0, 5.0])
    assert flags(check_domain(table, grid)) == [0, 0, Flag.DOMAIN, Flag.DOMAIN]
    assert flags(check_domain(table, LatLonGrid.gaussian(48, 96))) == [0, 0, 0, 0]


def test_background_check_combines_both_errors():
    table = ascent({500: {"t": 255.0}, 400: {"t": 255.1}, 300: {"t": 200.0}, 200: {"t": 250.0}}).assign(obs_error=4.0)
    background = np.array([240.0, 240.0, np.nan, 250.0])
    checked = check_background(table, background, background_error=3.0, factor=3.0)  # 3·√(9+16) = 15
    assert flags(checked) == [0, Flag.BACKGROUND, Flag.OPERATOR_FAILED, 0]
    np.testing.assert_array_equal(checked["hx_b"], background)
    validate(checked)
    with pytest.raises(ValueError, match="assign_errors"):
        check_background(table.assign(obs_error=np.nan), background, 1.0)
    with pytest.raises(ValueError, match=r"hx_b: found shape \(2,\)"):
        check_background(table, background[:2], 1.0)
    with pytest.raises(ValueError, match="background_error"):
        check_background(table, background, -1.0)


def test_the_background_check_rejects_at_its_nominal_rate():
    """Departures drawn from N(0, σb² + σo²): outside three standard deviations lie 0.27 %."""
    generator = np.random.default_rng(0)
    table = pd.concat([ascent({500: {"t": 250.0}})] * 1, ignore_index=True).loc[[0] * 40000].reset_index(drop=True)
    truth = np.full(40000, 250.0)
    table["observation"] = truth + generator.normal(0, 1.0, 40000)
    checked = check_background(table, truth + generator.normal(0, 2.0, 40000), 2.0, factor=3.0)
    assert (checked["quality"] == Flag.BACKGROUND).mean() == pytest.approx(0.0027, abs=8e-4)


def test_filters_run_in_order_and_the_first_flag_stays():
    table = ascent({500: {"t": 999.0}, 400: {"t": 245.0}})
    late = partial(check_window, time="2021-01-01", half_width="1h")
    assert flags(run_checks(table, [check_bounds, late])) == [Flag.BOUNDS, Flag.DOMAIN]
    assert flags(run_checks(table, [late, check_bounds])) == [Flag.DOMAIN, Flag.DOMAIN]
    assert flags(table) == [0, 0]

    def bad(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(quality=np.int16(0))

    with pytest.raises(ValueError, match=r"check bad: .*earlier flag"):
        run_checks(table, [check_bounds, bad])
    with pytest.raises(ValueError, match="found 1 rows, expected the 2"):
        run_checks(table, [lambda t: t.iloc[:1]])


def test_passive_rows_are_left_alone():
    table = ascent({500: {"t": 999.0}})
    table = set_flag(table, [True], Flag.PASSIVE)
    assert flags(run_checks(table, [check_bounds, check_missing])) == [Flag.PASSIVE]


def test_selection_keeps_exact_levels_and_the_nearest_elsewhere():
    levels = [85000.0, 70000.0, 50000.0]
    sounding = {1000: {"t": 285.0}, 860: {"t": 279.0}, 850: {"t": 278.0}, 720: {"t": 270.0}, 640: {"t": 265.0}}
    sounding |= {500: {"t": 252.0, "u": 5.0}, 499: {"t": 252.0}, 200: {"t": 217.0}}
    table = select_levels(ascent(sounding), levels)
    expected = [
        Flag.DOMAIN,  # below the lowest model level
        Flag.DOMAIN,
        Flag.PASS,
        Flag.PASS,  # nearest to 700 hPa, which was not reported
        Flag.THINNED,
        Flag.PASS,
        Flag.PASS,  # wind is judged apart from temperature
        Flag.DOMAIN,
        Flag.DOMAIN,
    ]
    assert flags(table) == expected
    exact = select_levels(ascent(sounding), levels, exact=True)
    assert exact.loc[exact["quality"] == Flag.PASS, "pressure"].tolist() == [85000.0, 50000.0, 50000.0]
    with pytest.raises(ValueError, match="levels"):
        select_levels(table, [])


def test_places_without_identifiers_are_told_apart_by_their_positions():
    """Three unnamed places, of which one reports twice, and one time: neither doubled, nor levels of one sounding."""
    one = ascent({500: {"t": 252.0}}, "")
    table = pd.concat([one, one.assign(latitude=51.0), one.assign(longitude=11.0), one], ignore_index=True)
    assert flags(check_duplicates(table)) == [0, 0, 0, Flag.DUPLICATE]
    assert flags(select_levels(table[:3], [85000.0, 50000.0])) == [0, 0, 0]
    assert len(sounding_blocks(table[:3], 0.3)[0]) == 3
    assert summary(table)["stations"] == summary(table)["soundings"] == 3


def test_readers_name_places_without_identifiers_by_their_positions():
    places = Places(
        ["", "A1"], np.array([0, 1, 0]), np.full(3, np.datetime64("2020-01-01", "ns")), np.array([50.0, 51.0, -52.5]),
        np.array([10.0, 11.0, -12.25]), np.full(3, np.nan), None,
    )  # fmt: skip
    table = observation_table(places, {"temperature": np.full(3, 280.0)}, "s")
    assert table["station"].tolist() == ["50.0000,10.0000", "A1", "-52.5000,347.7500"]


@pytest.mark.parametrize("pressure", [85000.0, 85000.5, 49999.5, 49999.01])
def test_what_the_selection_lets_pass_the_operator_takes(pressure):
    """To the rounding of reports: the value there is that of the level."""
    grid = LatLonGrid.gaussian(8, 16)
    table = ascent({700: {"t": 270.0}}).assign(pressure=pressure)
    assert flags(select_levels(table, [85000.0, 50000.0])) == [0]
    matrix = points(grid, ["t850", "t500"], ["t"], np.array([pressure]), np.array([50.0]), np.array([10.0]), "bilinear")
    by_level = matrix.toarray().reshape(2, -1).sum(axis=1)
    np.testing.assert_allclose(by_level, [1, 0] if pressure > 6e4 else [0, 1], atol=1e-12)


def test_selection_treats_soundings_apart_and_leaves_the_surface():
    two = pd.concat([ascent({500: {"t": 252.0}}), ascent({500: {"t": 253.0}}, "b")], ignore_index=True)
    assert flags(select_levels(two, [85000.0, 50000.0])) == [0, 0]
    surface = two.assign(variable=pd.Series(["t2m", "msl"], dtype="str"), pressure=np.nan)
    assert flags(select_levels(surface, [85000.0, 50000.0])) == [0, 0]


def test_real_soundings_planted_errors_are_caught_and_good_data_kept():
    """Gross errors in 1 % of the rows between 1000 and 100 hPa of the Vienna soundings."""
    table = read_observations(shared("AUM00011035-data.txt.gz"))
    checks = [check_missing, check_bounds, check_duplicates]
    assert (run_checks(table, checks)["quality"] != Flag.PASS).mean() < 1e-3
    generator = np.random.default_rng(1)
    t = table.index[(table["variable"] == "t") & (table["pressure"] > 10000)].to_numpy()
    planted = generator.choice(t, t.size // 100, replace=False)
    table.loc[planted, "observation"] -= 273.15  # °C read as K
    checked = run_checks(table, checks)
    assert (checked.loc[planted, "quality"] == Flag.BOUNDS).mean() >= 0.95
    others = checked.drop(planted)
    others = others[others["quality"] != Flag.PASS]
    level = ["time", "pressure"]
    assert set(others["variable"]) == {"q"}  # those at the same levels, and nothing else
    assert others.set_index(level).index.isin(table.loc[planted].set_index(level).index).all()


def test_a_variable_is_judged_by_its_own_levels():
    """A model with wind at 500 hPa alone can't see it at 600 hPa, though it has temperature on both sides."""
    table = ascent({600: {"t": 262.0, "u": 5.0, "q": 1e-3}, 500: {"t": 252.0, "u": 5.0}})
    selected = select_levels(table, {"t": [85000.0, 50000.0], "u": [50000.0]})
    assert flags(selected) == [Flag.THINNED, Flag.DOMAIN, 0, 0, 0]


def test_what_was_reported_with_a_wrong_value_follows_it():
    good = {"z": 54000.0, "t": 252.0, "u": 5.0, "v": 5.0, "q": 1e-3}
    cold, gale = good | {"t": 151.0}, good | {"v": 500.0}
    table = pd.concat([ascent({500: cold, 300: good}), ascent({500: gale, 300: good}, "b")], ignore_index=True)
    level = table["pressure"] == 50000
    expected = (table["station"] == "a") & table["variable"].isin(["t", "q"])
    expected |= (table["station"] == "b") & table["variable"].isin(["u", "v"])

    def gross(rows: pd.DataFrame) -> pd.DataFrame:
        return set_flag(
            rows, ((rows["variable"] == "t") & (rows["observation"] < 160)) | (rows["observation"] == 500), 19
        )

    checked = run_checks(table, [gross])
    np.testing.assert_array_equal(checked["quality"] == Flag.BACKGROUND, expected & level)
    moist = ascent({500: good | {"q": 0.5}})  # a humidity of its own is no fault of the temperature's
    assert flags(run_checks(moist, [check_bounds])) == [0, 0, 0, 0, Flag.BOUNDS]
    twice = pd.concat([ascent({500: cold}), ascent({500: {"t": 252.0}})], ignore_index=True)
    assert flags(run_checks(twice, [gross])) == [0, Flag.BACKGROUND, 0, 0, 0, 0]  # the second temperature stands for it
    no_t = partial(check_denied, rules=[Rule(variable=("t", "u"))])
    assert flags(run_checks(ascent({500: good}), [no_t])) == [0, Flag.DENIED, Flag.DENIED, 0, 0]
    surface = ascent({500: good}).iloc[1:4].assign(pressure=np.nan, variable=["t2m", "u10", "v10"], observation=500.0)
    assert flags(run_checks(surface, [gross])) == [Flag.BACKGROUND] * 3


def test_humidity_computed_from_a_wrong_temperature_is_not_used(tmp_path):
    """Temperatures of the Vienna file itself 20 K too high, depressions as reported: specific humidity is wrong with them."""
    with gzip.open(shared("AUM00011035-data.txt.gz"), "rt") as stream:
        lines = stream.read().splitlines()[:12000]
    lines = lines[: max(i for i, line in enumerate(lines) if line[0] == "#")]
    plain = tmp_path / "plain.txt"
    plain.write_text("\n".join(lines) + "\n")
    generator = np.random.default_rng(0)
    for i, line in enumerate(lines):
        if line[0] != "#" and int(line[22:27]) > -8000 and int(line[34:39]) >= 0 and generator.random() < 0.02:
            lines[i] = f"{line[:22]}{int(line[22:27]) + 200:5d}{line[27:]}"
    damaged = tmp_path / "damaged.txt"
    damaged.write_text("\n".join(lines) + "\n")
    right, wrong = read_observations(plain), read_observations(damaged)
    off = (right["observation"] != wrong["observation"]).to_numpy()
    assert set(wrong["variable"][off]) == {"t", "q"}
    checked = run_checks(assign_errors(wrong), read_checks().values())
    rejected = (checked["quality"] != Flag.PASS).to_numpy()
    level = ["time", "pressure"]
    of_rejected = checked.set_index(level).index.isin(
        checked[rejected & off & (checked["variable"] == "t")].set_index(level).index
    )
    assert rejected[off & (checked["variable"] == "t").to_numpy()].mean() > 0.9
    assert rejected[of_rejected & (checked["variable"] == "q").to_numpy()].all()

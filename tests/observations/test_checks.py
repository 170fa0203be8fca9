"""Checks of profiles and neighbours on profiles that obey closed forms, rules, files of checks, and planted errors."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from benchmarks.quality import planted
from tests.shared_data import shared

from genda.observations import (
    Flag,
    LevelType,
    Rule,
    assign_errors,
    check_buddies,
    check_denied,
    check_hydrostatic,
    check_lapse_rate,
    check_temperature_spikes,
    check_wind_spikes,
    make_checks,
    mark_passive,
    read_checks,
    read_observations,
    run_checks,
)
from genda.observations.buddies import outliers
from genda.observations.conversions import saturation_vapour_pressure, specific_humidity
from genda.observations.vertical import check_humidity_spikes, check_saturation

LEVELS = np.array([1000, 925, 850, 700, 500, 400, 300, 250, 200, 150, 100, 70, 50.0]) * 100
G, R = 9.80665, 287.05


def profile(station: str = "a", **place: float) -> pd.DataFrame:
    """T = 288 K (p/p0)^0.19 and the height that integrates it exactly: z = R T0 (1 − (p/p0)^0.19) / 0.19."""
    ratio = (LEVELS / 1e5) ** 0.19
    t, z = 288 * ratio, R * 288 * (1 - ratio) / 0.19
    q = specific_humidity(0.5 * saturation_vapour_pressure(t), LEVELS)
    columns = {"z": z, "t": t, "u": 10 + 20 * np.log(1e5 / LEVELS), "v": 0 * t, "q": q}
    rows = [(p, name, values[k]) for k, p in enumerate(LEVELS) for name, values in columns.items()]
    pressure, variable, value = zip(*rows, strict=True)
    frame = pd.DataFrame({"pressure": pressure, "variable": pd.Series(variable, dtype="str"), "observation": value})
    defaults = {"latitude": 50.0, "longitude": 10.0, "elevation": 100.0}
    frame = frame.assign(time=pd.Timestamp("2020-01-01T12"), station=station, source="s", quality=np.int16(0))
    return assign_errors(frame.assign(obs_error=np.nan, **(defaults | place)))


def changed(table: pd.DataFrame, variable: str, hpa: float, by: float) -> tuple[pd.DataFrame, int]:
    row = int(np.flatnonzero((table["variable"] == variable) & (table["pressure"] == 100 * hpa))[0])
    table = table.copy()
    table.loc[row, "observation"] += by
    return table, row


def flagged(table: pd.DataFrame) -> list[int]:
    return np.flatnonzero(table["quality"]).tolist()


VERTICAL = [
    check_hydrostatic, check_lapse_rate, check_temperature_spikes, check_wind_spikes, check_saturation,
    check_humidity_spikes,
]  # fmt: skip


@pytest.mark.parametrize("check", VERTICAL)
def test_a_balanced_profile_passes(check):
    both = pd.concat([profile(), profile("b")], ignore_index=True)
    assert flagged(check(both)) == []
    assert flagged(check(both.sample(frac=1, random_state=0, ignore_index=True))) == []
    assert flagged(check(both.iloc[:0])) == []


@pytest.mark.parametrize("hpa", [1000, 850, 500, 100, 50])
@pytest.mark.parametrize("metres", [-300, 250, 1000])
def test_a_wrong_height_is_told_from_its_neighbours(hpa, metres):
    both = pd.concat([profile("b"), profile()], ignore_index=True)
    table, row = changed(both, "z", hpa, metres * G)
    assert flagged(check_hydrostatic(table)) == [row]


def test_two_wrong_heights_in_a_row_do_not_hide_each_other():
    table, first = changed(profile(), "z", 500, 500 * G)
    table, second = changed(table, "z", 400, 300 * G)
    assert flagged(check_hydrostatic(table)) == [first, second]


def test_heights_integrated_from_another_station_height_condemn_no_reported_one():
    """Between the standard levels others, all 60 m too high, as a wrong station height makes them."""
    reported = profile()
    between = 0.5 * (LEVELS[1:] + LEVELS[:-1])
    ratio = (between / 1e5) ** 0.19
    others = reported[reported["variable"].isin(["z", "t"]) & (reported["pressure"] < 1e5)].copy()
    others["pressure"] = np.repeat(between, 2)
    others["observation"] = np.stack([R * 288 * (1 - ratio) / 0.19 + 60 * G, 288 * ratio], axis=1).ravel()
    kinds = [reported.assign(level_type=np.int8(LevelType.STANDARD)), others.assign(level_type=np.int8(0))]
    table = pd.concat(kinds, ignore_index=True)
    assert flagged(check_hydrostatic(table)) == []
    assert flagged(check_hydrostatic(table.drop(columns="level_type")))
    table, row = changed(table, "z", 500, 400 * G)
    assert flagged(check_hydrostatic(table)) == [row]


def test_a_wrong_temperature_on_a_standard_level_is_hydrostatically_wrong():
    table, row = changed(profile(), "t", 500, 25.0)
    assert flagged(check_hydrostatic(table)) == [row]


def test_spikes_are_told_from_their_neighbours():
    table, row = changed(profile(), "t", 300, -20.0)
    assert flagged(check_temperature_spikes(table)) == [row]
    table, row = changed(profile(), "t", 925, -15.0)
    assert flagged(check_lapse_rate(table)) == [row]
    table, row = changed(profile(), "t", 400, 30.0)  # 22 K/km above it, a warm level between two ordinary ones
    assert flagged(check_lapse_rate(table)) == [row]
    table, row = changed(profile(), "v", 400, 40.0)
    assert flagged(check_wind_spikes(table)) == [row - 1, row]
    lone = table.drop(index=[3, 12]).reset_index(drop=True)  # a v without its u is no reason to misread the others
    assert flagged(check_wind_spikes(lone)) == [row - 3, row - 2]
    table, row = changed(profile(), "q", 700, 0.02)
    assert flagged(check_saturation(table)) == [row]
    assert flagged(check_humidity_spikes(table)) == [row]


def test_a_turn_of_relative_humidity_that_is_too_sharp_is_flagged_and_nothing_beside_it():
    """Half of saturation everywhere; at 925 hPa 0.35 + 0.7 ln(1000/850) = 0.464 of it is allowed to either side."""
    for change, wrong in ((0.48, True), (-0.48, True), (0.44, False), (-0.44, False)):
        table, row = changed(profile(), "q", 925, 0.0)
        vapour = (0.5 + change) * saturation_vapour_pressure(288 * 0.925**0.19)
        table.loc[row, "observation"] = specific_humidity(vapour, 92500.0)
        assert flagged(check_humidity_spikes(table)) == ([row] if wrong else [])


def test_an_outlier_among_neighbours_is_the_only_one_flagged():
    """Leaving one out: the ratios that the closed form gives are those of the conditional Gaussian written out."""
    rng = np.random.default_rng(0)
    place = rng.uniform(0, 3, 40)
    covariance = 4 * np.exp(-np.abs(np.subtract.outer(place, place))) + 0.5 * np.eye(40)
    departure = np.linalg.cholesky(covariance) @ rng.standard_normal(40)
    wrong = departure.copy()
    wrong[[7, 20]] += [12.0, -15.0]
    assert sorted(outliers(np.linalg.inv(covariance), wrong, 4.5)) == [7, 20]
    ratios = []
    for k in range(40):
        others = np.delete(np.arange(40), k)
        gain = np.linalg.solve(covariance[np.ix_(others, others)], covariance[others, k])
        spread = np.sqrt(covariance[k, k] - gain @ covariance[others, k])
        ratios.append(abs(departure[k] - gain @ departure[others]) / spread)
    assert outliers(np.linalg.inv(covariance), departure, 1.001 * max(ratios)).size == 0
    assert outliers(np.linalg.inv(covariance), departure, 0.999 * max(ratios))[0] == np.argmax(ratios)


def test_buddies_condemn_the_stranger_whether_or_not_there_is_a_background():
    rng = np.random.default_rng(2)
    parts = [profile(f"s{k}", latitude=45 + rng.uniform(0, 5), longitude=rng.uniform(0, 8)) for k in range(25)]
    table = pd.concat(parts, ignore_index=True)
    truth = table["observation"].to_numpy(copy=True)
    table["observation"] += rng.standard_normal(len(table)) * table["obs_error"]
    table, row = changed(table, "t", 500, 15.0)
    assert flagged(check_buddies(table)) == [row]
    assert flagged(check_buddies(table.assign(hx_b=truth), background_error=1.0)) == [row]
    (named,) = make_checks([{"buddies": {"variables": ["temperature"]}}]).values()
    assert flagged(named(table)) == [row] == flagged(check_buddies(table, variables=("temperature",)))
    with pytest.raises(ValueError, match="assign_errors"):
        check_buddies(table.assign(obs_error=np.nan))


def test_the_few_at_a_pole_are_not_judged_by_a_fit_to_the_many_elsewhere():
    """Weather of the correlation assumed, and a vortex that no cubic in the sine of latitude has, seen by 8 of 208 stations."""
    rng = np.random.default_rng(2)
    latitudes = [*rng.uniform(20, 70, 200), *np.linspace(-88, -66, 8)]
    parts = [profile(f"s{k}", latitude=x, longitude=rng.uniform(0, 360)) for k, x in enumerate(latitudes)]
    table = pd.concat(parts, ignore_index=True)
    table = table[(table["variable"] == "z") & (table["pressure"] == 5e4)].reset_index(drop=True)
    where = np.radians(table[["latitude", "longitude"]].to_numpy())
    cosine = np.prod(np.sin(np.meshgrid(where[:, 0], where[:, 0])), axis=0)
    cosine += np.outer(np.cos(where[:, 0]), np.cos(where[:, 0])) * np.cos(np.subtract.outer(where[:, 1], where[:, 1]))
    distance = np.sqrt(np.maximum(2 - 2 * cosine, 0)) * 6371 / 600
    root = np.linalg.cholesky((1 + distance) * np.exp(-distance) + 1e-8 * np.eye(len(table)))
    weather = 50 * G * root @ rng.standard_normal(len(table)) + table["obs_error"] * rng.standard_normal(len(table))
    table["observation"] += weather - 600 * G / (1 + np.exp((table["latitude"] + 70) / 4))
    assert flagged(check_buddies(table)) == []
    table.loc[204, "observation"] += 1500 * G
    assert flagged(check_buddies(table)) == [204]


def surface(count: int, rng: np.random.Generator, **columns: object) -> pd.DataFrame:
    """Stations at random in Europe that report t2m of smooth weather with errors of 0.5 K."""
    latitude, longitude = rng.uniform(36, 64, count), rng.uniform(0, 30, count)
    table = profile().iloc[[0] * count].assign(
        variable="t2m", pressure=np.nan, latitude=latitude, longitude=longitude, obs_error=0.5,
        station=[f"s{k}" for k in range(count)],
    )  # fmt: skip
    weather = 285 - 0.4 * (latitude - 50) + 3 * np.sin(np.radians(12 * longitude)) * np.cos(np.radians(9 * latitude))
    return table.assign(observation=weather + 0.5 * rng.standard_normal(count), **columns).reset_index(drop=True)


def test_the_order_of_a_file_says_nothing_about_who_is_a_neighbour():
    """900 towns with three stations each and weather of their own, listed town by town three times over: 2,700 at one hour.

    Beside its two neighbours a station 8 K off stands out (13 standard deviations), among those of other towns it does not.
    """
    rng = np.random.default_rng(1)
    table = surface(900, rng, obs_error=0.5)
    spiral = np.arange(900)  # evenly over the sphere
    table["latitude"] = np.degrees(np.arcsin((2 * spiral - 899) / 900))
    table["longitude"] = np.mod(137.50776405 * spiral, 360.0)
    weather = 280 + 10 * rng.standard_normal(900)
    table = pd.concat([table.assign(station=table["station"] + part) for part in "abc"], ignore_index=True)
    table["latitude"] += rng.uniform(-0.005, 0.005, 2700)
    table["observation"] = np.tile(weather, 3) + 0.5 * rng.standard_normal(2700)
    wrong = np.arange(7, 2700, 101)
    table.loc[wrong, "observation"] += rng.choice([-8.0, 8.0], wrong.size)
    assert flagged(check_buddies(table, length_km=50.0)) == wrong.tolist()


def test_a_mountain_is_not_at_odds_with_the_valleys_for_being_cold():
    rng = np.random.default_rng(3)
    table = surface(300, rng)
    height = np.where(np.arange(300) % 10 == 0, 3000.0, 200.0) + rng.uniform(-150, 150, 300)
    cold = table.assign(elevation=height, observation=table["observation"] - 6.5e-3 * height)
    assert flagged(check_buddies(cold, background_error=2.0)) == []
    assert len(flagged(check_buddies(cold.assign(elevation=np.nan), background_error=2.0))) > 20
    cold.loc[10, "observation"] += 12.0
    assert flagged(check_buddies(cold, background_error=2.0)) == [10]


def test_stations_far_above_the_ground_are_not_taken_for_it(tmp_path):
    """Ground that rises by 100 m a degree northward, which interpolation keeps: at 45.25 N it is 525 m high."""
    latitude = np.arange(60.0, 39.0, -1.0)
    ground = G * 100 * (latitude - 40.0)[:, None] * np.ones(31)
    place = {"latitude": latitude, "longitude": np.arange(0.0, 31.0)}
    path = tmp_path / "ground.nc"
    maps = xr.Dataset({"geopotential_at_surface": (list(place), ground, {"units": "m2 s-2"})}, coords=place)
    maps.to_netcdf(path)
    stations = []
    for k, elevation in enumerate((525.0, 820.0, 830.0, 220.0, np.nan)):
        rows = profile(f"s{k}", latitude=45.25, longitude=7.5, elevation=elevation).iloc[:4]
        stations.append(rows.assign(variable=["t2m", "u10", "v10", "msl"], pressure=np.nan))
    aloft = profile("high", elevation=3000.0)
    table = pd.concat([*stations, aloft], ignore_index=True)
    (check,) = make_checks([{"elevation": {"orography": str(path)}}]).values()
    checked = check(table)
    wrong = checked[checked["quality"] == Flag.DOMAIN]
    assert set(zip(wrong["station"], wrong["variable"], strict=True)) == {
        (station, variable) for station in ("s2", "s3") for variable in ("t2m", "u10", "v10")
    }
    outside = table.assign(latitude=-30.0)
    assert flagged(check(outside)) == []
    maps.rename(geopotential_at_surface="land_sea_mask").to_netcdf(tmp_path / "other.nc")
    with pytest.raises(ValueError, match=r"other\.nc: found no geopotential_at_surface"):
        run_checks(table, make_checks([{"elevation": {"orography": str(tmp_path / "other.nc")}}]).values())


def test_rules_deny_and_make_passive():
    table = pd.concat([profile(), profile("b")], ignore_index=True)
    denied = check_denied(table, [Rule(station=("b",), variable=("q",), above=300)])
    expected = (table["station"] == "b") & (table["variable"] == "q") & (table["pressure"] <= 30000)
    assert flagged(denied) == np.flatnonzero(expected).tolist()
    assert set(denied["quality"]) == {Flag.PASS, Flag.DENIED}
    passive = mark_passive(denied, [Rule(since="2020-01-01T12:00Z", until="2020-01-02", source=("s",))])
    assert (passive["quality"] == Flag.PASSIVE).sum() == (denied["quality"] == Flag.PASS).sum()
    assert flagged(check_denied(table, [Rule(since="2020-01-02")])) == []
    with pytest.raises(ValueError, match="no condition"):
        Rule()


def test_rules_know_variables_by_any_name_and_times_in_any_zone(tmp_path):
    """Times of every three hours of two days: the first day has eight of them."""
    day = profile()
    hours = [day.assign(time=pd.Timestamp("2020-01-01") + pd.Timedelta(hours=3 * k)) for k in range(16)]
    table = pd.concat(hours, ignore_index=True)
    path = tmp_path / "qc.yaml"
    for rule, share in (
        ("variable: [temperature]", 1 / 5),
        ("variable: u_component_of_wind", 1 / 5),
        ("until: 2020-01-01", 8 / 16),
        ("until: '2020-01-01'", 8 / 16),
        ("since: 2020-01-02", 8 / 16),
        ("since: 2020-01-01, until: 2020-01-01", 8 / 16),
        ("until: 2020-01-01T12:00:00Z", 5 / 16),
        ("until: 2020-01-01T14:00:00+02:00", 5 / 16),
        ("until: '2020-01-01T12'", 5 / 16),
    ):
        path.write_text(f"checks: [{{denied: {{rules: [{{{rule}}}]}}}}]")
        assert len(flagged(run_checks(table, read_checks(path).values()))) == share * len(table), rule
    path.write_text("checks: [{window: {time: 2020-01-01T12:00:00Z, half_width: 3h}}]")
    assert len(flagged(run_checks(table, read_checks(path).values()))) == 13 / 16 * len(table)


def test_checks_come_from_a_file_in_order(tmp_path):
    path = tmp_path / "qc.yaml"
    path.write_text(
        "checks:\n- bounds\n- denied: {rules: [{station: [b]}]}\n- hydrostatic: {tolerance: 5000}\n- bounds\n"
    )
    checks = read_checks(path)
    assert list(checks) == ["bounds", "denied", "hydrostatic", "bounds 2"]
    table, row = changed(pd.concat([profile(), profile("b")], ignore_index=True), "z", 500, 1000 * G)
    checked = run_checks(table, checks.values())
    assert checked["quality"].iloc[row] == Flag.BOUNDS  # not hydrostatic, whose tolerance is wide
    assert (checked["quality"][(table["station"] == "b") & (table["pressure"] > 1e4)] == Flag.DENIED).all()


WRONG_CHECKS = {
    "checks: [nonsense]": "found check 'nonsense', expected one of missing",
    "checks: [5]": "found check 5, expected one of missing",
    "checks: [[bounds]]": r"found check \['bounds'\], expected one of missing",
    "checks: [{missing, bounds}]": "found check {'missing': None, 'bounds': None}, expected one of missing",
    "checks: [{bounds: [1]}]": "bounds: document: expected entries of the form",
    "checks: [{hydrostatic: {tolerence: 3}}]": "hydrostatic: tolerence: unknown key, expected some of tolerance",
    "checks: [{hydrostatic: {tolerance: high}}]": "hydrostatic: tolerance: input should be a valid number",
    "checks: [{hydrostatic: {tolerance: -1}}]": "hydrostatic: tolerance: found -1",
    "checks: [hydrostatic, {hydrostatic: {tolerance: -1}}]": "hydrostatic 2: tolerance: found -1",
    "checks: [{window: {time: soon, half_width: 6h}}]": "window: time: found 'soon', expected a time",
    "checks: [{window: {time: 2020, half_width: 6h}}]": "window: time: found 2020, expected a time",
    "checks: [{window: {time: 2020-01-01, half_width: 6}}]": "window: half_width: found 6, expected a duration such as 6h",
    "checks: [{window: {time: 2020-01-01, half_width: six}}]": "window: half_width: found 'six', expected a duration such as 6h",
    "checks: [{window: {time: 2020-01-01, half_width: -6h}}]": "window: half_width: found '-6h', expected a duration of 0 or more",
    "checks: [{buddies: {variables: [warmth]}}]": r"buddies: variables: unknown variable 'warmth'",
    "checks: [levels]": "levels: levels: field required",
    "checks: [departures]": "departures: found no column 'hx_b'",
    "checks: [{departures: {background_error: {t: 1}}}]": "departures: found no column 'hx_b'",
    "checks: [{denied: {rules: [{stations: [b]}]}}]": r"denied: rules\.0\.stations: unknown key, expected some of station",
    "checks: [{denied: {rules: [{}]}}]": r"denied: rules\.0: found no condition, expected at least one of station",
    "checks: [{denied: {rules: [{above: null}]}}]": r"denied: rules\.0: found no condition",
    "checks: [{denied: {rules: [{station: []}]}}]": r"rules\.0\.station: found an empty list, expected at least one name",
    "checks: [{denied: {rules: [{station: }]}}]": r"rules\.0\.station: found None, expected text",
    "checks: [{denied: {rules: [{station: [03743]}]}}]": r"rules\.0\.station: found 2019, expected text: quote it",
    "checks: [{denied: {rules: [{station: NO}]}}]": r"rules\.0\.station: found False, expected text: quote it",
    "checks: [{denied: {rules: [{variable: warmth}]}}]": r"rules\.0\.variable: unknown variable 'warmth'",
    "checks: [{denied: {rules: [{above: .nan}]}}]": r"rules\.0\.above: input should be",
    "checks: [{denied: {rules: [{above: 300, below: 700}]}}]": r"rules\.0: found pressures above 300 and below 700 hPa",
    "checks: [{denied: {rules: [{since: 2020}]}}]": r"rules\.0\.since: found 2020, expected a time",
    "checks: [{denied: {rules: [{since: 2020-02-01, until: 2020-01-01}]}}]": "found since 2020-02-01",
    "checks: [{denied: {rules: [{until: 2020-13-45}]}}]": r"expected YAML \(a list under 'checks'\), month must be in",
    "checks: [{denied: {rules: [{source: [a], source: [b]}]}}]": "found 'source' twice",
    "checks: [{? [a] : b}]": "expected YAML",
    "checks: " + 2000 * "[": "expected YAML",
    "[1]": r"found \[1\], expected a list under 'checks'",
    "a: [": r"expected YAML \(a list under 'checks'\)",
}


@pytest.mark.parametrize("text", WRONG_CHECKS)
def test_one_line_with_file_and_check_for_a_wrong_list(tmp_path, text):
    path = tmp_path / "qc.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=WRONG_CHECKS[text]) as error:
        run_checks(profile(), read_checks(path).values())
    assert str(error.value).startswith(f"{path}: ")
    assert len(str(error.value).splitlines()) == 1


def test_gross_errors_in_real_soundings_are_caught_and_good_values_kept():
    """Half of the worldwide file, for time; docs/results/observations.md has the whole."""
    table = assign_errors(read_observations(shared("temp.bufr")))
    stations = table["station"].unique()[::2]
    good = (table["quality"] == 0) & (table["pressure"] >= 2000) & table["station"].isin(stations)
    bad, wrong = planted(table[good].reset_index(drop=True), share=0.01, seed=3)
    flags = (run_checks(bad, read_checks().values())["quality"] != Flag.PASS).to_numpy()
    assert flags[wrong].mean() >= 0.95
    assert flags[~wrong].mean() <= 0.01

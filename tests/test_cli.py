"""The command from outside: outcomes, exit codes, one clear line for bad input, nothing half-written."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import small_latent
import small_model
from command_line import run
from genda.demo import simulate_columns
from genda.observations.table import read_table, write_table
from genda.sources import climatology, coarse_field, observe, observe_std
from genda.state import State, read_state, to_dataset, write_dataset


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """A model directory, a truth file, a coarse field and columns of the truth at the radiosonde sites."""
    folder = tmp_path_factory.mktemp("case")
    small_model.saved(folder / "model")
    model = small_model.build()
    truth = small_model.states(1, seed=9)
    write_dataset(to_dataset(truth), folder / "truth.nc")
    write_dataset(to_dataset(coarse_field(truth, 4)), folder / "coarse.nc")
    write_table(simulate_columns(model, truth, seed=0), folder / "columns.parquet")
    return folder


def assimilate(case, capsys, *extra, out="analysis.nc", observations="columns.parquet"):
    arguments = ["assimilate", "--model", case / "model", "--observations", case / observations, "--out", case / out]
    steps = [] if "optimal-interpolation" in extra else ["--steps", 6]
    return run(capsys, *arguments, "--members", 4, *steps, "--time", "2001-01-01", "--json", *extra)


@pytest.mark.parametrize("method", ["fusion", "fusion-sda", "fusion-gaussian", "optimal-interpolation"])
def test_an_analysis_of_columns_and_a_field_is_nearer_the_truth_than_climatology(case, capsys, method):
    code, out, err = assimilate(case, capsys, "--method", method, "--field", case / "coarse.nc")
    assert code == 0, err
    document = json.loads(out)
    assert document["method"] == method
    analysis, truth = read_state(case / "analysis.nc"), read_state(case / "truth.nc")
    std = small_model.build().normalisation.std.view(-1, 1, 1)
    error = ((analysis.values.mean(1) - truth.values) / std).pow(2).mean()
    assert error < 0.35
    alone = "optimal-interpolation gives one analysis, without spread"
    assert document["warnings"] == ([alone] if method == "optimal-interpolation" else [])
    code, out, _ = run(capsys, "verify", case / "analysis.nc", "--truth", case / "truth.nc", "--json")
    assert code == 0
    assert json.loads(out)["rows"][0]["metrics"]["rmse"]["t500"]["mean"] < 3.0


def test_the_same_seed_gives_the_same_file_and_a_report_is_one_page(case, capsys):
    for out in ("a.nc", "b.nc"):
        code, _, err = assimilate(case, capsys, "--report", case / "report.html", out=out)
        assert code == 0, err
    np.testing.assert_array_equal(read_state(case / "a.nc").values, read_state(case / "b.nc").values)
    page = (case / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "</html>" in page


WRONG_USAGE = {
    ("assimilate", "--steps", 0): "'--steps'",
    ("assimilate", "--steps", "many"): "'--steps'",
    ("assimilate", "--nonsense"): "--nonsense",
    ("assimilate", "surplus"): "surplus",
    ("benchmark",): "SUITE",
    ("data", "prepare", "in.nc", "out.zarr", "--every", 0): "'--every'",
    ("observations", "read", "a.csv"): "'--out'",
    ("observations", "nonsense"): "nonsense",
    ("nonsense",): "nonsense",
}


@pytest.mark.parametrize("arguments", WRONG_USAGE, ids=lambda given: " ".join(map(str, given)))
def test_wrong_usage_is_one_line_that_names_it(capsys, arguments):
    code, out, err = run(capsys, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("genda: ")
    assert WRONG_USAGE[arguments].lower() in err.lower()
    assert "--help" in err


def test_help_is_asked_for_or_given_where_nothing_is_said(capsys):
    for arguments, expected in ((("--help",), 0), (("assimilate", "--help"), 0), ((), 2), (("data",), 2)):
        code, out, err = run(capsys, *arguments)
        assert code == expected
        assert "Usage" in out + err


def test_a_report_without_matplotlib_is_refused_with_what_to_install(case, capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, out, err = assimilate(case, capsys, "--report", case / "none.html", out="never.nc")
    assert (code, out) == (2, "")
    assert "matplotlib" in err
    assert "pip install -c constraints.txt '.[plot]' in genda's folder" in err
    assert not list(case.glob("never*"))


def test_help_at_80_columns_has_the_whole_name_of_every_option(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for command, names in {
        ("assimilate",): (
            "--climate-amplitude",
            "--vertical-correlation",
            "--observations-out",
            "--representativeness",
        ),
        ("data", "prepare"): ("--validation-until", "--train-until"),
        ("nature-run",): ("--validation-pairs",),
    }.items():
        _, out, _ = run(capsys, *command, "--help")
        assert all(f"  {name} " in out for name in names)
        assert max(map(len, out.splitlines())) <= 80


def test_the_version_is_that_of_the_package(capsys):
    assert run(capsys, "--version") == (0, f"genda {version('genda')}\n", "")


@pytest.mark.parametrize("hours", ["nan", "-1", "inf", "1e9"])
def test_a_window_that_is_no_length_of_time_is_refused(case, capsys, hours):
    code, out, err = assimilate(case, capsys, "--window-hours", hours, out="never.nc")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"window: found {float(hours):g} h, expected a half-width" in err
    assert not list(case.glob("never*"))


def test_a_table_is_not_written_under_the_name_of_another_format(case, capsys, tmp_path):
    table = case / "columns.parquet"
    for command in (
        ("observations", "read", table, "--out", tmp_path / "o.csv"),
        ("observations", "check", table, "--out", tmp_path / "o.csv"),
        ("assimilate", "--model", case / "model", "--observations", table, "--observations-out", tmp_path / "o.csv"),
    ):
        code, out, err = run(capsys, *command)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "o.csv: found the suffix '.csv', expected .parquet" in err
    assert not list(tmp_path.iterdir())


def test_withheld_stations_are_counted_and_the_spread_there_is_judged(capsys, tmp_path):
    """Truth and 20 members are draws of one distribution: e² / s² is F (1, 19) times 1 + 1/20, whose mean is 1.05 × 19/17."""
    base = small_model.states(1, seed=9)
    generator = np.random.default_rng(0)
    drawn = base.values + 5.0 * torch.from_numpy(generator.standard_normal((21, *base.values.shape[1:]))).float()
    members = State(drawn[:20].unsqueeze(0), base.channels, base.grid, base.times)
    write_dataset(to_dataset(members), tmp_path / "a.nc")
    table = simulate_columns(small_model.build(), base, seed=0)
    table = table[table["variable"] != "z"].reset_index(drop=True)
    table["observation"] = observe(base, drawn[20], table).numpy()
    table["obs_error"] = 1e-3
    write_table(table, tmp_path / "w.parquet")
    code, out, err = run(capsys, "verify", tmp_path / "a.nc", "--withheld", tmp_path / "w.parquet", "--json")
    assert code == 0, err
    withheld = json.loads(out)["withheld"]
    assert withheld["stations"] == table["station"].nunique()
    by_channel = withheld["rows"][0]["metrics"]["departure_chi_square"].values()
    assert np.mean([score["mean"] for score in by_channel]) == pytest.approx(1.05 * 19 / 17, abs=0.1)
    code, out, _ = run(capsys, "verify", tmp_path / "a.nc", "--withheld", tmp_path / "w.parquet")
    assert out.startswith(f"{withheld['stations']:,} stations, {len(table):,} observations\n")
    assert "Squared departures / expected" in out
    write_table(table[:1], tmp_path / "one.parquet")
    code, out, err = run(capsys, "verify", tmp_path / "a.nc", "--withheld", tmp_path / "one.parquet")
    assert code == 0, err
    assert out.startswith("1 station, 1 observation\n")


def test_inspect_says_what_a_checkpoint_is(case, capsys):
    code, out, _ = run(capsys, "inspect", case / "model", "--json")
    assert code == 0
    assert json.loads(out)["channels"] == list(small_model.CHANNELS)


def _broken_field(case, change):
    dataset = to_dataset(coarse_field(small_model.states(1, seed=9), 4))
    path = case / "broken.nc"
    change(dataset).to_netcdf(path, engine="h5netcdf")
    return path


BAD_FIELDS = {
    "celsius": (
        lambda d: d.assign(temperature=(d.temperature - 273.15).assign_attrs(units="degC")),
        "temperature: found units 'degC'",
    ),
    "celsius unnamed": (lambda d: d.assign(temperature=d.temperature - 273.15), "temperature .* expected 150 to 350"),
    "nan": (lambda d: d.assign(temperature=d.temperature.where(d.latitude > 0)), "temperature .* not finite"),
    "duplicate latitude": (
        lambda d: d.assign_coords(latitude=d.latitude.values[[0, 0, 2, 3]]),
        "latitude: .* duplicates",
    ),
    "no known variable": (lambda d: d.rename({n: f"x{i}" for i, n in enumerate(d.data_vars)}), "no known variable"),
    "another time": (lambda d: d.assign_coords(time=d.time + np.timedelta64(1, "D")), "expected 2001-01-01"),
    "another level": (
        lambda d: d.drop_vars("2m_temperature").assign_coords(level=[700, 400]),
        "found channels z700, z400, .* expected some of the model's",
    ),
}


def test_levels_of_a_field_that_the_model_lacks_are_left_out_and_said(case, capsys):
    """The analysis is that of the field without them."""
    with xr.open_dataset(case / "coarse.nc") as field:
        field.assign_coords(level=[400 if v == 500 else v for v in field.level.values]).to_netcdf(
            case / "more.nc", engine="h5netcdf"
        )
        field.sel(level=[850]).drop_vars(["u_component_of_wind", "v_component_of_wind"]).to_netcdf(
            case / "less.nc", engine="h5netcdf"
        )
    documents = []
    for name in ("more", "less"):
        options = ("--method", "optimal-interpolation", "--field", case / f"{name}.nc")
        code, out, err = assimilate(case, capsys, *options, out=f"{name}-analysis.nc")
        assert code == 0, err
        documents.append(json.loads(out))
    assert any("z400, t400" in w and "left out" in w for w in documents[0]["warnings"])
    assert not any("left out" in w for w in documents[1]["warnings"])
    with xr.open_dataset(case / "more-analysis.nc") as one, xr.open_dataset(case / "less-analysis.nc") as other:
        xr.testing.assert_equal(one, other)


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_a_bad_field_is_one_clear_line(case, capsys, name):
    change, message = BAD_FIELDS[name]
    path = _broken_field(case, change)
    code, out, err = assimilate(case, capsys, "--field", path, out="never.nc")
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    assert err.startswith(f"genda: {path}")
    pytest.importorskip("re").search(message, err) or pytest.fail(err)
    assert not list(case.glob("*never*"))


def _rewrite(case, name, change):
    table = pd.read_parquet(case / "columns.parquet")
    change(table).to_parquet(case / name)
    return name


BAD_TABLES = {
    "empty": (lambda t: t.iloc[:0], "empty|no rows|no observation"),
    "outside the window": (lambda t: t.assign(time=t.time + pd.Timedelta(days=3)), "no observation to use"),
    "unknown variable": (lambda t: t.assign(variable="cheese"), "cheese"),
    "missing column": (lambda t: t.drop(columns="pressure"), "pressure"),
    "latitude out of range": (lambda t: t.assign(latitude=t.latitude + 200), "latitude"),
    "not finite": (lambda t: t.assign(observation=np.nan), "observation"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_a_bad_table_is_one_clear_line(case, capsys, name):
    change, message = BAD_TABLES[name]
    code, out, err = assimilate(case, capsys, out="never.nc", observations=_rewrite(case, "bad.parquet", change))
    assert (code, out) == (2, "")
    assert len(err.strip().splitlines()) == 1
    pytest.importorskip("re").search(message, err) or pytest.fail(err)
    assert not list(case.glob("*never*"))


def test_pressure_in_hectopascal_is_caught(case, capsys):
    name = _rewrite(case, "hpa.parquet", lambda t: t.assign(pressure=t.pressure / 100))
    code, _, err = assimilate(case, capsys, out="never.nc", observations=name)
    if code == 0:  # rows may also be flagged as outside the levels, leaving the surface ones
        pytest.fail("pressures of 850 Pa were taken at their word")
    assert code == 2, err


def test_missing_files_and_damaged_models_have_their_exit_codes(case, capsys, tmp_path):
    assert assimilate(case, capsys, observations="nothing.parquet")[0] == 3
    assert run(capsys, "inspect", tmp_path / "nowhere")[0] == 3
    small_model.saved(tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    code, _, err = run(capsys, "assimilate", "--model", tmp_path / "model", "--observations", case / "columns.parquet")
    assert code == 2
    assert "model.safetensors" in err


def test_an_analysis_on_another_grid_than_the_truth_is_refused(case, capsys):
    write_dataset(to_dataset(small_model.states(1, seed=9)), case / "truth.nc")
    assimilate(case, capsys)
    code, _, err = run(capsys, "verify", case / "analysis.nc", "--truth", case / "coarse.nc")
    assert code == 2
    assert "grid" in err


def test_sda_below_its_stability_limit_warns_and_a_failure_has_its_exit_code(case, capsys):
    code, out, err = assimilate(case, capsys, "--method", "fusion-sda", "--gamma", 0.001, out="unstable.nc")
    assert code in (0, 4)
    if code == 0:
        assert "stability limit" in json.loads(out)["warnings"][0]
    else:
        assert "sampling step" in err
        assert not (case / "unstable.nc").exists()


def test_training_without_its_data_says_so_and_writes_nothing(tmp_path, capsys):
    path = tmp_path / "c.yaml"
    path.write_text(f"out: {tmp_path / 'run'}\ndata: {{path: {tmp_path / 'none.zarr'}}}\n")
    code, _, err = run(capsys, "train", path)
    assert code == 3
    assert "no such data set" in err
    assert not (tmp_path / "run").exists()


def test_the_amplitude_of_the_climate_mapping_comes_back_in_the_analysis(case, capsys):
    """Observations of half the anomaly and error, mapped with amplitude 0.5, are those of the model: the analysis is linear."""
    table = read_table(case / "columns.parquet")
    table = table[table["variable"] != "z"]  # the random heights of this model would fail the bounds check
    write_table(table, case / "whole.parquet")
    model = small_model.build()
    mean = observe(model, climatology(model, np.datetime64("2001-01-01", "ns")), table).numpy()
    halved = table.assign(observation=mean + 0.5 * (table["observation"] - mean), obs_error=0.5 * table["obs_error"])
    write_table(halved, case / "halved.parquet")
    means = {}
    for amplitude, name in ((1.0, "whole"), (0.5, "halved")):
        code, _, err = assimilate(
            case,
            capsys,
            *("--method", "optimal-interpolation", "--map-climate", "--climate-amplitude", amplitude),
            observations=f"{name}.parquet",
            out=f"{name}.nc",
        )
        assert code == 0, err
        means[name] = read_state(case / f"{name}.nc", model.channels).values.mean(dim=1)
    climate = climatology(model, np.datetime64("2001-01-01", "ns"))
    anomaly, expected = means["halved"] - climate, 0.5 * (means["whole"] - climate)
    scale = expected.std(dim=(0, 2, 3), keepdim=True)
    assert float(((anomaly - expected) / scale).abs().max()) < 1e-2


def test_a_benchmark_prints_its_table_and_the_promised_document(tmp_path, capsys):
    arguments = [
        "benchmark",
        "lorenz96",
        "--quick",
        "--methods",
        "ETKF 24",
        "--runs",
        tmp_path,
        "--out",
        tmp_path / "t.md",
    ]
    code, out, err = run(capsys, *arguments, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert (document["suite"], document["dates"]) == ("lorenz96", 1)
    assert [row["method"] for row in document["rows"]] == ["3D-Var", "ETKF 24"]
    assert document["rows"][1]["metrics"]["rmse"]["x"]["mean"] == pytest.approx(0.18, abs=0.03)
    page = (tmp_path / "t.md").read_text()
    assert "| ETKF 24 |" in page
    assert "genda benchmark lorenz96 --quick --methods 'ETKF 24'" in page
    assert "![Errors relative to 3D-Var](<t.png>)" in page
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
    code, _, err = run(capsys, "benchmark", "lorenz97")
    assert code == 2
    assert "lorenz96" in err


def test_chunks_do_not_change_members(case, capsys):
    assimilate(case, capsys, out="whole.nc")
    assimilate(case, capsys, "--batch", 3, out="parts.nc")
    whole, parts = read_state(case / "whole.nc"), read_state(case / "parts.nc")
    assert isinstance(whole, State)
    np.testing.assert_allclose(whole.values, parts.values, rtol=2e-4, atol=2e-2)


def _rowwise(case, name, **columns):
    table = read_table(case / "columns.parquet").assign(**columns)
    write_table(table, case / name)
    return table


def test_departures_are_written_back_and_give_errors(case, capsys):
    """Passive rows are compared and never assimilated; a list of checks, a file of errors and correlated errors are used."""
    table = read_table(case / "columns.parquet")
    passive = table["station"].unique()[:2].tolist()
    (case / "qc.yaml").write_text(f"checks: [missing, bounds, {{passive: {{rules: [{{station: {passive}}}]}}}}]")
    extra = ["--checks", case / "qc.yaml", "--observations-out", case / "back.parquet", "--vertical-correlation", 0.3]
    code, out, err = assimilate(case, capsys, *extra, "--method", "optimal-interpolation")
    assert code == 0, err
    back = read_table(case / "back.parquet")
    assert len(back) == len(table)
    back = back[back["quality"] <= 1]  # the small model's climate is not within all bounds
    monitored = back["station"].isin(passive)
    assert (back["quality"] == monitored).all()
    assert json.loads(out)["flags"]["passive"] == monitored.sum() > 0
    assert json.loads(out)["observations"] == (~monitored).sum()
    assert back[["hx_b", "hx_a"]].notna().all(axis=None)
    analysis = read_state(case / "analysis.nc")
    mean = State(analysis.values.mean(1), analysis.channels, analysis.grid, analysis.times)
    np.testing.assert_allclose(back["hx_a"], observe(mean, mean.values[0], back), rtol=1e-4, atol=1e-4)
    nearer = (back["observation"] - back["hx_a"]).abs() < (back["observation"] - back["hx_b"]).abs()
    assert nearer[~monitored].mean() > 0.8
    code, out, err = run(
        capsys, "observations", "errors", case / "back.parquet", "--out", case / "errors.yaml", "--json"
    )
    assert code == 0, err
    used = back[~monitored & (back["variable"] == "t") & (back["pressure"] == 5e4)]
    (row,) = [r for r in json.loads(out)["estimates"] if r["variable"] == "t" and r["hPa"] == 500]
    assert row["count"] == len(used)
    code, _, err = assimilate(case, capsys, "--errors", case / "errors.yaml", "--method", "optimal-interpolation")
    assert code == 0, err


def test_what_was_used_is_counted_and_observations_of_another_climate_are_warned_of(case, capsys, tmp_path):
    """One station lies beyond the window; 20 K in the mean are no weather."""
    table = read_table(case / "columns.parquet")
    table = table[table["variable"].isin(["t", "t2m"])].reset_index(drop=True)
    late = table["station"] == table["station"].iloc[0]
    table["time"] += pd.to_timedelta(np.where(late, 24, 0), unit="h")
    write_table(table, tmp_path / "late.parquet")
    write_table(table.assign(observation=table["observation"] + 20.0), tmp_path / "warm.parquet")
    texts = {}
    for name in ("late", "warm"):
        files = ["--model", case / "model", "--observations", tmp_path / f"{name}.parquet", "--out", tmp_path / "a.nc"]
        common = ["--time", "2001-01-01", "--method", "optimal-interpolation"]
        code, out, texts[name] = run(capsys, "assimilate", *files, *common)
        assert code == 0, texts[name]
        if name == "late":
            assert f"{len(table) - late.sum():,} of {len(table):,} observations used (domain {late.sum():,}" in out
    assert "climate" not in texts["late"]
    assert "genda: warning: the observations are not of the model's climate" in texts["warm"]
    assert "--map-climate" in texts["warm"]


def test_observations_come_back_from_the_mapped_climate_as_they_went_in(case, capsys):
    """Whatever their flag: used, passive in the file or by a check, of a gross error, and flagged before the mapping."""
    table = read_table(case / "columns.parquet")
    values, quality = table["observation"].to_numpy(copy=True), table["quality"].to_numpy(copy=True)
    t500 = np.flatnonzero((table["variable"] == "t") & (table["pressure"] == 5e4))
    by_file, gross, departing, out_of_bounds = t500[:4]
    by_check = table["station"].iloc[t500[4]]
    hx_b = values.copy()
    quality[by_file] = 1
    values[gross] -= 28.0
    hx_b[gross] = values[gross]
    hx_b[departing] -= 50.0
    values[out_of_bounds] = 500.0
    table = _rowwise(case, "mixed.parquet", observation=values, quality=quality, hx_b=hx_b)
    (case / "qc.yaml").write_text(f"checks: [bounds, departures, {{passive: {{rules: [{{station: [{by_check}]}}]}}}}]")
    code, _, err = assimilate(
        case,
        capsys,
        *("--method", "optimal-interpolation", "--map-climate", "--climate-amplitude", 1.5),
        *("--checks", case / "qc.yaml", "--observations-out", case / "back.parquet"),
        observations="mixed.parquet",
    )
    assert code == 0, err
    back = read_table(case / "back.parquet")
    assert back["quality"].iloc[[by_file, t500[4], gross, departing, out_of_bounds]].tolist() == [1, 1, 19, 19, 12]
    for column in ("observation", "obs_error"):
        np.testing.assert_allclose(back[column], table[column], rtol=1e-12)
    assert not {"reported", "error_before_mapping"} & set(back)


def test_an_analysis_says_what_it_was_made_of(case, capsys, tmp_path):
    """Inputs, options and the mapping between climates are in document, file and report: 10 K planted are the mean shift found."""
    table = read_table(case / "columns.parquet")
    table = table[table["variable"] != "z"].reset_index(drop=True)
    write_table(
        table.assign(observation=table["observation"] + 10.0 * (table["variable"] == "t")), tmp_path / "w.parquet"
    )
    (tmp_path / "errors.yaml").write_text("errors: [{variable: [t, t2m], error: 1.0}]")
    (tmp_path / "qc.yaml").write_text("checks: [missing, bounds]")
    common = ["--method", "optimal-interpolation", "--map-climate", "--vertical-correlation", 0.2, "--window-hours", 2]
    common += ["--checks", tmp_path / "qc.yaml", "--errors", tmp_path / "errors.yaml", "--representativeness", 0.1]
    shifts = {}
    for name in (case / "columns.parquet", tmp_path / "w.parquet"):
        extra = ["--climate-amplitude", 1.5, "--field", case / "coarse.nc", "--report", tmp_path / "r.html"]
        code, out, err = assimilate(case, capsys, *common, *extra, observations=name, out=tmp_path / "a.nc")
        assert code == 0, err
        shifts[name.stem] = json.loads(out)["options"]["climate_mapping"]["coefficients"]
    document = json.loads(out)
    with xr.open_dataset(tmp_path / "a.nc") as dataset:
        assert json.loads(dataset.attrs["inputs"]) == document["inputs"]
        assert json.loads(dataset.attrs["options"]) == document["options"]
    files = {"checks": "qc.yaml", "errors": "errors.yaml"}
    assert document["inputs"] == {
        "observations": [str(tmp_path / "w.parquet")],
        "fields": [str(case / "coarse.nc")],
        **{name: str(tmp_path / file) for name, file in files.items()},
    }
    options = document["options"]
    assert options["climate_mapping"]["amplitude"] == 1.5
    assert options | {"climate_mapping": None} == {
        "window_hours": 2.0,
        "checks": ["missing", "bounds"],
        "vertical_correlation": 0.2,
        "representativeness": 0.1,
        "climate_mapping": None,
        "field_error": 0.05,
    }
    for channel in ("t850", "t500"):
        assert shifts["w"][channel][0] - shifts["columns"][channel][0] == pytest.approx(10.0, abs=0.01)
    page = (tmp_path / "r.html").read_text()
    for text in (
        "climate_mapping.coefficients.t500",
        "climate_mapping.amplitude",
        "qc.yaml",
        "errors.yaml",
        "w.parquet",
    ):
        assert text in page


def test_the_documented_list_of_checks_runs_with_either_kind_of_prior(case, capsys, tmp_path):
    """A prior of states departs from its climatology, one of background errors from the forecast, by the errors it knows."""
    documented = Path(__file__).parents[1] / "docs" / "observations.md"
    (listed,) = [part for part in documented.read_text().split("```") if part.startswith("yaml\nchecks:")]
    (tmp_path / "qc.yaml").write_text(listed.removeprefix("yaml\n").replace("ground.nc", str(tmp_path / "ground.nc")))
    flat = to_dataset(small_model.states(1))["2m_temperature"].isel(time=0, drop=True)
    (0.0 * flat).to_dataset(name="geopotential_at_surface").to_netcdf(tmp_path / "ground.nc", engine="h5netcdf")
    code, _, err = assimilate(case, capsys, "--checks", tmp_path / "qc.yaml", "--method", "optimal-interpolation")
    assert code == 0, err
    truth = small_model.states(1, seed=9)
    forecast = small_latent.background(truth)
    write_dataset(to_dataset(forecast), tmp_path / "forecast.nc")
    small_latent.saved(tmp_path / "latent")
    model = small_model.build()
    table = simulate_columns(model, truth, seed=0)
    table = table[table["variable"] != "z"].reset_index(drop=True)
    expected = observe(model, forecast.values[0], table).numpy()
    scale = observe(model, model.normalisation.std.view(-1, 1, 1).expand_as(truth.values[0]), table).numpy()
    limit = 4 * np.hypot(small_latent.ERROR * scale, table["obs_error"])
    rows = np.flatnonzero((table["variable"] == "t") & (table["latitude"].abs() < 40))
    planted = {int(rows[7]): 1.4, int(rows[8]): 0.6}
    for row, share in planted.items():
        table.loc[row, "observation"] = expected[row] + share * limit[row]
    write_table(table, tmp_path / "planted.parquet")
    (tmp_path / "few.yaml").write_text("checks: [missing, {departures: {factor: 4}}]")
    arguments = ["assimilate", "--model", tmp_path / "latent", "--method", "latent-gaussian", "--time", "2001-01-01"]
    arguments += ["--background", tmp_path / "forecast.nc", "--observations", tmp_path / "planted.parquet", "--json"]
    for checks in ("few", "qc"):
        files = ["--checks", tmp_path / f"{checks}.yaml", "--observations-out", tmp_path / f"{checks}.parquet"]
        code, _, err = run(capsys, *arguments, *files, "--out", tmp_path / "a.nc")
        assert code == 0, err
    back = read_table(tmp_path / "few.parquet")
    assert [int(back["quality"].iloc[row]) for row in planted] == [19, 0]
    np.testing.assert_allclose(back["hx_b"], expected, rtol=1e-5)
    sample = small_latent.errors(model).std(dim=(0, 3), keepdim=True)[0] * model.normalisation.std.view(-1, 1, 1)
    expected = observe_std(model, sample.expand_as(truth.values[0]), table)
    np.testing.assert_allclose(back["hx_b_error"], expected, rtol=0.15)


def test_checks_are_counted_one_by_one(case, capsys):
    table = read_table(case / "columns.parquet")
    value = table["observation"].to_numpy(copy=True)
    rows = np.flatnonzero(table["variable"] == "t")[:3]
    value[rows] += 60.0
    _rowwise(case, "wrong.parquet", observation=value)
    (case / "qc.yaml").write_text("checks: [missing, {departures: {factor: 6}}]")
    command = ["observations", "check", case / "wrong.parquet", "--background", case / "truth.nc", "--json"]
    code, out, err = run(capsys, *command, "--checks", case / "qc.yaml", "--out", case / "checked.parquet")
    assert code == 0, err
    assert json.loads(out)["checks"] == {"missing": {}, "departures": {"t": 3}}
    checked = read_table(case / "checked.parquet")
    assert np.flatnonzero(checked["quality"] == 19).tolist() == rows.tolist()
    assert checked["hx_b"].notna().all()
    for text, message in (
        ("checks: [nonsense]", "qc.yaml: found check 'nonsense'"),
        ("checks: [5]", "qc.yaml: found check 5"),
        ("checks: [{hydrostatic: {tolerance: -1}}]", "qc.yaml: hydrostatic: tolerance: found -1"),
    ):
        (case / "qc.yaml").write_text(text)
        code, out, err = run(capsys, *command, "--checks", case / "qc.yaml")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert message in err


def test_tables_of_any_layout_and_damaged_files_from_the_command(tmp_path, capsys):
    (tmp_path / "map.yaml").write_text(
        "{source: s, station: id, time: t, latitude: y, longitude: x, quantities: {temperature: {column: T, units: degC}}}"
    )
    (tmp_path / "t.csv").write_text("id,t,y,x,T\na,2020-01-01T00:00,1,2,3\na,2020-13-01T00:00,1,2,3\n")
    command = [
        "observations",
        "read",
        tmp_path / "t.csv",
        "--columns",
        tmp_path / "map.yaml",
        "--out",
        tmp_path / "o.parquet",
    ]
    code, out, err = run(capsys, *command)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "row 2: found time '2020-13-01T00:00'" in err
    assert not (tmp_path / "o.parquet").exists()
    code, out, err = run(capsys, *command, "--keep-going", "--json")
    assert code == 0, err
    assert len(json.loads(out)["lost"]) == 1
    assert read_table(tmp_path / "o.parquet")["observation"].tolist() == pytest.approx([276.15])
    many = "id,t,y,x,T\n" + "".join(
        f"a,2020-01-{day:02d}T{hour:02d}:00,1,2,3\n" for day in range(1, 11) for hour in (0, 12, 23)
    )
    (tmp_path / "t.csv").write_text(many)
    for since, until, kept in (
        ("2020-01-03", "2020-01-04", 6),
        (None, "2020-01-04T12", 11),
        ("2020-01-09T13", None, 4),
    ):
        bounds = [*(("--since", since) if since else ()), *(("--until", until) if until else ())]
        code, out, err = run(capsys, *command, *bounds, "--json")
        assert code == 0, err
        assert (json.loads(out)["rows"], json.loads(out)["outside_period"]) == (kept, 30 - kept)
    (tmp_path / "o.parquet").unlink()
    for bounds, complaint in (
        (("--since", "2021-01-01"), "found 30 rows outside 2021-01-01T00:00 to …"),
        (("--since", "yesterdayish"), "since: found 'yesterdayish', expected a time such as 2020-01-31T12:00"),
        (("--until", "now"), "until: found 'now', expected a time such as"),
        (("--until", "10:30"), "until: found '10:30', expected a time such as"),
        (("--since", "2500-01-01"), "since: found '2500-01-01', expected a time from 1678 to 2261"),
        (("--since", "2020-01-02", "--until", "2020-01-01"), "expected the first time before the last"),
    ):
        code, out, err = run(capsys, *command, *bounds)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert complaint in err
        assert not (tmp_path / "o.parquet").exists()
    code, out, err = run(capsys, *command[:-1], tmp_path / "map.yaml")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert (tmp_path / "map.yaml").read_text().startswith("{source")
    for name in ("https://example.org/x.gz", tmp_path, tmp_path / "map.yaml"):
        code, out, err = run(capsys, "observations", "read", name, "--out", tmp_path / "n.parquet")
        assert (code, out, err.count("\n")) == (2, "", 1)


def test_a_url_where_a_path_is_expected_is_refused_by_its_name(capsys, tmp_path):
    for arguments, name in (
        (("assimilate", "--field", "gs://bucket/a.zarr"), "field"),
        (("data", "prepare", tmp_path, "s3://bucket/a.zarr"), "out"),
        (("observations", "read", "https://host/a.parquet", "--out", tmp_path / "a.parquet"), "files"),
        (("verify", "gs://bucket/a.zarr"), "analysis"),
    ):
        code, _, error = run(capsys, *arguments)
        url = next(a for a in arguments if "://" in str(a))
        assert (code, error) == (
            2,
            f"genda: {name}: found the URL {url}, expected a path on this machine (genda data reads stores behind URLs)\n",
        )

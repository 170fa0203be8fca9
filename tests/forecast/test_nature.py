"""The general circulation model itself, at T21 and for a few simulated days."""

import sys

import numpy as np
import pytest
import xarray as xr

import genda.forecast.incremental as incremental
import genda.forecast.nature as nature
from genda.forecast.backgrounds import plan, write_backgrounds
from genda.forecast.climate import channel_values, open_backgrounds, open_ensembles, open_nature_run
from genda.forecast.ensembles import write_ensembles
from genda.forecast.nature_run import integrate, nature_run
from genda.forecast.pressure import to_pressure_levels
from genda.forecast.sigma import to_sigma_levels
from genda.forecast.store import Run, create_store, modal_state, open_run
from genda.forecast.timeline import Timeline
from genda.state import from_dataset


def test_without_jcm_the_error_is_one_line_that_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "jcm", None)
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install .*'\.\[nature\]'") as error:
        nature_run(tmp_path / "out.zarr", years=1, seed=0)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_unknown_grid_and_part_are_refused(tmp_path):
    with pytest.raises(ValueError, match="grid: found 't999'"):
        nature.NatureModel("t999")
    with pytest.raises(ValueError, match="parts: found truth-9"):
        nature_run(tmp_path / "out.zarr", years=1, seed=0, parts=["truth-9"])


@pytest.fixture(scope="module")
def model():
    pytest.importorskip("jcm", reason="the nature run's model is an optional extra: genda[nature]")
    return incremental.single_model("t21")


@pytest.fixture(scope="module")
def run(model, tmp_path_factory):
    """A truth and a source of 15 days each, never interrupted."""
    run = Run(tmp_path_factory.mktemp("straight") / "n.zarr", Timeline(1, 5, 3, year_days=15, spin_up=5), "t21")
    create_store(run, model)
    integrate(run, [run.timeline.streams[2]], model)
    integrate(run, [run.timeline.source], model)
    return run


class Killed(Exception):
    pass


def test_a_killed_run_continues_to_the_same_bits(run, model, tmp_path):
    stream = run.timeline.streams[2]
    again = Run(tmp_path / "n.zarr", run.timeline, "t21")
    create_store(again, model)
    calls = 0

    class Dying:
        def __getattr__(self, name):
            return getattr(model, name)

        def advance(self, state):
            nonlocal calls
            calls += 1
            if calls in (3, 12):  # in the spin-up, and inside the second chunk kept
                raise Killed
            return model.advance(state)

    dying = Dying()
    for _ in range(2):
        with pytest.raises(Killed):
            integrate(again, [stream], dying)
    integrate(again, [stream], dying)
    assert calls == 3 + 9 + 15  # up to the first death; again from the start to the second; from day 5 to the end
    straight, resumed = open_nature_run(run.out), open_nature_run(again.out)
    assert straight.time.size == 30
    for name in straight.data_vars:
        assert (straight[name].values == resumed[name].values).all(), name
    for a, b in zip(modal_state(run, stream, 14), modal_state(again, stream, 14), strict=True):
        assert (a == b).all()
    integrate(again, [stream], dying)
    assert calls == 27  # a finished run is not computed again


def test_fields_are_plausible_and_the_initial_pressure_is_scaled(model, run):
    state = model.start([3], [np.datetime64("2001-01-01")])
    _, fields = model.advance(state)
    area = model.grid.area_weights
    mean = float((fields[0].surface_pressure[0].mean(axis=-1) * area).mean())
    other = 1e5 * nature.SURFACE_PRESSURE_SCALE
    assert 0.96 * other < mean < 1.02 * other
    truth = open_nature_run(run.out)
    t2m = truth["2m_temperature"]
    zonal = t2m.mean(("time", "longitude"))
    assert zonal.sel(latitude=0, method="nearest") > zonal.sel(latitude=80, method="nearest")  # the equator is warm
    assert (truth.geopotential.diff("level") > 0).all()  # levels run downwards in pressure, upwards in height
    ground = truth.geopotential_at_surface
    assert 25000 < float(ground.sel(latitude=33, longitude=90, method="nearest")) < 60000  # Tibet
    assert abs(float(ground.sel(latitude=0, longitude=180, method="nearest"))) < 3000  # the Pacific
    assert float(truth.land_sea_mask.sel(latitude=50, longitude=90, method="nearest")) > 0.5  # Siberia


def test_a_day_of_change_goes_to_the_modal_state_and_comes_back(run, model):
    """From pressure levels to the model and, by jcm's own transforms, back: most of the change is there, geopotential included."""
    bridge = nature.optional("jcm.dycore.dinosaur.state_bridge")
    levels = [85000.0, 70000.0, 50000.0, 30000.0, 20000.0]

    def shown(dynamics):
        state = bridge.dynamics_state_to_physics_state(dynamics, model._dycore.primitive)
        names = {"temperature": "temperature", "u": "u_wind", "v": "v_wind", "q": "specific_humidity"}
        host = {name: np.asarray(getattr(state, long))[None] for name, long in names.items()}
        host |= {"geopotential": np.asarray(state.geopotential)[None]}
        host |= {"surface_pressure": np.asarray(state.normalized_surface_pressure)[None]}
        lowest = host["temperature"][:, -2:]
        beyond = np.log(0.99 / model.sigma[-1]) / np.log(model.sigma[-1] / model.sigma[-2])
        host |= {"t2m": lowest[:, 1] + beyond * (lowest[:, 1] - lowest[:, 0])}
        return {name: values[0] for name, values in to_pressure_levels(model._fields(host), levels).items()}

    first, second = (model.dynamics(modal_state(run, run.timeline.streams[2], day)) for day in (13, 14))
    before, after = shown(first), shown(second)
    change = {name: after[name] - before[name] for name in before}
    found = shown(model.moved(first, to_sigma_levels(change, levels, model.ground(first))))
    area = model.grid.area_weights[:, None]
    for name, wanted in change.items():
        lost = (area * (found[name] - after[name]) ** 2).sum() / (area * wanted**2).sum()
        assert lost < (0.08 if name == "q" else 0.01), name


def test_forecasts_from_the_truth_stay_near_it_and_those_from_a_change_do_not(run, model):
    """Unchanged, the shock of a first step without radiation is left; a later run's error is that of its start and more."""
    assert open_run(run.out) == run
    truth = from_dataset(open_nature_run(run.out))
    time = run.timeline.streams[2].start + np.timedelta64(10, "D")
    at = int(np.flatnonzero(truth.times == time)[0])
    now, later = (truth.values[i].double().numpy() for i in (at, at + 2))
    area, scale = model.grid.area_weights, truth.values[at:].std(dim=(0, 2, 3)).numpy()

    def error(change):
        found = incremental.forecast_from_truth(run, time, change, truth.channels, 1)
        return np.sqrt((area[:, None] * ((found - later) / scale[:, None, None]) ** 2).mean())

    other = truth.values[at - 2].double().numpy()  # a day earlier
    start = np.sqrt((area[:, None] * ((other - now) / scale[:, None, None]) ** 2).mean())
    assert error(0 * now) < 0.03
    assert 0.5 * start < error(other - now) < 1.5 * start
    with pytest.raises(FileNotFoundError, match="found no modal state of 2003-01-01"):
        incremental.forecast_from_truth(run, np.datetime64("2003-01-01"), 0 * now, truth.channels, 1)
    end = run.timeline.streams[2].start + np.timedelta64(14, "D")
    with pytest.raises(ValueError, match="found 1 days of the truth"):
        incremental.check_forecasts(run, np.array([end]), truth.channels, 2)


def test_backgrounds_grow_from_the_perturbation_alone(run, model):
    """Unperturbed, what is left is the shock of a first step without the last step's radiation, 9 m² s⁻² in z500.

    That is small beside backgrounds of a developed atmosphere (100), less so in these few days after a start at rest.
    """
    pairs = plan(run.timeline, {"test": 2})
    write_backgrounds(run, pairs, "test", model)
    background = open_backgrounds(run.out, "test")
    truth = open_nature_run(run.out).sel(time=background.time)
    errors = channel_values(background, "z500") - channel_values(truth, "z500")[:, None]
    rmse = np.sqrt((errors**2).mean(axis=(0, 2, 3)))
    pair = pairs[0]
    day = pair.day - 3
    state = model.from_dynamics(
        [model.perturbed(*[modal_state(run, pair.stream, day)] * 3, alpha=1.0)],
        [pair.stream.start + np.timedelta64(24 * day, "h")],
    )
    for _ in range(3):
        state, fields = model.advance(state)
    unperturbed = to_pressure_levels(fields[0], [50000.0])["z"][-1, 0] - channel_values(truth, "z500")[0]
    assert np.sqrt((unperturbed**2).mean()) < min(15.0, 0.7 * rmse.min())
    store = xr.open_zarr(run.out, group="background", chunks=None)
    assert list(store.lead.values) == [24, 48]
    before = store.geopotential.values.copy()
    write_backgrounds(run, pairs, "test", model)  # nothing to do
    assert (xr.open_zarr(run.out, group="background", chunks=None).geopotential.values == before).all()


def test_the_imperfect_model_differs_from_the_true_one(model):
    state = model.start([3], [np.datetime64("2001-01-01")])
    for _ in range(3):
        state, _fields = model.advance(state)
    _, true = model.advance(state)
    _, same = model.advance(state, np.zeros((1, len(nature.PERTURBED_PARAMETERS))))
    _, imperfect = model.advance(state, np.ones((1, len(nature.PERTURBED_PARAMETERS))))
    assert (true[0].temperature == same[0].temperature).all()
    assert np.abs(true[0].temperature - imperfect[0].temperature).max() > 0.05


def test_members_advance_together_as_they_would_alone(model):
    both = nature.NatureModel("t21", members=2)
    dates = [np.datetime64("2001-01-01"), np.datetime64("2003-07-01")]
    _, together = both.advance(both.start([3, 4], dates))
    for member, (seed, date) in enumerate(zip((3, 4), dates, strict=True)):
        _, alone = model.advance(model.start([seed], [date]))
        np.testing.assert_allclose(together[member].temperature, alone[0].temperature, atol=0.02)
        np.testing.assert_allclose(together[member].surface_pressure, alone[0].surface_pressure, rtol=1e-4)


def test_ensemble_members_are_about_the_background_and_resume(run, model):
    pairs = plan(run.timeline, {"test": 2})
    write_backgrounds(run, pairs, "test", model)
    write_ensembles(run, pairs, "test", model, members=2)
    background, ensemble = open_backgrounds(run.out, "test"), open_ensembles(run.out, "test")
    assert list(ensemble.time.values) == list(background.time.values)
    departures = channel_values(ensemble, "t500") - channel_values(background, "t500")[:, :1]
    rms = np.sqrt((departures**2).mean(axis=(-2, -1)))
    assert (rms > 0).all()
    assert not np.allclose(departures[:, 0], departures[:, 1])
    before = ensemble.temperature.values.copy()
    write_ensembles(run, pairs, "test", model, members=2)  # nothing to do
    assert (open_ensembles(run.out, "test").temperature.values == before).all()
    with pytest.raises(ValueError, match="found an ensemble of 2 members on 2 dates, expected 3 on 2"):
        write_ensembles(run, pairs, "test", model, members=3)

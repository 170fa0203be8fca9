"""Tendencies against flows in closed form, term by term and in sum; conserved mass; gradients."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from analytic_flows import C_P, OMEGA, R_D, SURFACE, A, angles, isothermal, level_names, rms, rossby_haurwitz, state
from genda.grid import LatLonGrid
from genda.physics import Differentiation, PrimitiveEquations
from genda.sphere import SphericalGradient, SphericalTransform
from genda.variables import EMBEDDED_CHANNELS, ERA5_LEVELS

GRID = LatLonGrid.gaussian(48, 96)
POLES = LatLonGrid.equiangular(49, 96)
THREE = level_names("zuvtq", (850, 500, 200))
HARMONICS, DIFFERENCES = Differentiation(), Differentiation(meridional="differences")
SCHEMES = [(GRID, HARMONICS), (GRID, DIFFERENCES), (POLES, HARMONICS), (POLES, DIFFERENCES)]


def wave_state(names, grid, t=260.0):
    """A Rossby-Haurwitz wave alike at all levels of an isothermal atmosphere, with humidity 0.01 (1 + s) / 2."""
    wave, dry = rossby_haurwitz(grid), isothermal(t)
    humidity = 0.005 * (1 + angles(grid)[0].sin())
    return wave, state(names, grid, z=lambda p: wave["z"] + dry(p), u=wave["u"], v=wave["v"], t=t, q=humidity)


def wave_terms(grid):
    """The terms of the momentum equations in the wave, by the partial derivatives of its closed form."""
    wave, (latitude, _) = rossby_haurwitz(grid), angles(grid)
    u, v, east, north = wave["u"], wave["v"], 1 / (A * latitude.cos()), 1 / A
    f, curvature = 2 * OMEGA * latitude.sin(), latitude.tan() / A
    return {
        "u": {
            "advection": -(u * wave["u_lon"] * east + v * wave["u_lat"] * north),
            "rotation": f * v,
            "curvature": curvature * u * v,
            "pressure gradient": -wave["z_lon"] * east,
        },
        "v": {
            "advection": -(u * wave["v_lon"] * east + v * wave["v_lat"] * north),
            "rotation": -f * u,
            "curvature": -curvature * u * u,
            "pressure gradient": -wave["z_lat"] * north,
        },
    }


def wave_errors(grid, settings):
    """Relative errors of every term, and of the sums against -ν u_λ and -ν v_λ, within 85 degrees."""
    wave, x = wave_state(THREE, grid)
    found, errors = PrimitiveEquations(grid, THREE, differentiation=settings).terms(x), {}
    for field, terms in wave_terms(grid).items():
        largest = max(rms(expected, grid) for expected in terms.values())
        for name, expected in terms.items():
            errors[field, name] = rms(found[field][name] - expected, grid) / rms(expected, grid)
        errors[field, "vertical advection"] = rms(found[field]["vertical advection"], grid) / largest
        expected = -wave["rate"] * wave[f"{field}_lon"]
        errors[field, "sum"] = rms(sum(found[field].values()) - expected, grid) / rms(expected, grid)
    return errors


@pytest.mark.parametrize("grid", [GRID, POLES])
def test_a_rossby_haurwitz_wave_by_harmonics_term_by_term(grid):
    errors = wave_errors(grid, HARMONICS)
    assert max(errors.values()) < 1e-5, errors
    half = wave_errors(
        LatLonGrid.gaussian(24, 48), HARMONICS
    )  # too coarse for the wave's geopotential: spectral convergence
    assert half["u", "sum"] > 1e3 * errors["u", "sum"]


def test_a_rossby_haurwitz_wave_by_differences_converges_at_fourth_order():
    errors = [wave_errors(LatLonGrid.gaussian(n, 2 * n), DIFFERENCES) for n in (48, 96, 192)]
    assert max(error for (_, name), error in errors[0].items() if name != "sum") < 1e-3, errors[0]
    assert max(errors[0].values()) < 4e-3, errors[0]  # the sum is a tenth of the terms that cancel in it
    assert max(errors[1].values()) < 1e-3, errors[1]
    for key in [("u", "sum"), ("v", "sum"), ("v", "advection"), ("v", "pressure gradient")]:
        orders = np.log2([coarse[key] / fine[key] for coarse, fine in pairwise(errors)])
        assert (orders > 3.8).all(), (key, orders)


@pytest.mark.parametrize(("grid", "settings"), SCHEMES)
def test_temperature_humidity_and_geopotential_in_a_rossby_haurwitz_wave(grid, settings):
    """T_t = 0, q_t = -v q_φ / a with q = 0.005 (1 + s), and on the level surface of dry air Φ_t = -V·∇Φ."""
    levels = ERA5_LEVELS[:9]
    names = level_names("zuvt", levels)
    wave, x = wave_state(names, grid)
    found = PrimitiveEquations(grid, names, differentiation=settings, closure="free").terms(x)
    latitude = angles(grid)[0]
    climb = (wave["u"] * wave["z_lon"] / latitude.cos() + wave["v"] * wave["z_lat"]) / A
    tolerance = 1e-3 if settings is HARMONICS else 1e-2
    assert rms(sum(found["z"].values()) + climb, grid) < tolerance * rms(climb, grid)
    assert rms(sum(found["t"].values()), grid) < tolerance * 1 / 86400  # K per day
    moist, (_, x) = level_names("uvq", levels), wave_state(level_names("uvq", levels), grid)
    expected = -wave["v"] * 0.005 * latitude.cos() / A
    q = PrimitiveEquations(grid, moist, differentiation=settings).terms(x)["q"]
    assert rms(sum(q.values()) - expected, grid) < tolerance * rms(expected, grid)


@pytest.mark.parametrize(("grid", "settings"), SCHEMES)
def test_a_solid_body_rotation_about_any_axis_is_steady_without_the_planets(grid, settings):
    """With the colatitude's cosine κ about the axis, Φ = -u_0² κ² / 2 balances the rotation; the flow crosses the poles."""
    latitude, longitude = angles(grid)
    tilt, speed = 1.1, torch.tensor(40.0, dtype=torch.float64)
    sine, cosine = np.sin(tilt), np.cos(tilt)
    axis = latitude.sin() * cosine - latitude.cos() * longitude.cos() * sine
    u = speed * (latitude.cos() * cosine + latitude.sin() * longitude.cos() * sine)
    x = state(THREE, grid, u=u, v=-speed * longitude.sin() * sine, z=-(speed**2) * axis**2 / 2, t=250.0)
    terms = PrimitiveEquations(grid, THREE, differentiation=settings, rotation=0.0).terms(x)
    tolerance = 1e-6 if settings is HARMONICS else 1e-3
    for field in "uv":
        assert rms(sum(terms[field].values()), grid) < tolerance * rms(terms[field]["advection"], grid)


@pytest.mark.parametrize(("grid", "settings"), SCHEMES)
def test_solid_body_rotation_with_the_planet_term_by_term(grid, settings):
    """u = u_0 c, Φ = -(a Ω u_0 + u_0² / 2) s²: -f u = -2Ω u_0 s c, curvature -u_0² s c / a, and the gradient of both."""
    latitude, _ = angles(grid)
    c, s, speed = latitude.cos(), latitude.sin(), 40.0
    z = -(A * OMEGA * speed + speed**2 / 2) * s**2
    x = state(THREE, grid, u=speed * c, z=lambda p: z + isothermal()(p), t=260.0)
    terms = PrimitiveEquations(grid, THREE, differentiation=settings).terms(x)["v"]
    expected = {
        "rotation": -2 * OMEGA * speed * s * c,
        "curvature": -(speed**2) * s * c / A,
        "pressure gradient": 2 * (OMEGA * speed + speed**2 / (2 * A)) * s * c,
    }
    tolerance = 1e-9 if settings is HARMONICS else 1e-4
    for name, value in expected.items():
        assert rms(terms[name] - value, grid) < tolerance * rms(value, grid), name
    assert rms(sum(terms.values()), grid) < tolerance * rms(expected["rotation"], grid)


@pytest.mark.parametrize(("grid", "settings"), SCHEMES)
def test_a_balanced_baroclinic_jet_stays(grid, settings):
    """u = h u_0 c s² with h = ln(p_s / p) is balanced by Φ = Φ_0(p) - a Ω u_0 h s⁴ / 2 - u_0² h² s⁶ / 6, and T = -Φ_ln p / R_d."""
    latitude, _ = angles(grid)
    c, s, speed = latitude.cos(), latitude.sin(), 40.0
    names = level_names("zuvt", ERA5_LEVELS)

    def height(p):
        return float(np.log(SURFACE / p))

    def z(p):
        h = height(p)
        return isothermal()(p) - A * OMEGA * speed * h * s**4 / 2 - speed**2 * h**2 * s**6 / 6

    def t(p):
        return 260.0 - (A * OMEGA * speed * s**4 / 2 + speed**2 * height(p) * s**6 / 3) / R_D

    x = state(names, grid, u=lambda p: height(p) * speed * c * s**2, z=z, t=t)
    equations = PrimitiveEquations(grid, names, differentiation=settings)
    terms = equations.terms(x)
    coriolis = rms(terms["v"]["rotation"], grid)
    assert coriolis > 1e-3
    tolerance = 1e-9 if settings is HARMONICS else 3e-3
    assert rms(sum(terms["v"].values()), grid) < tolerance * coriolis
    for field, scale in {"u": coriolis, "t": 1 / 86400, "z": 1000 / 86400}.items():
        assert rms(sum(terms[field].values()), grid) < 1e-9 * scale
    assert float(equations.hydrostatic_residual(x).abs().max()) < 1e-9 * float(x.abs().max())  # T is linear in ln p


@pytest.mark.parametrize(("grid", "settings"), SCHEMES)
def test_an_isothermal_column_at_rest_stays(grid, settings):
    names = level_names("zuvtq", ERA5_LEVELS)
    virtual = 250 * (1 + 0.608 * 0.004)
    x = state(names, grid, z=isothermal(virtual), t=250.0, q=0.004)
    equations = PrimitiveEquations(grid, names, differentiation=settings)
    assert float(equations.hydrostatic_residual(x).abs().max()) < 1e-8
    assert float(equations(x).abs().max()) < 1e-11
    x[:, names.index("z500")] += 10.0
    residual = equations.hydrostatic_residual(x)[0, :, 0, 0]
    above = ERA5_LEVELS.index(500)
    torch.testing.assert_close(residual[above - 1 : above + 1], torch.tensor([10.0, -10.0], dtype=torch.float64))
    assert residual.abs().sum() == pytest.approx(20, abs=1e-6)


def overturning(grid, power):
    """v = V (p / p_s)^n s c with ∇·V = V (p / p_s)^n (1 - 3 s²) / a."""
    latitude, _ = angles(grid)
    c, s = latitude.cos(), latitude.sin()
    return lambda p: 5.0 * (p / SURFACE) ** power * s * c, lambda p: 5.0 * (p / SURFACE) ** power * (1 - 3 * s**2) / A


@pytest.mark.parametrize(("grid", "settings"), SCHEMES)
def test_vertical_motion_of_an_overturning_and_what_it_warms(grid, settings):
    """With n = 1, ω = -p ∇·V / 2 and T_t = -v T_φ / a + ω (R_d T / (c_p p) - T_p), here for T = 200 + 30 ln(p / p_s) + 10 s."""
    names = level_names("uvt", ERA5_LEVELS)
    v, divergence = overturning(grid, 1)
    s, c = angles(grid)[0].sin(), angles(grid)[0].cos()
    x = state(names, grid, v=v, t=lambda p: 200 + 30 * np.log(p / SURFACE) + 10 * s)
    equations = PrimitiveEquations(grid, names, differentiation=settings, closure="free")
    omega, terms = equations.vertical_velocity(x), equations.terms(x)["t"]
    for i, level in enumerate(equations.levels["t"]):
        p = 100.0 * level
        expected = -p / 2 * divergence(p)
        t = 200 + 30 * np.log(p / SURFACE) + 10 * s
        warming = expected * (R_D * t / (C_P * p) - 30 / p) - v(p) * 10 * c / A
        tolerance = 1e-9 if settings is HARMONICS else 1e-3
        assert rms(omega[:, i] - expected, grid) < tolerance * rms(expected, grid)
        assert rms(sum(terms.values())[:, i] - warming, grid) < tolerance * rms(warming, grid)


def test_the_lift_of_an_overturning_moves_wind_humidity_and_geopotential():
    """ω = g p²/p_s with g = -V (1 - 3 s²) / (2a) lifts u = (30 + 10 L) c, q = 0.01 + 0.002 L and T = 280, with L = ln(p / p_s).

    u_t and q_t have -10 c ω/p and -0.002 ω/p. With G = g p/p_s = ω/p, T_v,t = G T [κ (1 + 0.608 q)² - 0.608 · 0.002], and its
    integral in ln p is that of e^L times a parabola. The ground at 1000 hPa, with Φ_φ = 500 c, adds R_d T_v g - v 500 c / a.
    """
    grid, levels = LatLonGrid.gaussian(16, 32), tuple(range(1000, 10, -10))
    c, s = angles(grid)[0].cos(), angles(grid)[0].sin()
    speed, ground, kappa = 5.0, 1e5, R_D / C_P
    depth = torch.log(torch.tensor(levels, dtype=torch.float64) / 1000).view(-1, 1, 1)
    names = level_names("zuvtq", levels)

    def by_depth(value):
        return lambda p: value(np.log(p / ground))

    v = by_depth(lambda d: speed * np.exp(d) * s * c)
    u, q = by_depth(lambda d: (30 + 10 * d) * c), by_depth(lambda d: 0.01 + 0.002 * d)
    x = state(names, grid, u=u, v=v, q=q, t=280.0, z=500 * s)
    terms = PrimitiveEquations(grid, names, closure="free", surface_pressure=ground).terms(x)
    lift = -speed * (1 - 3 * s**2) / (2 * A)
    along = lift * depth.exp()  # ω / p
    torch.testing.assert_close(terms["u"]["vertical advection"][0], -10 * c * along, rtol=1e-8, atol=1e-14)
    torch.testing.assert_close(terms["q"]["vertical advection"][0], -0.002 * along, rtol=1e-8, atol=1e-17)
    moist, slope = 1 + 0.608 * 0.01, 0.608 * 0.002
    parabola = 280 * (kappa * moist**2 - slope), 280 * kappa * 2 * moist * slope, 280 * kappa * slope**2

    def integral(d):
        return d.exp() * (parabola[0] + parabola[1] * (d - 1) + parabola[2] * (d**2 - 2 * d + 2))

    thickness = R_D * lift * (integral(torch.zeros_like(depth)) - integral(depth))
    assert rms(terms["z"]["thickness"][0] - thickness, grid) < 1e-3 * rms(thickness, grid)
    surface = (R_D * 280 * moist * lift - speed * s * c * 500 * c / A).expand(len(levels), *grid.shape)
    torch.testing.assert_close(terms["z"]["surface"][0], surface, rtol=1e-8, atol=1e-12)


def test_the_ground_below_the_lowest_level_has_its_own_slope_of_geopotential():
    """With Φ = 0 at 850 hPa, T = 270 + 10 s and q = 0.005 + 0.002 s below it, Φ_φ(p_s) = -R_d ln(p_s / 850 hPa) T_v,φ."""
    latitude, wave = angles(GRID)[0], rossby_haurwitz(GRID)  # whose divergence is zero
    c, s = latitude.cos(), latitude.sin()
    t, q = 270 + 10 * s, 0.005 + 0.002 * s
    x = state(THREE, GRID, u=wave["u"], v=wave["v"], t=t, q=q)
    found = PrimitiveEquations(GRID, THREE, closure="free").terms(x)["z"]["surface"][0, 0]
    slope = 10 * c * (1 + 0.608 * q) + 0.608 * t * 0.002 * c
    expected = wave["v"] * R_D * np.log(SURFACE / 85000) * slope / A
    assert rms(found - expected, GRID) < 1e-8 * rms(expected, GRID)


def test_the_rigid_closure_takes_the_mean_divergence_out_of_the_column():
    """∫ ∇·V dp with ∇·V ~ p to 1000 hPa and constant below; its share p / p_s is what the closure takes out of ω."""
    names = level_names("uv", ERA5_LEVELS)
    v, divergence = overturning(GRID, 1)
    x = state(names, GRID, v=v)
    free, rigid = (PrimitiveEquations(GRID, names, closure=closure) for closure in ("free", "rigid"))
    mass = free.mass_tendency(x)
    whole = -(SURFACE / 2 * (1e5 / SURFACE) ** 2 + 1e5 / SURFACE * (SURFACE - 1e5)) * divergence(SURFACE)
    torch.testing.assert_close(mass[0, 0], whole, rtol=1e-9, atol=1e-9)
    pressure = 100 * torch.tensor(ERA5_LEVELS, dtype=torch.float64).view(1, -1, 1, 1)
    expected = free.vertical_velocity(x) - pressure / SURFACE * mass
    torch.testing.assert_close(rigid.vertical_velocity(x), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("settings", "tolerance"), [(HARMONICS, 1e-12), (DIFFERENCES, 2e-3)])
def test_the_mass_of_all_columns_is_conserved(settings, tolerance):
    """A wind of random potentials below degree 12: what flows out of some columns flows into others."""
    names, generator = level_names("uv", (850, 500, 200)), torch.Generator().manual_seed(0)
    transform, gradient = SphericalTransform(GRID, 32).double(), SphericalGradient(GRID, 32).double()
    coefficients = torch.zeros(3, 32, 32, dtype=torch.complex128)
    for degree in range(1, 12):
        parts = torch.randn(3, degree + 1, 2, dtype=torch.float64, generator=generator)
        coefficients[:, degree, : degree + 1] = torch.view_as_complex(parts)
    east, north = gradient(transform.synthesis(coefficients))
    x = torch.cat([east, north]).unsqueeze(0)
    mass = PrimitiveEquations(GRID, names, differentiation=settings).mass_tendency(x)[0, 0]
    area = torch.as_tensor(GRID.area_weights).view(-1, 1)
    assert abs(float((area * mass).mean())) < tolerance * rms(mass, GRID)


@pytest.mark.parametrize("settings", [HARMONICS, DIFFERENCES])
@pytest.mark.parametrize("closure", ["free", "rigid"])
def test_gradients_are_those_of_finite_differences(settings, closure):
    grid = LatLonGrid.gaussian(8, 16)
    equations = PrimitiveEquations(grid, THREE, differentiation=settings, closure=closure, condensation=True)
    generator = torch.Generator().manual_seed(1)
    typical = {"z": (5e4, 1e3), "u": (10.0, 10.0), "v": (0.0, 10.0), "t": (260.0, 5.0), "q": (2e-3, 1e-3)}
    mean, scale = (torch.tensor([typical[name[0]][i] for name in THREE]).double().view(1, -1, 1, 1) for i in (0, 1))
    anomaly = torch.randn(1, len(THREE), *grid.shape, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: 1e4 * equations(mean + scale * a) / scale, anomaly, fast_mode=True)


def test_a_batch_is_its_states_and_surface_channels_have_no_tendency():
    _, a = wave_state(EMBEDDED_CHANNELS, GRID)
    generator = torch.Generator().manual_seed(0)
    b = a + torch.randn(a.shape, dtype=torch.float64, generator=generator)
    equations = PrimitiveEquations(GRID, EMBEDDED_CHANNELS)
    both = equations(torch.cat([a, b]))
    torch.testing.assert_close(both, torch.cat([equations(a), equations(b)]), rtol=1e-10, atol=1e-16)
    assert float(both[:, -4:].abs().max()) == 0
    assert (both[:, :-4].flatten(2).abs().amax(dim=-1) > 0).any(dim=0).all()


def test_single_precision_is_near_double():
    _, x = wave_state(THREE, GRID)
    equations = PrimitiveEquations(GRID, THREE)
    exact, single = equations(x), equations(x.float())
    assert single.dtype == torch.float32
    for field, i in {"u": 3, "v": 6, "z": 0}.items():
        assert rms(single[:, i] - exact[:, i], GRID) < 1e-3 * rms(exact[:, i], GRID), field

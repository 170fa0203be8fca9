"""What regridding keeps of real fields: area means and spectra, of ERA5 and IFS in GRIB.

python benchmarks/gridded.py ../shared/data/era5-levels-members.grib ../shared/data/pl_regular_ll.grib
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from genda.grid import LatLonGrid
from genda.regrid import regrid, regridder, wind_axes
from genda.sphere import SphericalTransform, degree_power, triangular_limit
from genda.state import State, read_state

TARGETS = {"48 × 96 Gaussian": LatLonGrid.gaussian(48, 96), "121 × 240 (1.5°)": LatLonGrid.equiangular(121, 240)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    for path in parser.parse_args().files:
        state = read_state(path)
        fields = state.values[..., 0, 0].numel()
        grid = "{} × {}".format(*state.grid.shape)
        print(f"\n{path.name}: {fields} fields ({' '.join(state.channels)}) at {grid}\n")
        degrees = [degree for degree in (5, 10, 15, 20, 25, 30) if degree < triangular_limit(state.grid)]
        columns = " | ".join(f"l = {d}" for d in degrees)
        print(f"| to | method | area mean, largest relative change | mean harmonic | {columns} |")
        print("|---|---|---|---|" + "---|" * len(degrees))
        for name, target in TARGETS.items():
            for method in ("conservative", "bilinear", "spectral"):
                moved = regrid(state, target, regridder(state.grid, target, method))
                change, zeroth, ratios = compare(state, moved)
                power = " | ".join(f"{float(ratios[d]):.3f}" for d in degrees)
                print(f"| {name} | {method} | {change:.1e} | {zeroth:.1e} | {power} |")


def compare(before: State, after: State) -> tuple[float, float, torch.Tensor]:
    """Largest change of an area mean over the field's rms, the same of the harmonic of degree zero, and the ratio of power by
    degree, median over channels of means over times and members; harmonics of a wind are those of its Cartesian components."""
    means = [area_mean(s) for s in (before, after)]
    limit = min(triangular_limit(s.grid) for s in (before, after))
    fields = [smooth_fields(s) for s in (before, after)]
    coefficients = [
        SphericalTransform(s.grid, limit).double().analysis(f) for s, f in zip((before, after), fields, strict=True)
    ]
    zeroth = [c[..., 0, 0].real / (4 * torch.pi) ** 0.5 for c in coefficients]
    power = [degree_power(c).flatten(0, -3).mean(dim=0) for c in coefficients]
    change, changed_zeroth = (
        float(((b - a).abs() / field.square().mean(dim=(-2, -1)).sqrt()).max())
        for (a, b), field in ((means, before.values.double()), (zeroth, fields[0]))
    )
    return change, changed_zeroth, (power[1] / power[0]).median(dim=0).values


def smooth_fields(state: State) -> torch.Tensor:
    """Fields (..., k, lat, lon) that are smooth across the poles: u and v as Cartesian components."""
    values = state.values.double()
    levels = [name[1:] for name in state.channels if name[0] == "u"]
    winds = [values[..., [state.channels.index(c + level) for c in "uv"], :, :] for level in levels]
    cartesian = [torch.einsum("kxij,...kij->...xij", wind_axes(state.grid), wind) for wind in winds]
    return torch.cat([values[..., [name[0] not in "uv" for name in state.channels], :, :], *cartesian], dim=-3)


def area_mean(state: State) -> torch.Tensor:
    weights = torch.as_tensor(state.grid.area_weights).view(-1, 1)
    return (weights * state.values.double()).mean(dim=(-2, -1))


if __name__ == "__main__":
    main()

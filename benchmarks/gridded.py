"""What regridding keeps of real fields: area means and spectra, of ERA5 and IFS in GRIB.

python benchmarks/gridded.py ../shared/data/era5-levels-members.grib ../shared/data/pl_regular_ll.grib
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from genda.grid import LatLonGrid
from genda.regrid import regrid, regridder
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
    degree, median over channels of means over times and members."""
    means = [area_mean(s) for s in (before, after)]
    size = before.values.double().square().mean(dim=(-2, -1)).sqrt()
    limit = min(triangular_limit(s.grid) for s in (before, after))
    coefficients = [SphericalTransform(s.grid, limit).double().analysis(s.values.double()) for s in (before, after)]
    zeroth = [c[..., 0, 0].real / (4 * torch.pi) ** 0.5 for c in coefficients]
    power = [degree_power(c).reshape(-1, len(before.channels), limit).mean(dim=0) for c in coefficients]
    change, changed_zeroth = (float(((b - a).abs() / size).max()) for a, b in (means, zeroth))
    return change, changed_zeroth, (power[1] / power[0]).median(dim=0).values


def area_mean(state: State) -> torch.Tensor:
    weights = torch.as_tensor(state.grid.area_weights).view(-1, 1)
    return (weights * state.values.double()).mean(dim=(-2, -1))


if __name__ == "__main__":
    main()

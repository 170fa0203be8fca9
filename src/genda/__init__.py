"""genda: generative data assimilation with learned diffusion priors.

    model = genda.load("embedded")
    sources = [genda.point_source(model, table, time), genda.field_source(model, coarse, error=0.05)]
    analysis = genda.assimilate(model, sources, time, method="fusion", members=16, seed=0)

Names are imported when they are used, so that ``import genda`` and ``genda --help`` cost nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "Analysis": "assimilation",
    "Earth2StudioModel": "earth2studio",
    "LatLonGrid": "grid",
    "Model": "checkpoint",
    "State": "state",
    "assimilate": "assimilation",
    "field_source": "sources",
    "in_observed_climate": "usable",
    "load": "assimilation",
    "point_source": "sources",
    "quantity_operator": "sources",
    "read_observations": "observations.read",
    "read_sample": "sample",
    "read_state": "state",
    "usable_observations": "usable",
}
__all__ = [*sorted(_PUBLIC)]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'genda' has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    value = getattr(import_module(f"genda.{module}"), attribute or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

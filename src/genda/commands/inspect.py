"""``genda inspect``: the card of a model."""

from __future__ import annotations

from genda.assets import model_directory
from genda.checkpoint import read_card
from genda.commands.outcome import Outcome
from genda.latent_card import latent_card


def inspect_model(name: str) -> Outcome:
    """The card of a model."""
    directory = model_directory(name)
    card = latent_card(directory) or read_card(directory).model_dump(mode="json")
    grid = card.pop("grid")
    shape = [len(grid["latitude"]), len(grid["longitude"])]
    document = {"directory": str(directory), "grid": shape, **card}
    lines = [
        f"{key}: {value if not isinstance(value, list) else ' '.join(map(str, value))}"
        for key, value in document.items()
    ]
    return Outcome("\n".join(lines), document)

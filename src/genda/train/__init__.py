"""Training of a diffusion prior: ``read_config`` and ``train``; ``python -m genda.train`` starts it.

:mod:`genda.train.loop` is the loop, :mod:`genda.train.config` its configuration, :mod:`genda.train.data` what it reads
and :mod:`genda.train.optimisation` how weights move.
"""

from genda.train.config import TrainConfig, read_config
from genda.train.loop import train

__all__ = ["TrainConfig", "read_config", "train"]

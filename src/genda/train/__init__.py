"""Training of a diffusion prior: ``read_config`` and ``train``.

Read :mod:`genda.train.loop` first; ``config`` is what a run may be told, ``data`` what it reads, ``prepare`` how it starts,
``run`` what a step touches, ``optimisation`` how weights move, ``store`` what is on disk.
"""

from genda.train.config import TrainConfig, read_config
from genda.train.loop import train

__all__ = ["TrainConfig", "read_config", "train"]

"""``python -m genda.train CONFIG.yaml [key=value …] [--resume]``: what torchrun starts."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from genda.train.config import read_config
from genda.train.loop import train


def main(arguments: Sequence[str] | None = None) -> int:
    """Train; the exit code is 0, 2 for bad input or 4 for a loss that is not finite."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    resume = "--resume" in given
    given = [argument for argument in given if argument != "--resume"]
    try:
        if not given:
            raise ValueError("found no configuration, expected CONFIG.yaml [key=value …] [--resume]")
        train(read_config(given[0], given[1:]), resume)
    except (FileNotFoundError, FileExistsError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except FloatingPointError as error:
        sys.stderr.write(f"{error}\n")
        return 4
    return 0


if __name__ == "__main__":
    sys.exit(main())

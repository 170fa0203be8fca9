"""``python -m genda.cli``, which torchrun needs."""

from genda.cli import main

main()

"""Every method on the same truth, background, observations and errors: one table per suite.

A *suite* is a YAML file: an experiment, its cases, the methods with their settings. An experiment runs one method on one case
and returns statistics; :mod:`genda.benchmark.runner` does so for all pairs, restartably and side by side, and
:mod:`genda.benchmark.results` makes the table.
"""

from genda.benchmark.results import Results, read_results
from genda.benchmark.runner import run_suite
from genda.benchmark.suite import read_suite, shipped_suites

__all__ = ["Results", "read_results", "read_suite", "run_suite", "shipped_suites"]

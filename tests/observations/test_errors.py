"""Tables of errors, their growth with the grid, and the blocks of a sounding."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from genda.observations.errors import assign_errors, default_error, inflate_errors, read_errors, sounding_blocks


def table(**columns: object) -> pd.DataFrame:
    rows = {"variable": ["t"], "source": ["igra"], "pressure": [50000.0], "obs_error": [np.nan], "station": ["a"]}
    return pd.DataFrame(rows | columns).assign(time=pd.Timestamp("2020-01-01"))


def test_the_first_entry_that_fits_counts_then_the_source_then_the_default(tmp_path):
    path = tmp_path / "errors.yaml"
    path.write_text(
        "errors:\n- {variable: t, source: igra, pressure: [1000, 250], error: [1.0, 3.0]}\n"
        "- {variable: [u, v], error: 7}\n- {variable: t, error: 9}\n"
    )
    given = table(
        variable=["t", "u", "t", "q", "t", "t"], source=["igra", "x", "x", "x", "igra", "bufr-aircraft"],
        pressure=6 * [50000.0], obs_error=[np.nan] * 4 + [0.1, np.nan], station=6 * ["a"],
    )  # fmt: skip
    assigned = assign_errors(given, read_errors(path))["obs_error"]
    expected = [2.0, 7.0, 9.0, default_error("q", 5e4), 2.0, 9.0]  # 500 hPa is half way from 1000 to 250 in ln p
    np.testing.assert_allclose(assigned, expected)
    plain = assign_errors(given)["obs_error"]
    np.testing.assert_allclose(plain.iloc[[4, 5]], [0.1, 1.0])  # what the table holds; an aircraft's default


def test_entries_know_variables_by_any_name(tmp_path):
    path = tmp_path / "errors.yaml"
    path.write_text("errors: [{variable: temperature, error: 9}]")
    assert assign_errors(table(), read_errors(path))["obs_error"].item() == 9.0


WRONG = {
    "errors: [{variable: t, pressure: [500, 300], error: 1}]": "entry 1: found 1 errors at 2 pressures",
    "errors: [{variable: warmth, error: 1}]": "entry 1: variable: unknown variable 'warmth'",
    "errors: [{variable: [], error: 1}]": "entry 1: variable: found an empty list",
    "errors: [{variable: t, source: [], error: 1}]": "entry 1: source: found an empty list",
    "errors: [{variable: t, source: 03743, error: 1}]": "entry 1: source: found 2019, expected text: quote it",
    "errors: [{variable: t, error: -1}]": "greater than 0",
    "errors: [{variable: t, error: .inf}]": "finite",
    "errors: [{variable: t, error: 1}, 1]": "entry 2: document: expected entries of the form",
    "- 1": "expected a list under 'errors'",
    "{errors: [], error: []}": "expected a list under 'errors'",
    "a: 2020-13-45": "expected YAML .*month must be in",
    "a: [": "expected YAML",
}


@pytest.mark.parametrize("text", WRONG)
def test_one_line_for_a_wrong_file_of_errors(tmp_path, text):
    path = tmp_path / "errors.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=WRONG[text]) as error:
        read_errors(path)
    assert str(error.value).startswith(f"{path}: ")
    assert len(str(error.value).splitlines()) == 1


def test_no_file_and_a_directory_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent: no such file"):
        read_errors(tmp_path / "absent")
    with pytest.raises(ValueError, match="found a directory, expected a file"):
        read_errors(tmp_path)


def test_errors_grow_with_the_two_thirds_power_of_the_spacing():
    """Kolmogorov: with nothing but representativeness, eight times the spacing is four times the variance."""
    given = table(obs_error=[1.5])
    assert inflate_errors(given, 800.0, share=1.0)["obs_error"].item() == pytest.approx(3.0)
    assert inflate_errors(given, 800.0, share=0.5)["obs_error"].item() == pytest.approx(1.5 * np.sqrt(2.5))
    assert inflate_errors(given, 50.0)["obs_error"].item() == 1.5
    with pytest.raises(ValueError, match="representativeness"):
        inflate_errors(given, -1.0)


def test_blocks_are_soundings_and_variables():
    given = table(
        variable=["t", "t", "u", "t", "t"], station=["a", "a", "a", "b", "a"], source=5 * ["s"],
        pressure=[85000.0, 50000.0, 85000.0, 85000.0, 50000.0], obs_error=5 * [1.0],
    )  # fmt: skip
    rows, correlations = sounding_blocks(given, depth=0.5, alone=0.2)
    assert [part.tolist() for part in rows] == [[0, 1, 4], [2], [3]]
    shared = 0.8 * (5 / 8.5) ** 2  # exp(−ln(850/500) / 0.5)
    np.testing.assert_allclose(correlations[0], [[1, shared, shared], [shared, 1, 0.8], [shared, 0.8, 1]])
    with pytest.raises(ValueError, match="depth"):
        sounding_blocks(given, 0.0)

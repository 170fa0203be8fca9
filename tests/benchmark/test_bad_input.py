"""Bad input to ``genda benchmark``: one line that names thing, found and expected, exit code 2, and not a file written."""

import re

import pytest
import yaml

from command_line import run

SUITE = {
    "kind": "toy",
    "suite": "small",
    "model": {"name": "lorenz96", "settings": {"size": 8}},
    "interval": 0.05,
    "error": 1.0,
    "start_error": 0.1,
    "turns": 30,
    "burn_in": 10,
    "block": 5,
    "seeds": [1],
    "reference": "EnKF",
    "methods": {"EnKF": {"method": "enkf", "members": 10}, "ETKF": {"method": "etkf", "members": 10}},
}
METHODS = SUITE["methods"]
PATH = r".*small\.yaml: "


def refused(capsys, tmp_path, path, *arguments):
    """What is said, after the checks that hold for all."""
    before = sorted(tmp_path.rglob("*"))
    code, out, err = run(capsys, "benchmark", path, "--runs", tmp_path / "runs", *arguments)
    assert (code, out) == (2, ""), err
    assert err.startswith("genda: ")
    assert len(err.strip().splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before
    return err


def written(tmp_path, **changes):
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SUITE | changes, sort_keys=False))
    return path


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"methods": METHODS | {"X": {"method": "magic"}}},
            r"methods\.X\.method: input should be 'climat.*found 'magic'",
        ),
        (
            {"methods": METHODS | {"X": {"member": 3}}},
            r"methods\.X\.member: unknown key, expected some of method, members",
        ),
        ({"methods": METHODS | {"X": {"method": "etkf"}}}, r"methods\.X: found 1 member, expected at least 2 for etkf"),
        ({"methods": METHODS | {"X": {"method": "etkf", "members": 0}}}, r"methods\.X\.members: .*found 0"),
        (
            {"methods": METHODS | {"X": {"method": "enkf", "members": 9, "radius": 3}}},
            r"methods\.X\.radius: unknown key for enkf, expected some of inflation, members, window",
        ),
        ({"methods": ["EnKF"]}, r"methods: expected entries of the form 'name: value', found \['EnKF'\]"),
        ({"tunrs": 12}, r"tunrs: unknown key, expected some of kind, suite, model"),
        ({"turns": "many"}, r"turns: input should be a valid integer.*found 'many'"),
        ({"error": float("inf")}, r"error: input should be less than or equal to 1000, found inf"),
        ({"quick": 3}, r"quick: expected entries of the form 'name: value', found 3"),
        ({"seeds": [1, 2, 1]}, r"seeds: found 1, 2, 1, expected each once"),
        ({"suite": "../elsewhere"}, r"suite: .*found '\.\./elsewhere'"),
        ({"reference": "nobody"}, r"reference: found 'nobody', expected one of EnKF, ETKF"),
        ({"kind": "moon"}, r"kind: .*found 'moon'"),
        ({"model": {"name": "earth"}}, r"model\.name: input should be 'lorenz63'.*found 'earth'"),
    ],
)
@pytest.mark.parametrize("quick", [(), ("--quick",)])
def test_what_a_suite_says_wrongly(capsys, tmp_path, changes, complaint, quick):
    assert re.match("genda: " + PATH + complaint, refused(capsys, tmp_path, written(tmp_path, **changes), *quick))


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        ({"name": "lorenz96", "settings": {"sise": 8}}, "model.settings: found sise, expected some of size, forcing"),
        ({"name": "lorenz96", "settings": {"size": 8.5}}, "model.settings.size: found 8.5, expected a whole number"),
        ({"name": "lorenz96", "settings": {"size": 2}}, "found 2 variables, expected at least 4"),
    ],
)
def test_settings_that_the_model_does_not_take(capsys, tmp_path, model, complaint):
    assert complaint in refused(capsys, tmp_path, written(tmp_path, model=model))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"kind: [toy\nsuite: }", "expected YAML, while parsing"),
        (b"\x89PNG\x80\x00", "expected YAML, found bytes that are no text"),
        (b"- a\n- b\n", "found list, expected keys and values"),
        (b"", "found NoneType, expected keys and values"),
    ],
)
def test_a_file_that_is_no_suite(capsys, tmp_path, content, complaint):
    path = tmp_path / "small.yaml"
    path.write_bytes(content)
    assert re.match("genda: " + PATH + complaint, refused(capsys, tmp_path, path))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--methods", "ETKF, Magic"), "methods: found no Magic, expected some of EnKF, ETKF"),
        (("--scenario", "5 %"), "scenarios: found no 5 %, expected none, the suite has none"),
        (("--dates", "3"), "dates: unknown key, expected some of kind, suite, model"),
        (("--methods", "ETKF,"), "methods: found an empty name, expected all or names separated by commas"),
        (("--out", "{}/nowhere/page.md"), "nowhere/page.md: found no folder .*nowhere, expected one to write to"),
        (("--out", "{}"), "found a folder, expected the name of a file to write"),
        (("--out", "{}/page.png"), "page.png: found the name of a picture, expected that of a Markdown page"),
        (("--runs", "{}/small.yaml"), "small.yaml: found a file, expected a folder to keep finished pairs in"),
    ],
)
def test_what_the_command_line_says_wrongly(capsys, tmp_path, arguments, complaint):
    given = [argument.format(tmp_path) for argument in arguments]
    assert re.search(complaint, refused(capsys, tmp_path, written(tmp_path), *given))


def test_a_scheduler_that_is_none(capsys, tmp_path):
    pytest.importorskip("distributed", reason="needs the extra dask")
    said = refused(capsys, tmp_path, written(tmp_path), "--dask", "nonsense")
    assert re.search("dask nonsense: found .*, expected an address such as tcp://host:8786", said)


def test_a_row_named_twice(capsys, tmp_path):
    path = written(tmp_path)
    path.write_text(path.read_text().replace("  ETKF:", "  EnKF:"))
    assert "expected YAML, found 'EnKF' twice" in refused(capsys, tmp_path, path)


def test_a_short_form_that_a_suite_lacks(capsys, tmp_path):
    assert "small.yaml: found no key quick" in refused(capsys, tmp_path, written(tmp_path), "--quick")


def test_a_folder_in_which_nothing_can_be_written(capsys, tmp_path):
    for option, place in (("--out", "/proc/page.md"), ("--runs", "/proc/runs")):
        assert "/proc: found no way to write there" in refused(capsys, tmp_path, written(tmp_path), option, place)


def test_a_damaged_pair_is_named_and_left(capsys, tmp_path):
    path = written(tmp_path, methods={"EnKF": METHODS["EnKF"]})
    assert run(capsys, "benchmark", path, "--runs", tmp_path / "runs")[0] == 0
    (pair,) = (tmp_path / "runs").rglob("*.npz")
    pair.write_bytes(pair.read_bytes()[:200])
    assert re.search(r"1\.npz: damaged .*expected a finished pair", refused(capsys, tmp_path, path))
    assert pair.stat().st_size == 200

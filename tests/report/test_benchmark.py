"""The picture of a benchmark puts every method at its ratio, in the order of the document, and says what a ratio of 1 means."""

import io
import json
import sys

import numpy as np
import pytest
from matplotlib.text import Text
from PIL import Image

from genda import report
from genda.commands import benchmark
from genda.report.benchmark import benchmark_figure
from genda.report.ranks import ranks_figure


def cell(mean, ratio, stderr):
    return {"mean": mean, "stderr": 0.1 * mean, "ratio": ratio, "ratio_stderr": stderr}


def row(method, ratio, channels=("z500", "q700", "q200"), **more):
    scores = {"rmse": {name: cell(8e-4, ratio, None if ratio == 1 else 0.02) for name in channels}}
    return {"method": method, "metrics": scores | {"nmse": {"all": cell(0.1, ratio**2, 0.01)}}, "failed": [], **more}


def document(rows):
    return {"suite": "sphere", "dates": 22, "reference": "background", "rows": rows}


ONE = document(
    [
        row("background", 1.0),
        row("3D-Var", 0.8),
        row("fusion", 0.3),
        {"method": "particle filter", "metrics": {}, "failed": ["diverged"] * 22},
        row("climatology", 1.7),
    ]
)
SEVERAL = document(
    [
        row(name, ratio + 0.1 * k * (ratio != 1), scenario=scenario)
        for k, scenario in enumerate(("10 %", "1 %", "0.5 %"))
        for name, ratio in (("background", 1.0), ("3D-Var", 0.8), ("fusion", 0.3))
    ]
)


ENSEMBLES = document(
    [
        row("background", 1.0, scenario="1 %"),
        row("LETKF", 0.8, scenario="1 %", ranks={"z500": [2.5, 0.25, 0.25, 0.25, 1.75], "q700": [1.0] * 5}),
        row("fusion", 0.8, scenario="1 %", ranks={"z500": [1.2, 0.9, 0.9]}),
        row("background", 1.0, scenario="2 %"),
        row("fusion", 0.7, scenario="2 %", ranks={"z500": [1.0, 1.0, 1.0]}),
    ]
)


def dots(ax):
    """Positions of the markers with whiskers, from the top down, and half lengths of the whiskers."""
    found = []
    for drawn in ax.containers:
        (x,), (y,) = drawn.lines[0].get_data()
        segments = drawn.lines[2][0].get_segments()[0] if drawn.lines[2] else [[x, y], [x, y]]
        found.append((y, x, (segments[1][0] - segments[0][0]) / 2))
    return sorted(found)


def words(figure):
    return " ".join(" ".join(text.get_text() for text in texts(figure)).split())


def texts(figure):
    return list({id(text): text for text in figure.findobj(Text)}.values())


def test_one_scenario_is_a_panel_a_channel_with_the_methods_in_order():
    figure = benchmark_figure(ONE)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["z500", "q700"]  # q200 is no headline
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == [
        "3D-Var",
        "fusion",
        "particle filter",
        "climatology",
    ]
    for ax in figure.axes:
        assert [x for _, x, _ in dots(ax)] == [0.8, 0.3, 1.7]
        np.testing.assert_allclose([length for *_, length in dots(ax)], 1.959964 * 0.02)
        assert ax.get_xlim()[0] < 0.3 - 0.04
        assert ax.get_xlim()[1] > 1.7 + 0.04
    said = words(figure)
    for part in ("RMSE / RMSE of background", "1 = 0.800 g kg⁻¹", "1 = 0.000800 m² s⁻²", "22 cases", "failed"):
        assert part in said


def test_toy_variables_are_drawn_without_units():
    rows = [row("background", 1.0, ("x", "y")), row("ETKF", 0.4, ("x", "y"))]
    figure = benchmark_figure(document(rows))
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["x", "y"]
    assert "1 = 0.000800" in words(figure)


def test_several_scenarios_are_lines_of_the_normalised_error():
    figure = benchmark_figure(SEVERAL)
    (ax,) = figure.axes
    lines = {drawn.get_label(): drawn.lines[0].get_data() for drawn in ax.containers}
    assert list(lines) == ["3D-Var", "fusion"]
    np.testing.assert_allclose(lines["fusion"][1], [0.3**2, 0.4**2, 0.5**2])
    np.testing.assert_allclose(np.round(lines["fusion"][0]), [0, 1, 2])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["10 %", "1 %", "0.5 %"]
    assert ax.get_ylabel() == "normalised MSE / reference's"


def test_lines_show_the_first_channel_where_there_is_no_normalised_error():
    rows = [{**r, "metrics": {"rmse": r["metrics"]["rmse"]}} for r in SEVERAL["rows"]]
    (ax,) = benchmark_figure(document(rows)).axes
    assert ax.get_ylabel() == "RMSE of z500 / reference's"


@pytest.mark.parametrize("drawn", [ONE, SEVERAL])
def test_no_word_overlaps_another_or_leaves_the_picture(drawn):
    """With long names, many methods and every headline channel."""
    names = ["fusion, MMPS, spherical base, 16 members, 32 steps", *(f"method {i}" for i in range(11))]
    channels = ("z500", "t850", "t2m", "u10", "v10", "u500", "v500", "q700", "msl")
    scenarios = list(dict.fromkeys(r.get("scenario") for r in drawn["rows"]))
    rows = []
    for scenario in scenarios:
        rows += [row("background", 1.0, channels, scenario=scenario)]
        rows += [row(name, 0.2 + 0.15 * k, channels, scenario=scenario) for k, name in enumerate(names)]
    figure = benchmark_figure(document(rows))
    figure.canvas.draw()
    boxes = [(t.get_text(), t.get_window_extent()) for t in texts(figure) if t.get_text().strip() and t.get_visible()]
    boxes = [(name, box) for name, box in boxes if box.width > 0]
    for name, box in boxes:
        assert box.x0 >= 0, name
        assert box.y0 >= 0, name
        assert box.x1 <= figure.bbox.x1, name
        assert box.y1 <= figure.bbox.y1, name
    for i, (name, box) in enumerate(boxes):
        for other, another in boxes[:i]:
            apart = (
                box.x1 <= another.x0 + 1
                or another.x1 <= box.x0 + 1
                or box.y1 <= another.y0 + 1
                or another.y1 <= box.y0 + 1
            )
            assert apart, (name, other)


def test_nothing_to_compare_is_no_picture():
    alone = document([row("background", 1.0)])
    assert report.benchmark_png(alone) is None
    with pytest.raises(ValueError, match="no score relative to background"):
        benchmark_figure(alone)


def test_the_page_shows_the_picture_beside_it_or_says_why_not(tmp_path, monkeypatch):
    page = tmp_path / "a page.md"
    assert benchmark._pictures(json.loads(json.dumps(ONE)), page) == (
        "![Errors relative to background](<a page.png>)\n\n"
    )
    assert benchmark._pictures(ENSEMBLES, page).endswith("![Rank histograms](<a page-ranks.png>)\n\n")
    for name in ("a page.png", "a page-ranks.png"):
        assert Image.open(io.BytesIO((tmp_path / name).read_bytes())).width > 400
    for name in [
        name for name in sys.modules if name.split(".")[0] == "matplotlib" or name == "genda.report.benchmark"
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "genda.report.style")
    said = benchmark._pictures(ONE, tmp_path / "none.md")
    assert "matplotlib" in said
    assert ".[plot]" in said
    assert not (tmp_path / "none.png").exists()


def test_rank_histograms_have_a_panel_an_ensemble_and_scenario():
    figure = ranks_figure(ENSEMBLES)
    letkf, none, first, second = figure.axes
    steps = [patch.get_data() for patch in letkf.patches]
    np.testing.assert_allclose([step.values for step in steps[:2]], [[2.5, 0.25, 0.25, 0.25, 1.75], [1.0] * 5])
    np.testing.assert_allclose(steps[2].values, [1.75, 0.625, 0.625, 0.625, 1.375])  # the mean of the channels
    np.testing.assert_allclose(steps[0].edges, np.linspace(0, 1, 6))
    assert not none.patches  # not run there
    assert letkf.get_ylim()[1] > 2.5
    assert first.get_ylim() == second.get_ylim()
    assert "background" not in words(figure)
    with pytest.raises(ValueError, match="sphere: found no ensemble, expected one for its rank histogram"):
        ranks_figure(ONE)


def test_a_method_far_beyond_the_others_is_named_instead_of_drawn():
    hopeless = [row("climatology", 4.0, scenario=scenario) for scenario in ("10 %", "1 %", "0.5 %")]
    figure = benchmark_figure(document(SEVERAL["rows"] + hopeless))
    drawn = [container.get_label() for container in figure.axes[0].containers]
    assert drawn == ["3D-Var", "fusion"]
    assert "Not drawn, more than 3 times the reference's: climatology." in words(figure)
    floor = [row("latent floor", 0.05, scenario=scenario) for scenario in ("10 %", "1 %", "0.5 %")]
    figure = benchmark_figure(document(SEVERAL["rows"] + floor))
    assert [container.get_label() for container in figure.axes[0].containers] == ["3D-Var", "fusion"]
    assert "Not drawn, less than 1/10 of every other's: latent floor." in words(figure)


def test_whiskers_of_two_cases_have_the_quantile_of_one_degree_of_freedom():
    few = document([row(name, ratio, samples=2) for name, ratio in (("background", 1.0), ("3D-Var", 0.8))])
    ((_, _, length),) = dots(benchmark_figure(few).axes[0])
    assert length == pytest.approx(12.706 * 0.02, rel=1e-4)

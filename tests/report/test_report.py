"""The page is whole, self-contained and says what the arrays say; figures put values where they belong."""

import io
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from genda import report
from genda.grid import LatLonGrid
from genda.report import ReportCase, maps, page, points, style, write_report
from genda.verify import RMSE

VOID = {"meta", "img", "br", "link", "input", "hr"}
CHANNELS = ("u500", "v500", "t2m", "q700")
GRID = LatLonGrid.gaussian(16, 32)


class Page(HTMLParser):
    """Checks nesting and collects what a page refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def ids(self) -> set[str | None]:
        return {attributes.get("id") for _, attributes in self.tags}


def fields(grid: LatLonGrid, *leading: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(*leading, len(CHANNELS), *grid.shape))
    return values * np.array([5.0, 5.0, 2.0, 1e-3])[:, None, None] + np.array([10.0, 0, 280, 4e-3])[:, None, None]


def table(n: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    observation = rng.normal(280, 5, n)
    return pd.DataFrame(
        {
            "time": np.datetime64("2001-01-01", "ns"),
            "latitude": rng.uniform(-80, 80, n),
            "longitude": rng.uniform(0, 360, n),
            "pressure": np.nan,
            "elevation": np.nan,
            "variable": "t2m",
            "observation": observation,
            "obs_error": 1.0,
            "station": [f"s{i % 20}" for i in range(n)],
            "source": "simulated",
            "quality": np.where(np.arange(n) % 10 == 0, 19, 0).astype(np.int16),
            "hx_b": observation + 2.0,
            "hx_a": observation - 1.0,
        }
    )


def full_case(grid: LatLonGrid = GRID, **changes: object) -> ReportCase:
    coarse = LatLonGrid.gaussian(4, 8)
    options = {
        "truth": fields(grid, seed=1),
        "background": fields(grid, seed=2),
        "baselines": {"bicubic <b>": fields(grid, seed=3), "ensemble": fields(grid, 3, seed=4)},
        "observations": table(),
        "withheld": table(40),
        "coarse": (fields(coarse, seed=5), coarse),
        "land_sea_mask": (np.arange(grid.shape[1]) < grid.shape[1] // 2) * np.ones(grid.shape),
        "std": np.array([5.0, 5.0, 2.0, 1e-3]),
        "settings": {"sampler": {"steps": 32}, "note": "a & b <script>alert(1)</script>"},
        "timings": {"sampling": 1.5},
        "display": ("u500",),
    }
    time = np.datetime64("2001-01-01T12")
    return ReportCase("A <case>", time, CHANNELS, grid, fields(grid, 4), **(options | changes))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    return write_report(full_case(), path).read_text(encoding="utf-8")


def test_page_is_well_formed_self_contained_and_free_of_nan(text: str) -> None:
    parsed = Page(text)
    assert parsed.open == []
    words = " ".join(parsed.words)
    for forbidden in ("http:", "https:", "<script", "@import", "url(", "javascript:"):
        assert forbidden not in text
    assert "nan" not in words.lower().split()
    links = {a[key] for _, a in parsed.tags for key in ("href", "src") if a.get(key)}
    assert all(
        link is not None and (link.startswith("data:image/png;base64,") or link[1:] in parsed.ids()) for link in links
    )
    assert "a & b <script>alert(1)</script>" in words  # as text
    assert len(text) < 4e6


def test_every_picture_has_words_and_every_section_a_heading(text: str) -> None:
    parsed = Page(text)
    images = [a for tag, a in parsed.tags if tag == "img"]
    assert len(images) > 15
    assert all(len(a["alt"] or "") > 20 for a in images)
    assert "nan" not in " ".join(a["alt"] or "" for a in images).lower().split()
    expected = {"scores", "maps", "spectra", "traces", "ranks", "stations", "observations", "settings", "provenance"}
    assert expected <= parsed.ids()


def test_page_tells_departures_and_flags(text: str) -> None:
    words = Page(text).words
    row = words[words.index("t2m [K]", words.index("RMSE ratio")) :][:7]
    assert row[1] == "36"  # 40 withheld less 4 flagged
    assert [float(cell.split(" ")[0]) for cell in row[2:7]] == pytest.approx([2.0, 1.0, 2.0, -1.0, 0.5])
    assert "background" in words
    assert "54" in words[words.index("Values by quality flag; 60 places; sources: simulated 60.") :]


def test_what_is_not_given_is_not_drawn(tmp_path: Path) -> None:
    case = ReportCase("bare", np.datetime64("2001-01-01"), CHANNELS, GRID, fields(GRID, 1), display=("t2m",))
    parsed = Page(write_report(case, tmp_path / "r.html").read_text(encoding="utf-8"))
    assert not {"scores", "ranks", "observations", "settings", "timings"} & parsed.ids()
    words = " ".join(a.get("alt") or "" for tag, a in parsed.tags if tag == "img")
    assert "truth" not in words
    assert "ackground" not in words
    assert "spread" not in words


@pytest.mark.parametrize("grid", [LatLonGrid.equiangular(9, 16), LatLonGrid.equiangular(8, 16)])
def test_other_grids_are_drawn(grid: LatLonGrid, tmp_path: Path) -> None:
    case = ReportCase("grid", np.datetime64("2001-01-01"), CHANNELS, grid, fields(grid, 2), display=("u500",))
    assert "wavenumber" in write_report(case, tmp_path / "r.html").read_text(encoding="utf-8")


def test_a_region_is_drawn_without_spectra(tmp_path: Path) -> None:
    grid = LatLonGrid(tuple(np.arange(60.0, 30, -3)), tuple(np.arange(0.0, 40, 3)))
    case = ReportCase("region", np.datetime64("2001-01-01"), CHANNELS, grid, fields(grid, 2), display=("u500",))
    assert "spectra" not in Page(write_report(case, tmp_path / "r.html").read_text(encoding="utf-8")).ids()


def test_a_failed_page_leaves_the_old_one_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "r.html"
    target.write_text("old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    monkeypatch.setattr(page, "render", lambda _: "new")
    with pytest.raises(OSError, match="disk full"):
        write_report(full_case(), target)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
    with pytest.raises(FileNotFoundError, match="report folder"):
        write_report(full_case(), tmp_path / "none" / "r.html")


def test_map_columns_stand_at_their_longitudes() -> None:
    """A spike at 90° E and one at 90° W are drawn there, and the date line has no gap."""
    case = full_case()
    values = np.zeros(GRID.shape)
    east, west = (int(np.argmin(np.abs(np.asarray(GRID.longitude) - lon))) for lon in (90, 270))
    values[:, east], values[:, west] = 1.0, -1.0
    figure = style.new_figure(4, 2)
    ax = figure.subplots()
    mesh = maps.draw_map(ax, maps.Panel("x", values, GRID, "field"), (-1, 1), "t2m", case.land_sea_mask, GRID)
    edges = np.asarray(mesh.get_coordinates())[0, :, 0]
    row = np.asarray(mesh.get_array()).reshape(GRID.shape[0], -1)[0]
    centres = 0.5 * (edges[1:] + edges[:-1])
    assert centres[row.argmax()] == pytest.approx(90)
    assert centres[row.argmin()] == pytest.approx(-90)
    assert edges[0] <= -180
    assert edges[-1] >= 180


def test_panels_share_scales_and_agree_with_the_score_table() -> None:
    case = full_case()
    drawn = {panel.title: panel for panel in maps.panels(case, "q700")}
    scores = case.score_table()
    assert scores is not None
    rmse = scores.score("analysis", RMSE)
    assert rmse is not None
    assert drawn["Analysis − truth"].note == f"RMSE {1e3 * rmse.mean[3]:.3g} g kg⁻¹"
    np.testing.assert_allclose(drawn["Background"].values, 1e3 * np.asarray(case.background)[3])
    pictures = maps.channel_maps(case, "q700")
    for kind in ("− truth", "spread"):
        scales = {p.alt.split("Colour scale")[1].split(" g kg")[0] for p in pictures if kind in p.caption}
        assert len(scales) == 1
    low, high = next(p.alt for p in pictures if "− truth" in p.caption).split("scale ")[1].split(" g")[0].split(" to ")
    assert float(low) == -float(high)


def test_scatter_states_errors_and_leaves_flagged_observations_out() -> None:
    with style.style():
        picture = points.scatter_picture(full_case(), table(), "assimilated")
    assert picture is not None
    assert "background RMSE 2, bias +2, analysis RMSE 1, bias -1 K, N = 54" in picture.alt


def test_overview_is_a_picture() -> None:
    image = Image.open(io.BytesIO(report.overview_png(full_case(), ("t2m",))))
    assert image.width > image.height > 200


def test_bad_cases_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"truth: found shape \(4, 16, 31\)"):
        full_case(truth=fields(GRID)[..., :31])
    broken = fields(GRID, 4)
    broken[0, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="baseline 'x': found a value that is not finite"):
        full_case(baselines={"x": broken})
    with pytest.raises(ValueError, match="display: found z500"):
        full_case(display=("z500",))
    with pytest.raises(ValueError, match="report's own"):
        full_case(baselines={"analysis": fields(GRID)})

"""One self-contained HTML page: figures, scores, settings, provenance. Nothing is fetched, nothing is executed.

The page is written whole or not at all.
"""

from __future__ import annotations

import html
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import genda
from genda.atomic import replacing
from genda.report import curves, judgement, maps, points, tables
from genda.report.case import ReportCase
from genda.report.style import Picture, label, style

_CSS = """
:root{color-scheme:light dark;--ink:#1a1c1f;--soft:#5b6168;--paper:#fff;--card:#f5f6f8;--line:#d9dce1;--link:#0b62a8}
@media(prefers-color-scheme:dark){:root{--ink:#e7e9ec;--soft:#a3abb5;--paper:#15181c;--card:#1f2329;--line:#343a42;--link:#7cc0ff}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0 auto;max-width:84rem;padding:1rem;background:var(--paper);color:var(--ink);
font:1rem/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
h1{font-size:1.6rem;line-height:1.2;margin:.3rem 0}
h2{font-size:1.25rem;margin:2.2rem 0 .5rem;padding-top:.6rem;border-top:1px solid var(--line)}
h3{font-size:1.05rem;margin:1.2rem 0 .4rem}
p{max-width:62rem;margin:.4rem 0}
a{color:var(--link)}
nav ul{display:flex;flex-wrap:wrap;gap:.3rem 1rem;padding:0;margin:.8rem 0;list-style:none}
.facts{color:var(--soft)}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,20rem),1fr));gap:.8rem;align-items:start}
.wide{overflow-x:auto;width:fit-content;max-width:100%;margin:.6rem 0}
.wide img{max-width:none;width:auto;height:21rem}
figure{margin:0;padding:.35rem;background:#fff;border:1px solid var(--line);border-radius:.4rem}
figure img{display:block;width:100%;height:auto}
figcaption{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.scroll{overflow-x:auto;max-width:100%}
table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums;margin:.4rem 0}
th,td{padding:.22rem .65rem;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
thead th{border-bottom:2px solid var(--line);vertical-align:bottom}
th:first-child{text-align:left;position:sticky;left:0;background:var(--paper)}
td.text{text-align:left;white-space:normal;overflow-wrap:anywhere}
caption{text-align:left;color:var(--soft);padding:.2rem 0;font-size:.88rem}
details{margin:.5rem 0}
summary{cursor:pointer;font-weight:600}
footer{margin-top:2rem;color:var(--soft);font-size:.85rem;border-top:1px solid var(--line);padding-top:.6rem}
@media print{figure{break-inside:avoid}}
"""


def write_report(case: ReportCase, path: str | Path) -> Path:
    """Draw a case and write its page.

    Args:
        case: what to show.
        path: the HTML file; its folder must exist.

    Returns:
        the path written.

    Raises:
        FileNotFoundError: where the folder does not exist.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"report folder {target.parent}: not found")
    text = render(case)
    with replacing(target) as partial:
        partial.write_text(text, encoding="utf-8")
    return target


def render(case: ReportCase) -> str:
    """The page as text."""
    with style():
        sections = [s for s in _sections(case) if s[2]]
    links = "".join(f'<li><a href="#{key}">{html.escape(title)}</a></li>' for key, title, _ in sections)
    body = "".join(
        f'<section id="{key}" aria-labelledby="{key}-h"><h2 id="{key}-h">{html.escape(title)}</h2>{content}</section>'
        for key, title, content in sections
    )
    title = html.escape(case.title)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{_CSS}</style></head><body>"
        f"<header><h1>{title}</h1><p class='facts'>{_facts(case)}</p>"
        f"<nav aria-label='Sections'><ul>{links}</ul></nav></header><main>{body}</main>"
        f"<footer><p>Written by genda {html.escape(genda.__version__)}.</p></footer></body></html>\n"
    )


def _sections(case: ReportCase) -> Iterable[tuple[str, str, str]]:
    table = case.score_table()
    if table is not None:
        drawn = [judgement.comparison_picture(table), judgement.spread_skill_picture(table)]
        yield "scores", "Scores", tables.summary(case, table) + "".join(_figure(p, wide=True) for p in drawn if p)
    yield "maps", "Maps", _maps(case)
    spectra = [curves.spectrum_picture(case, quantity) for quantity in curves.quantities(case)]
    note = "<p>Power by total wavenumber on a sphere. "
    note += "The shaded band of the lower panel is ±10 % of the truth. " if case.truth is not None else ""
    note += "Dotted lines mark where the grid stops resolving without aliasing"
    note += " and where the coarse input ends.</p>" if case.coarse is not None else ".</p>"
    yield "spectra", "Spectra", note + _grid(spectra) if spectra else ""
    traces = [curves.trace_picture(case, name) for name in case.displayed]
    yield "traces", "Along latitudes", _grid(traces)
    ranks = judgement.rank_picture(case)
    yield "ranks", "Rank of the truth", _grid([ranks]) if ranks else ""
    yield "stations", "Stations", _stations(case)
    yield "observations", "Observations", tables.observation_counts(case)
    yield "all-scores", "All scores", tables.every_score(table) if table is not None else ""
    yield "settings", "Settings", tables.mapping(case.settings) if case.settings else ""
    yield "timings", "Timings", tables.timings(case.timings) if case.timings else ""
    yield "provenance", "Provenance", tables.mapping({**case.provenance, **_versions()})


def _maps(case: ReportCase) -> str:
    note = (
        "<p>Maps of one variable share one colour scale for all fields, one symmetric scale for all differences and one "
        "from zero for spread; half a per cent of the points may lie beyond each end. "
        + ("Lines are the edge of the land–sea mask as the model holds it." if case.land_sea_mask is not None else "")
        + "</p>"
    )
    parts = [note]
    for name in case.displayed:
        title = label(name)
        parts.append(f"<h3>{html.escape(title[:1].upper() + title[1:])}</h3>" + _grid(maps.channel_maps(case, name)))
    return "".join(parts)


def _stations(case: ReportCase) -> str:
    pictures: list[Picture | None] = [points.station_map(case)]
    for where, observations in (("withheld", case.withheld), ("assimilated", case.observations)):
        if observations is not None:
            pictures.append(points.scatter_picture(case, observations, where))
    return tables.withheld(case) + _grid([p for p in pictures if p is not None])


def _facts(case: ReportCase) -> str:
    nlat, nlon = case.grid.shape
    members = len(case.members)
    facts = [
        f"<time>{html.escape(str(pd.Timestamp(case.time)))} UTC</time>",
        f"{members} member{'s' if members != 1 else ''}",
        f"{len(case.channels)} channels",
        f"{nlat}×{nlon} grid",
    ]
    if case.observations is not None:
        used = int((case.observations["quality"] == 0).sum())
        facts.append(f"{used:,} of {len(case.observations):,} observations passed quality control")
    if case.withheld is not None:
        facts.append(f"{len(case.withheld):,} withheld")
    return " · ".join(facts)


def _figure(picture: Picture, wide: bool = False) -> str:
    image = (
        f'<img src="{picture.data_uri}" width="{picture.width}" height="{picture.height}" loading="lazy" '
        f'alt="{html.escape(picture.alt)}">'
    )
    kind = ' class="wide" tabindex="0"' if wide and picture.width > 1.4 * picture.height * 1.5 else ""
    return f"<figure{kind}>{image}<figcaption>{html.escape(picture.caption)}</figcaption></figure>"


def _grid(pictures: Sequence[Picture]) -> str:
    return f'<div class="grid">{"".join(_figure(p) for p in pictures)}</div>' if pictures else ""


def _versions() -> Mapping[str, object]:
    return {
        "genda": genda.__version__,
        "Python": platform.python_version(),
        "PyTorch": torch.__version__,
        "NumPy": np.__version__,
    }

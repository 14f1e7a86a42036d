"""The report is one page that needs no network, whatever the search has or lacks; what comes from strangers stays text."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from test_search_hunt import LONGER, SHORT, started

from optlang.cli import main
from optlang.rules import Rule
from optlang.search.evolution.settings import WITH_BASELINES
from optlang.search.report import ReportData, from_store, page, render
from optlang.search.report.charts import curves, scatter
from optlang.search.report.data import Ancestor, CurvePoint, Ranked
from optlang.search.report.page import equations
from optlang.search.store.database import Store
from optlang.search.store.found import Found
from optlang.search.training.levels import Point

LIBRARY = sorted(p.stem for p in (Path(__file__).parent.parent / "library").rglob("*.opt") if p.stem != "std")
BROWSER = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
EVIL = '<script>alert("x")</script>&amp;\'"'


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search with baselines and a funnel."""
    path = tmp_path_factory.mktemp("report") / "run.db"
    with started(path, children=1200, plans=WITH_BASELINES, funnel=(SHORT, LONGER), validate_every=1) as run:
        list(run)
        list(run.promote())
    return path


class Tags(HTMLParser):
    """Every tag with its attributes; unclosed ones are left on the stack."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "path", "circle", "mspace"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("path", "circle", "mspace"):
            assert self.open.pop() == tag


def checked(text: str) -> Tags:
    """A page that is well formed, and fetches and runs nothing."""
    tags = Tags(text)
    assert not tags.open
    assert not {tag for tag, _ in tags.seen} & {"script", "link", "img", "iframe", "object"}
    for _, attributes in tags.seen:
        assert not any(name.startswith("on") or name in ("src", "action") for name in attributes)
        assert (attributes.get("href") or "data:text/plain").startswith("data:text/plain"), "files are in the page itself"
    assert not re.search(r"url\(|@import", text)
    assert len(text) < 2_000_000
    return tags


def test_a_search_with_everything(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "report", str(store), "-o", str(tmp_path / "report.html")]) == 0
    text = (tmp_path / "report.html").read_text()
    checked(text)
    for title in ("Fitness over time", "The best rule", "Meta-validation", "Funnel", "Screening", "Fitness against size", "Hall of fame",
                  "How it was made"):  # fmt: skip
        assert f"<h2>{title}</h2>" in text, title
    for branch in ("evolution", "random", "constants"):
        assert f">{branch}</text>" in text
    assert "<math" in text and "rule Found" in text
    files = re.findall(r'<a download="(Found\d+)\.opt" href="data:text/plain;charset=utf-8,([^"]+)">', text)
    assert len(files) > 1 and all(Rule(unquote(rule)).name == name for name, rule in files)


def test_the_data_are_those_of_the_store(store: Path) -> None:
    with Store.read(store) as kept:
        data = from_store(kept)
        [(trained,)] = kept.query("SELECT count(*) FROM genomes WHERE branch = 'evolution'")
    assert data.curves["evolution"][-1].fitness == data.hall[0].found.fitness == max(f.fitness for f in data.front)
    assert [row.level.name for row in data.funnel] == ["search", "validation"]
    assert data.funnel[0].entered == trained
    with Store.read(store) as kept:
        beside = dict(kept.query("SELECT number, fitness FROM assessments WHERE branch = 'evolution' AND level = 'validation'"))
    best = data.hall[0].found
    assert data.funnel[0].winner == data.funnel[0].best == (best.fitness, best.error)
    assert data.funnel[1].winner is not None and data.funnel[1].seed is not None
    assert (data.funnel[1].winner[0], data.funnel[1].seed[0]) == (beside[best.number], beside[1])
    assert data.funnel[0].leader == best.name and f"{best.name} {best.fitness:.4f} ± {best.error:.4f}</td>" in render(data)
    assert f"On validation, with other tasks and seeds, it has {beside[best.number]:.4f} ±" in render(data)
    assert f"as the best of {trained:,} programs" in render(data)
    assert "Other tasks and seeds have not been asked about it." in render(replace(data, funnel=data.funnel[:1]))
    assert data.lineage[0].change == "seed" and data.lineage[-1].number == data.hall[0].found.number
    assert data.trained >= trained - 1
    for ranked in data.hall:
        Rule(ranked.rule)


EMPTY = ReportData("run.db", SHORT, 0, 0, 0, 0.0, {}, {})


def test_a_search_that_has_only_begun() -> None:
    text = render(EMPTY)
    checked(text)
    assert "Nothing has been trained yet." in text
    text = render(replace(EMPTY, curves={"evolution": (CurvePoint(0, 1.0),)}))
    checked(text)
    assert "No baselines were run beside it." in text


def test_text_of_strangers_stays_text() -> None:
    found = Found(EVIL, 3, 1.0, 0.1, 2, 1, EVIL, 0.1)
    evil = replace(
        EMPTY, name=EVIL, curves={EVIL: (CurvePoint(0, 1.0), CurvePoint(5, 2.0)), "evolution": (CurvePoint(0, 1.0),)},
        screening={EVIL: dict.fromkeys(("seen", "merged", "rejected", "passed", "seconds"), 1.0)}, front=(found,),
        hall=(Ranked(found, EVIL, r"\begin{aligned}" + "\n" + r"x &= 1 \\" + "\n" + r"\end{aligned}"),),
        lineage=(Ancestor(1, EVIL, 0.0, (), (EVIL,)), Ancestor(2, EVIL, 0.0, (EVIL,), ())), settings={EVIL: EVIL}, versions={EVIL: EVIL},
    )  # fmt: skip
    told = {"name": EVIL, "outcome": "rejected", "program": None, "fitness": None, "error": None, "status": "", "reason": EVIL}
    taken = {**told, "outcome": "trained", "program": 3, "fitness": 1.0, "error": 0.5, "status": EVIL}
    evil = replace(evil, proposals=(taken, told))
    text = render(evil)
    assert "2 rules came from outside: 1 were new" in text and "1 were not taken" in text
    checked(text)
    assert "<script" not in text and text.count("&lt;script&gt;") > 8


def test_finals_are_shown() -> None:
    place = {"rule": EVIL, "score": 0.5, "low": 0.4, "high": 0.6, "profile": [0.5] * 61, "times": {EVIL: None, "b": 120.0}}
    ending = {"rule": EVIL, "task": EVIL, "loss": 0.25, "error": 0.01, "settings": {}}
    text = render(replace(EMPTY, finals={"standings": [place], "workloads": [EVIL, "b"], "endings": [ending], "trials": 8}))
    checked(text)
    assert "Against known rules" in text and ">missed<" in text and "0.400 to 0.600" in text and "0.2500 ± 0.0100" in text
    assert "less AdamW's" not in text


def test_ends_are_compared_seed_by_seed() -> None:
    """Where each seed's loss is known; who diverged has none."""
    ends = [{"rule": name, "task": "a", "loss": loss, "error": 0.01, "settings": {}, "losses": losses} for name, loss, losses in (
        ("adamw", 0.3, [0.2, 0.4]), ("lost", 1e30, []), ("mine", 0.25, [0.1, 0.4]))]  # fmt: skip
    text = render(replace(EMPTY, finals={"standings": [], "workloads": [], "endings": ends, "trials": 8}))
    rows = re.findall(r"<td class=words>(\w+)</td><td class=words>a</td><td>[^<]*</td><td>([^<]*)</td>", text)
    assert rows == [("mine", "-0.0500 (-0.6853 to +0.5853)"), ("adamw", "–"), ("lost", "–")]


def test_a_chart_has_adamw_to_compare_with() -> None:
    lines = {"evolution": (CurvePoint(0, 1.0), CurvePoint(5, 2.0))}
    assert ">tuned AdamW</text>" in render(replace(EMPTY, curves=lines, level=replace(SHORT, measure="speed")))
    assert "tuned AdamW</text>" not in render(replace(EMPTY, curves=lines)), "by the loss there is no such height"
    far = {"evolution": (CurvePoint(0, 3.0), CurvePoint(5, 4.0))}
    assert "tuned AdamW</text>" not in render(replace(EMPTY, curves=far, level=replace(SHORT, measure="speed")))


def test_overfitting_is_marked() -> None:
    points = (Point(1, 1.0, 1.0), Point(2, 2.0, 2.0), Point(3, 3.0, 1.0))
    text = render(replace(EMPTY, points=points, overfits_from=1))
    assert "overfitting begins" in text and "The search has begun to overfit" in text.replace("the search", "The search")
    text = render(replace(EMPTY, points=points))
    assert "no onset of overfitting was seen" in text and "at the end 3.00 and 1.00" in text


@pytest.mark.parametrize("name", LIBRARY)
def test_equations_of_every_rule(name: str) -> None:
    text = equations(Rule(name).latex())
    assert text.count("<math") >= 1
    tags = Tags(text)
    assert not tags.open
    assert not re.search(r"\\[a-z]{2,}", re.sub(r"<annotation.*?</annotation>", "", text)), "a command that was not understood"


def test_charts_of_odd_values() -> None:
    for lines in ({"a": [(0.0, 0.0)]}, {"a": [(0.0, 1e-30), (1.0, -1e30)]}, {"a": [(5.0, 2.0), (5.0, 2.0)], "b": []}):
        checked(curves(lines, "x", "y"))
    checked(curves({"a": [(0.0, float("-inf")), (1.0, 1.0)]}, "x", "y"))
    alone = curves({"a": [(1_706_890.0, 1.5)]}, "x", "y")
    ticks = re.findall(r'class="tick">([^<]+)<', alone)
    assert alone.count("<circle") == 1 and len(set(ticks)) == len(ticks), "a point alone is drawn, with ticks that differ"
    checked(scatter([(1.0, 2.0, EVIL)], "x", "y"))


def test_names_of_points_lie_on_no_point_and_no_name() -> None:
    text = scatter([(float(n), 2.0 + n / 1000, f"Found{n}") for n in range(10, 26)], "statements", "fitness")
    points = [(float(a), float(b)) for a, b in re.findall(r'<circle cx="([^"]+)" cy="([^"]+)"', text)]
    names = [(float(a), float(b)) for a, b in re.findall(r'<text x="([^"]+)" y="([^"]+)">Found', text)]
    assert len(points) == 16 and 4 <= len(names) <= 16
    for left, base in names:
        assert not any(left < a < left + 60 and base - 10 < b < base for a, b in points)
        assert sum(abs(left - a) < 60 and abs(base - b) < 12 for a, b in names) == 1


def test_in_a_browser(store: Path, tmp_path: Path) -> None:
    """Opened and looked at: it is drawn, nothing is wider than the window, and nothing is fetched."""
    if BROWSER is None:
        pytest.skip("there is no Chromium here to look at the page with")
    with Store.read(store) as kept:
        probe = ("<script>addEventListener('load', () => { document.title = [document.documentElement.scrollWidth <= innerWidth, "
                 "document.querySelectorAll('svg').length, performance.getEntriesByType('resource').length, "
                 "[...document.querySelectorAll('svg')].every(s => s.getBBox().width > 300)].join(' ') })</script>")  # fmt: skip
        (tmp_path / "page.html").write_text(page(kept).replace("</head>", f"{probe}</head>"))
    for width in (1100, 500):
        command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
                   "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / str(width)}", f"--window-size={width},900",
                   "--dump-dom", (tmp_path / "page.html").as_uri()]  # fmt: skip
        shown = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True).stdout
        fits, charts, fetched, drawn = re.findall(r"<title>(.*?)</title>", shown)[0].split()
        assert (fits, fetched, drawn) == ("true", "0", "true"), width
        assert int(charts) == 3

"""The report: one file, every figure in it, no claim beyond the intervals, whatever the names hold."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from typing import Any

import msgspec
import numpy as np
import pytest

from reasonembed.evaluate.compare import Interval
from reasonembed.evaluate.facts import duration, machine_facts
from reasonembed.evaluate.report import ReportData, render_report, stage_row, text_table, write_report
from reasonembed.evaluate.tables import findings, outcome, p_value, signed
from reasonembed.manifest import Calls, Manifest

VOID = {"meta", "link", "img", "br", "hr", "source", "wbr", "input"}
HOSTILE = '\x00\x1b[31m$\\frac{$ <script>alert("x")</script>&amp; "\'>\udcff _a_ ' + "語" * 40


class Page(HTMLParser):
    """What a browser would see: text, references, pictures; nesting is checked on the way."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            if tag == "p":
                assert "p" not in self.open
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "title"):
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    def headings(self) -> list[str | None]:
        return [attrs["id"] for attrs in self.all("h2")]


def score(mean: float, difference: tuple[float, float, float, float] | None = None, **domains: float) -> dict:
    cell: dict[str, Any] = {"mean": mean, "low": mean - 0.0512, "high": mean + 0.0487}
    if domains:
        cell["per_domain"] = domains
    if difference:
        cell["vs_base"] = dict(zip(("difference", "low", "high", "p"), difference, strict=True))
    return cell


RESULTS = {
    "bm25": {
        "nDCG@10": score(0.2031, (-0.1871, -0.2213, -0.1502, 0.0001), biology=0.1834, pony=0.2228),
        "Recall@10": score(0.3111, (-0.2, -0.25, -0.15, 0.0001), biology=0.3, pony=0.3222),
    },
    "base": {
        "nDCG@10": score(0.3902, (0.0, 0.0, 0.0, 1.0), biology=0.4011, pony=0.3793),
        "Recall@10": score(0.5111, (0.0, 0.0, 0.0, 1.0), biology=0.5, pony=0.5222),
    },
    "ri-infonce": {
        "nDCG@10": score(0.4346, (0.0444, 0.0123, 0.0765, 0.0042), biology=0.4567, pony=0.4125),
        "Recall@10": score(0.5198, (0.0087, -0.0116, 0.0293, 0.412), biology=0.52, pony=0.5196),
    },
}


def step(number: int, epoch: int, intensity: float | None) -> dict[str, Any]:
    record = {"step": number, "epoch": epoch, "domain": "pony", "loss": 9.0, "mean_loss": 3.0 / number,
              "tokens": 1200, "seconds": 0.5}  # fmt: skip
    if intensity is not None:
        record["intensities"] = {"a": intensity, "b": 5.0, "c": 1.0}
    return record


SCORED = {
    "bm25": {("biology", "b1"): 0.75, ("biology", "b2"): 0.0, ("pony", "7"): 0.5},
    "base": {("biology", "b1"): 0.25, ("biology", "b2"): 1.0, ("pony", "7"): 0.5},
    "ri-infonce": {("biology", "b1"): 0.25, ("biology", "b2"): 1.0, ("pony", "7"): 0.5},
}
TEXTS = {("biology", "b1"): "Why do\nleaves fall?", ("biology", "b2"): "word " * 100, ("pony", "7"): "never shown"}


def full() -> ReportData:
    return ReportData(
        title="A report",
        summary="What was done.",
        results=RESULTS,
        facts={"Date": "2025-11-24", "Hardware": "two cores"},
        protocols={name: f"benchmark: pocket, 84 queries\nsystem: {name}-model" for name in RESULTS},
        notes=["108 of 324 sources are relevant to some test query."],
        train_logs={"infonce": [step(1, 0, None), step(2, 1, None)],
                    "ri-infonce": [step(1, 0, 0.75), step(2, 1, 1.25)]},
        train_configs={"ri-infonce": {"temperature": 0.02, "lora": {"rank": 32}, "bf16": False}},
        validations={"ri-infonce": [{"step": place, "score": (0.25, 0.5, 0.375)[place]} for place in range(3)]},
        grades={1: 1600, 2: 131, 3: 412, 5: 77},
        positives_per_query=[1, 3, 3, 8],
        negatives_per_query=[40, 41, 43, 52],
        overlaps={"source": [0.1, 0.2, 0.3], "positives": [0.017, 0.117], "negatives": [0.0]},
        stages=[
            {"domain": "pony", "stage": "select", "in": 52, "out": 27, "dropped": {"too_short": 2, "off": 23},
             "calls": 50, "seconds": 61.0},
            {"domain": "aops", "stage": "select", "in": 1000, "out": 997, "dropped": {"too_short": 3},
             "calls": 990, "seconds": 64.0},
            {"domain": "pony", "stage": "mine", "in": 27, "out": 27, "dropped": {}, "calls": 0,
             "seconds": 0.2},
        ],
        scored=SCORED,
        texts=TEXTS,
        domain_intervals={"bm25": {"biology": Interval(0.1834, 0.1, 0.2991), "pony": Interval(0.2228, 0.1, 0.3)}},
    )  # fmt: skip


@pytest.fixture(scope="module")
def html() -> str:
    return render_report(full())


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_the_report_holds_every_figure_that_it_was_given(page):
    for of_system in RESULTS.values():
        for cell in of_system.values():
            shown = [cell["mean"], *cell["per_domain"].values()]
            assert all(f"{100 * value:.1f}" in page.text for value in shown)
            assert f"{100 * cell['low']:.1f} to {100 * cell['high']:.1f}" in page.text
    assert "+4.4 +1.2 to +7.6 0.004" in page.text
    assert "−18.7 −22.1 to −15.0 <0.001" in page.text
    assert "+0.9 −1.2 to +2.9 0.412" in page.text
    # synthesis is summed over domains, reasons too
    assert "select 1,052 1,024 23 off, 5 too_short 1,040 2 min 05 s" in page.text
    assert "mine 27 27 none 0 0.2 s" in page.text
    # grades in the picture's description; overlap as percentiles; training in a table
    alts = " ".join(picture["alt"] or "" for picture in page.all("img"))
    assert "grade 1: 1,600, grade 2: 131, grade 3: 412, grade 4: 0, grade 5: 77" in alts
    assert "2,220 pairs" in page.text and "22.0 % are positives" in page.text
    assert "positives per query: median 3, 1 to 8; negatives per query: median 42, 40 to 52" in alts
    assert "its positives 2 0.022 0.042 0.067 0.092 0.112" in page.text
    assert "ri-infonce 2 3.000 1.500 2,400 1.0 s" in page.text
    assert "33.3 % of the values are clipped" in page.text
    assert "temperature 0.02" in page.text and "lora rank 32" in page.text and "bf16 no" in page.text
    for text in ("A report", "What was done.", "two cores", "108 of 324", "bm25-model", "84 queries"):
        assert text in page.text


def test_what_all_protocols_share_is_said_once(page):
    assert page.text.count("benchmark: pocket, 84 queries") == 1
    assert page.text.count("system: ") == 3


def test_it_is_one_file_that_refers_to_nothing_outside_and_runs_nothing(html, page):
    for tag, attrs in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form")
        assert not [name for name in attrs if name.startswith("on") or name == "style"]
        for name in ("src", "srcset", "href", "action", "data", "poster"):
            if name in attrs:
                assert re.match(r"#|data:image/svg\+xml;base64,", attrs[name] or ""), (tag, name)
    assert "url(" not in html and "@import" not in html


def test_tables_and_pictures_can_be_read_without_seeing_them(page):
    pictures = page.all("img")
    assert pictures and all(len(picture["alt"] or "") > 20 for picture in pictures)
    assert all(attrs.get("scope") in ("col", "row") for attrs in page.all("th"))
    assert len(page.all("table")) == len(page.all("caption")) > 0
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert [attrs["href"] for attrs in page.all("a")] == [f"#{heading}" for heading in page.headings()]


def test_each_picture_comes_in_two_widths_as_whole_images(page):
    sources, pictures = page.all("source"), page.all("img")
    assert len(sources) == len(pictures) == 9
    for wide, narrow in zip(pictures, sources, strict=True):
        widths = [svg_of(uri).get("width", "") for uri in (wide["src"], narrow["srcset"])]
        assert float(widths[0].removesuffix("pt")) > 2 * float(widths[1].removesuffix("pt"))


def svg_of(uri: str | None) -> ElementTree.Element:
    return ElementTree.fromstring(base64.b64decode((uri or "").split(",", 1)[1]))


def test_the_plot_by_domain_shows_every_score_where_it_belongs(page):
    svg = svg_of(page.all("img")[0]["src"])
    texts = ["".join(node.itertext()) for node in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert set(texts) >= {"biology", "pony", *RESULTS}


def test_queries_that_changed_stand_with_their_texts_under_the_system_that_changed_them(page):
    assert "bm25 1 higher, 1 lower, 1 equal; ri-infonce 0 higher, 0 lower, 3 equal" in page.text
    assert "biology b1 25.0 75.0 +50.0 Why do leaves fall?" in page.text
    assert "biology b2 100.0 0.0 −100.0 " + "word " * 47 + "word …" in page.text
    assert "never shown" not in page.text and "ri-infonce against base: the 10 largest" not in page.text


def test_the_scatter_has_a_panel_for_each_system_and_a_mark_for_each_pair_of_scores(page):
    svg = next(svg_of(image["src"]) for image in page.all("img") if "Scatter" in (image["alt"] or ""))
    texts = ["".join(node.itertext()) for node in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert {"bm25", "ri-infonce"} <= set(texts) and "base" not in texts
    space = "{http://www.w3.org/2000/svg}"
    groups = [node for node in svg.iter(space + "g") if "PathCollection" in node.get("id", "")]
    drawn = [len(list(group.iter(space + "use"))) or len(group.findall(space + "path")) for group in groups]
    assert drawn == [1, 1, 1, 0, 0, 3]  # bm25: one higher, one lower, one equal; ri-infonce: three equal


def test_intervals_by_domain_stand_in_a_table(page):
    assert "biology 10.0 to 29.9" in page.text and "Lines are confidence intervals" in page.text


def test_p_values_corrected_for_their_number_are_shown_where_there_are_several():
    results = {name: {m: dict(cell) for m, cell in cells.items()} for name, cells in RESULTS.items()}
    for cells in results.values():
        for cell in cells.values():
            cell["vs_base"] = cell["vs_base"] | {"p_holm": min(1.0, 2 * cell["vs_base"]["p"])}
    text = Page(render_report(ReportData(title="t", results=results))).text
    assert "+4.4 +1.2 to +7.6 0.004 0.008" in text and "corrected for the 2 systems compared" in text
    head, _, *lines = [line.split()[-2:] for line in text_table(results, ["nDCG@10"]).splitlines()]
    assert head == ["p,", "Holm"] and lines == [["<0.001", "<0.001"], ["-", "-"], ["0.004", "0.008"]]
    alone = {name: results[name] for name in ("base", "ri-infonce")}
    assert "Holm" not in text_table(alone)


BARE = ReportData(title="t", results={"bm25": {"nDCG@10": score(0.5)}})


@pytest.mark.parametrize(
    ("field", "anchors"),
    [
        ("train_logs", ["intensity", "training"]),
        ("train_configs", ["training"]),
        ("validations", ["training"]),
        ("grades", ["grades"]),
        ("positives_per_query", ["grades"]),
        ("negatives_per_query", ["grades"]),
        ("overlaps", ["overlap"]),
        ("stages", ["synthesis"]),
        ("notes", []),
        ("scored", ["queries"]),
    ],
)
def test_a_section_appears_with_its_data_alone(field, anchors):
    page = Page(render_report(msgspec.structs.replace(BARE, **{field: getattr(full(), field)})))
    assert page.headings() == ["results", *anchors]
    assert len(page.text) > len(Page(render_report(BARE)).text)


def test_title_and_results_are_enough():
    small = Page(render_report(BARE))
    assert small.headings() == ["results"]
    assert "bm25 scores 50.0 points." in small.text and "gainst" not in small.text.split("All scores")[0]


def test_results_without_a_system_are_refused():
    with pytest.raises(ValueError, match="nothing to report"):
        render_report(ReportData(title="t", results={}))


def test_hostile_text_is_shown_and_never_obeyed():
    results = {HOSTILE: {HOSTILE: score(0.5, (0.1, 0.05, 0.2, 0.01), **{HOSTILE: 0.5})}}
    key = (HOSTILE, HOSTILE)
    data = ReportData(
        title=HOSTILE, summary=HOSTILE, results=results, base=HOSTILE + "2", facts={HOSTILE: HOSTILE},
        protocols={HOSTILE: HOSTILE}, notes=[HOSTILE], train_logs={HOSTILE: [step(1, 0, 1.0)]},
        scored={HOSTILE: {key: 0.5}, HOSTILE + "2": {key: 0.25}}, texts={key: HOSTILE},
        domain_intervals={HOSTILE: {HOSTILE: Interval(0.5, 0.4, 0.6)}},
        train_configs={HOSTILE: {HOSTILE: HOSTILE}}, overlaps={HOSTILE: [0.1]},
        stages=[{"domain": HOSTILE, "stage": HOSTILE, "in": 1, "out": 0, "dropped": {HOSTILE: 1}, "calls": 0,
                 "seconds": 0.0}],
    )  # fmt: skip
    html = render_report(data)
    page = Page(html)
    assert not page.all("script") and not re.search("[\x00\x1b\ud800-\udfff]", html)
    assert page.text.count('[31m$\\frac{$ <script>alert("x")</script>&amp; "') >= 12
    for picture in page.all("img"):
        svg_of(picture["src"])


def test_equal_data_gives_equal_bytes_and_the_file_is_utf8(tmp_path, html):
    path = tmp_path / "deep" / "report.html"
    write_report(path, full())
    assert path.read_text(encoding="utf-8") == html
    assert sorted(found.name for found in path.parent.iterdir()) == ["report.html", "report.md"]


def test_drawing_leaves_matplotlib_as_it_was():
    import matplotlib

    before = matplotlib.rcParams.copy()
    render_report(msgspec.structs.replace(BARE, grades={1: 1}))
    assert matplotlib.rcParams.copy() == before


@pytest.mark.parametrize("steps", [1, 2, 500])
def test_trainings_of_any_length_and_a_loss_that_broke_can_be_drawn(steps):
    rng = np.random.default_rng(0)
    log = [step(number, 3, float(rng.uniform(0, 5))) for number in range(1, steps + 1)]
    log.append({"step": steps + 1, "epoch": 3, "loss": None, "intensities": {"a": None}})
    page = Page(render_report(msgspec.structs.replace(BARE, train_logs={"x": log, "broken": log[-1:]})))
    assert f"{3 * steps:,} values over {steps:,} steps" in page.text
    assert "broken" not in page.text and page.headings() == ["results", "intensity", "training"]


def test_the_course_of_validation_is_drawn_and_says_which_weights_were_saved():
    page = Page(render_report(msgspec.structs.replace(BARE, validations=full().validations)))
    (drawn,) = [one for one in page.all("img") if "validation scores" in one["alt"]]
    assert drawn["alt"].endswith("ri-infonce from 25.0 to 50.0 after step 1.")
    assert "ri-infonce from 25.0 to 50.0 after step 1, whose weights were saved" in page.text
    svg_of(drawn["src"])


# what the figures are said to show


def test_only_an_interval_that_excludes_0_is_called_a_difference():
    versus = {"difference": 0.02, "p": 0.04}
    assert outcome({**versus, "low": 0.001, "high": 0.04}) == "higher"
    assert outcome({**versus, "low": 0.0, "high": 0.04}) == "unclear"
    assert outcome({**versus, "low": -0.01, "high": 0.04}) == "unclear"
    assert outcome({**versus, "low": -0.04, "high": -0.001}) == "lower"


def test_the_findings_say_what_is_higher_lower_and_unclear():
    said = findings(RESULTS, "nDCG@10")
    assert said.startswith("ri-infonce has the highest mean of 3 systems, 43.5 points.")
    assert "Higher than base (39.0): ri-infonce +4.4 (+1.2 to +7.6)." in said
    assert "Lower than base (39.0): bm25 -18.7 (-22.1 to -15.0)." in said
    assert "No clear difference" not in said
    said = findings(RESULTS, "Recall@10")
    assert "No clear difference from base (51.1): ri-infonce +0.9 (-1.2 to +2.9)." in said
    assert "Higher" not in said


def test_a_lead_over_a_system_that_it_was_not_compared_with_is_named_as_such():
    results = {**RESULTS, "infonce": {"nDCG@10": score(0.4345, (0.0443, 0.01, 0.07, 0.01))}}
    said = findings(results, "nDCG@10")
    assert "less than 0.1 above infonce; these two were not compared query by query" in said
    results["infonce"]["nDCG@10"]["mean"] = RESULTS["ri-infonce"]["nDCG@10"]["mean"]
    assert "level with infonce" in findings(results, "nDCG@10")


def test_without_a_comparison_no_difference_is_claimed():
    results = {"a": {"nDCG@10": score(0.5)}, "b": {"nDCG@10": score(0.4)}}
    assert "not compared query by query" in findings(results, "nDCG@10", base="none")


def test_a_small_difference_keeps_the_side_of_0_that_it_is_on():
    assert [signed(value) for value in (0.0412, -0.0412, 0.0004, -0.0004, 0.00001, 0.0)] == [
        "+4.1", "-4.1", "+0.04", "-0.04", "0.0", "0.0"
    ]  # fmt: skip
    assert [p_value(p) for p in (0.0001, 0.001, 0.0416, 1.0)] == ["<0.001", "0.001", "0.042", "1.000"]


# the same table for a terminal


def test_the_terminal_shows_the_same_figures_in_columns():
    lines = text_table(RESULTS, ["nDCG@10"]).splitlines()
    assert [line.split() for line in lines] == [
        ["nDCG@10", "mean", "95", "%", "interval", "vs", "base", "95", "%", "interval", "p"],
        ["-" * len(lines[0])],
        ["bm25", "20.3", "15.2", "to", "25.2", "-18.7", "-22.1", "to", "-15.0", "<0.001"],
        ["base", "39.0", "33.9", "to", "43.9", "-", "-", "-"],
        ["ri-infonce", "*", "43.5", "38.3", "to", "48.3", "+4.4", "+1.2", "to", "+7.6", "0.004"],
    ]
    assert len({len(line) for line in lines}) == 1


def test_domains_are_columns_away_and_only_on_request():
    assert "biology" not in text_table(RESULTS)
    blocks = text_table(RESULTS, per_domain=True).split("\n\n")
    assert len(blocks) == 4
    assert [line.split() for line in blocks[1].splitlines()[2:]] == [
        ["biology", "18.3", "40.1", "45.7"],
        ["pony", "22.3", "37.9", "41.2"],
        ["mean", "over", "domains", "20.3", "39.0", "43.5"],
    ]


def test_a_measure_that_a_system_lacks_is_a_dash_and_an_unknown_one_is_refused():
    results = {**RESULTS, "new": {"Recall@10": score(0.1, pony=0.1)}}
    assert re.search(r"^new( +-){5}$", text_table(results, ["nDCG@10"]), re.MULTILINE)
    assert re.search(r"^biology.* -$", text_table(results, ["Recall@10"], per_domain=True), re.MULTILINE)
    assert "new" in Page(render_report(ReportData(title="t", results=results))).text
    with pytest.raises(ValueError, match=r"'MRR'; there are nDCG@10, Recall@10"):
        text_table(RESULTS, ["MRR"])


# what comes from elsewhere


def test_a_manifest_becomes_a_row_of_the_synthesis_table():
    manifest = Manifest(
        stage="annotate", domain="pony", version="0", inputs={}, config={}, settings={}, rows_in=10,
        rows_out=8, dropped={"grade_missing": 2}, counts={}, calls=Calls(asked=7, from_journal=3),
        seconds=1.5, outputs={},
    )  # fmt: skip
    assert stage_row(manifest) == {
        "domain": "pony", "stage": "annotate", "in": 10, "out": 8, "dropped": {"grade_missing": 2},
        "calls": 10, "seconds": 1.5,
    }  # fmt: skip


def test_facts_name_date_version_hardware_and_time():
    facts = machine_facts(seconds=402.3)
    assert list(facts) == ["Date", "Version", "Hardware", "Software", "Time"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", facts["Date"])
    assert "reasonembed" in facts["Version"] and "CPU core" in facts["Hardware"]
    assert facts["Time"] == "6 min 42 s" and "Time" not in machine_facts()


def test_durations_are_for_people():
    found = [duration(seconds) for seconds in (0.04, 9.94, 9.96, 59.6, 125, 7380)]
    assert found == ["0.0 s", "9.9 s", "10 s", "1 min 00 s", "2 min 05 s", "2 h 03 min"]


LOADS = """
import sys
from reasonembed.evaluate.report import ReportData, render_report
print(*{"matplotlib", "torch", "jinja2"} & set(sys.modules))
cell = {"mean": 0.5, "low": 0.4, "high": 0.6}
render_report(ReportData(title="t", results={"a": {"nDCG@10": cell}}, grades={1: 1}))
print("matplotlib" in sys.modules, *{"torch", "matplotlib.pyplot"} & set(sys.modules))
"""


def test_importing_the_report_loads_no_matplotlib_and_writing_it_no_pyplot():
    found = subprocess.run([sys.executable, "-c", LOADS], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == ["", "True"]

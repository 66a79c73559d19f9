"""Figures in headless Chromium: lines are switched off, pictures saved, and both grounds are legible."""

import html
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from headless import POLICY, chromium, needs_chromium
from report_pages import CROWDED, DRAWING

from vfl.locate.report.write import write_report
from vfl.report.heat import heat_chart
from vfl.report.lines import Panel, Series, chart
from vfl.report.page import environment

pytestmark = [pytest.mark.tool, needs_chromium]

GROUNDS = {"light": "1", "dark": "0"}  # as the browser's own setting numbers them
SVG = "{http://www.w3.org/2000/svg}"
# Switches the second line off, and on by Enter; saves the first figure without and with it; looks at colours.
PROBE = """<script>addEventListener("load", async () => {
  const whole = document.querySelector(".switched"), boxes = [...whole.querySelectorAll(".legend input")];
  const drawn = () => boxes.map((_, n) => [...whole.querySelectorAll(".l" + (n + 1))]
    .filter(e => getComputedStyle(e).display !== "none").length);
  const label = boxes[1].closest("label"), link = document.querySelector('.files a[download$="svg"]');
  const saved = async () => {
    if (!link) return "";
    let blob;
    const real = URL.createObjectURL;
    URL.createObjectURL = made => real.call(URL, blob = made);
    link.addEventListener("click", event => event.preventDefault(), { once: true });
    link.click();
    URL.createObjectURL = real;
    return await blob.text();
  };
  const before = drawn();
  label.click();
  const off = drawn(), without = await saved();
  boxes[1].dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true }));
  const again = drawn(), picture = await saved();

  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = colour => { const [r, g, b] = numbers(colour).slice(0, 3).map(v => v / 255)
    .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b };
  const ground = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (numbers(c)[3] !== 0) return c } };
  const contrast = (a, b) => (Math.max(light(a), light(b)) + .05) / (Math.min(light(a), light(b)) + .05);
  const faint = (which, key, least) => [...document.querySelectorAll(which)].filter(e => e.getClientRects().length)
    .filter(e => getComputedStyle(e)[key] !== "none")
    .filter(e => contrast(getComputedStyle(e)[key], ground(e.closest("div, li"))) < least)
    .map(e => e.outerHTML.slice(0, 120));
  document.querySelectorAll("details").forEach(e => e.open = true);
  const body = getComputedStyle(document.body).backgroundColor;
  parent.postMessage(JSON.stringify({ name: "NAME", before, off, again, without, picture, body: light(body),
    shown: getComputedStyle(document.querySelector(".plot .line")).stroke,
    cells: getComputedStyle(document.querySelector(".cells svg")).filter,
    lines: faint(".plot .line, .plot .followed, .plot .control, .plot .null, .plot .joint", "stroke", 3),
    texts: faint(".plot span, div p, div td, div th, div a, div label, div summary, .warnings b", "color", 4.5),
  }), "*") })</script></body>"""


# Small charts beside each other, as a measurement has them; says how many labels stand in each other's way.
LABELS = """{% import "charts.html.jinja" as kit with context %}<style>{% include "page.css" %}
.grid-of-charts { grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)) }</style><div class="grid-of-charts">
{% for chart in charts %}<div class="chart">{{ kit.lines(chart, "a") }}</div>{% endfor %}</div>
<div class="chart">{{ kit.heat(heat, "a") }}</div><script>addEventListener("load", () => parent.postMessage([CROWDED,
document.querySelectorAll(".plot .line").length, innerWidth].join("/"), "*"))</script>""".replace("CROWDED", CROWDED)


@pytest.fixture(scope="module")
def page(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    path, _ = write_report(tmp_path_factory.mktemp("page"), finished.fmap, finished.records, finished.pairs)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module", params=list(GROUNDS))
def seen(page: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What PROBE found on one ground in the page, and in the page without its own script, by one start of the browser.

    The policy, which would stop any script but the page's own, is taken out for the probe.
    """
    out = tmp_path_factory.mktemp(request.param)
    frames = ""
    for name, content in {"page": page, "bare": page.replace(DRAWING, "")}.items():
        content = POLICY.sub("", content).replace("</body>", PROBE.replace("NAME", name))
        (out / f"{name}.html").write_text(content, encoding="utf-8")
        frames += f'<iframe src="{name}.html" style="width:900px;height:800px;border:0"></iframe>'
    listen = 'onmessage = e => document.querySelector("pre").textContent += e.data + "\\n"'
    start = '<meta name="color-scheme" content="light dark">'  # a frame follows the page around it
    (out / "frame.html").write_text(f"{start}<pre></pre><script>{listen}</script>{frames}")
    arguments = (f"--blink-settings=preferredColorScheme={GROUNDS[request.param]}", "--virtual-time-budget=5000")
    text = chromium(out / "profile", *arguments, "--dump-dom", (out / "frame.html").as_uri())
    lines = html.unescape(text.split("<pre>")[1].split("</pre>")[0]).strip().splitlines()
    return {"ground": request.param} | {found["name"]: found for found in map(json.loads, lines)}


def test_a_legend_switches_its_line_off_and_no_other(seen: dict[str, Any], finished: Any) -> None:
    for name in ("page", "bare"):
        before, off = seen[name]["before"], seen[name]["off"]
        assert before == [2] * len(finished.fmap.functions), "a line and its interval"
        assert off == [0 if n == 1 else count for n, count in enumerate(before)]
    assert seen["page"]["again"] == seen["page"]["before"], "Enter switches, too"


def test_both_grounds_are_legible(seen: dict[str, Any]) -> None:
    found = seen["page"]
    assert found["texts"] == []
    assert found["lines"] == []
    assert (found["body"] < 0.05) == (seen["ground"] == "dark")
    assert (found["body"] > 0.9) == (seen["ground"] == "light")
    assert found["cells"].startswith("invert") == (seen["ground"] == "dark")


def test_a_saved_figure_stands_alone(seen: dict[str, Any], finished: Any) -> None:
    names = list(finished.fmap.functions)
    assert seen["bare"]["picture"] == "", "no link that can do nothing"
    picture, without = (ElementTree.fromstring(seen["page"][which]) for which in ("picture", "without"))
    for drawn in (picture, without):
        assert drawn.tag == f"{SVG}svg"
        elements = list(drawn.iter())
        assert {element.tag.removeprefix(SVG) for element in elements} <= {
            "svg",
            "rect",
            "path",
            "line",
            "text",
            "title",
        }
        given = [(key, value) for element in elements for key, value in element.items()]
        assert not {key for key, _ in given} & {"class", "style", "href", "filter"}
        assert not [value for _, value in given if "var(" in value or "NaN" in value or "url(" in value]
        assert drawn[0].get("fill") == "#fff"
        ticks = [element.text for element in elements if element.tag == f"{SVG}text"]
        assert {"0", "50", "100"} <= set(ticks)
    blue = [element for element in picture if element.get("stroke") == "rgb(0, 114, 178)"]
    assert blue, "the first line, in the colour for paper on both grounds"
    kept, left = ({e.text for e in drawn.iter(f"{SVG}text")} for drawn in (picture, without))
    assert set(names) <= kept
    assert len(kept - left) == 1, "the line that is switched off is left out"
    assert "rgb(213, 94, 0)" not in seen["page"]["without"]
    assert "rgb(213, 94, 0)" in seen["page"]["picture"]
    width, height = float(picture.get("width", 0)), float(picture.get("height", 0))
    for element in picture.iter(f"{SVG}text"):
        assert 0 <= float(element.get("x", -1)) <= width
        assert 0 <= float(element.get("y", -1)) <= height


def test_labels_keep_apart_however_long_and_many_they_are(tmp_path: Path) -> None:
    steps = [
        Panel(f"{last}", "step", "", [_rising(last, top)]) for last in (9, 9_999, 3_000_000) for top in (1e-9, 1e6)
    ]
    places = [
        Panel(f"{n}", "window", "", [_rising(n, 1.0, n)], places=[f"layers {k}–{k + 4}" for k in range(n)])
        for n in (6, 32)
    ]
    charts = [ready for panel in (*steps, *places) if (ready := chart(panel))]
    heat = heat_chart("h", [[0.0, 1.0] * 64] * 16, ("step", [123_456 * n for n in range(16)]), ("head", range(128)))
    page = environment(tmp_path).from_string(LABELS).render(charts=charts, heat=heat)
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    frames = "".join(
        f'<iframe src="page.html" style="width:{w}px;height:800px;border:0"></iframe>' for w in (390, 1280)
    )
    listen = 'onmessage = e => document.querySelector("pre").textContent += e.data + " "'
    (tmp_path / "frame.html").write_text(f"<pre></pre><script>{listen}</script>{frames}")
    text = chromium(
        tmp_path / "profile", "--virtual-time-budget=5000", "--dump-dom", (tmp_path / "frame.html").as_uri()
    )
    assert sorted(text.split("<pre>")[1].split("</pre>")[0].split()) == ["0/8/1280", "0/8/390"]


def _rising(last: float, top: float, n: int = 40) -> Series:
    return Series("a", [last * k / n for k in range(n)], [top * k / n for k in range(n)])


def test_where_scripts_are_barred_only_what_works_is_offered(page: str, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(page.replace("script-src", "x-src"), encoding="utf-8")
    barred = chromium(tmp_path / "profile", "--dump-dom", (tmp_path / "page.html").as_uri())
    assert 'svg" title="This figure as a picture"' not in barred
    assert barred.count('title="The numbers of this figure"') == page.count('title="The numbers of this figure"') > 5
    whole = tmp_path / "whole.html"
    whole.write_text(page, encoding="utf-8")
    allowed = chromium(tmp_path / "profile", "--dump-dom", whole.as_uri())
    assert allowed.count(">SVG</a>") == allowed.count(">CSV</a>"), "the page's policy lets its own script run"

"""The page in headless Chromium: every section shows, no script fails, nothing overflows, and the lens answers."""

import re
from pathlib import Path

import pytest
from headless import POLICY, chromium, needs_chromium
from PIL import Image
from report_pages import CROWDED

from vfl.measure.guide import ordered
from vfl.measure.report.write import write_report

pytestmark = [pytest.mark.tool, needs_chromium]

WIDTHS = (390, 1280)
CATCH = "<head><script>window.failed = []; addEventListener('error', e => failed.push(e.message))</script>"
# Points at the patch at the right below, then steps up by key, then shows the next picture; says what the page showed.
PROBE = """<script>addEventListener("load", () => {
  const picture = document.getElementById("lens-picture"), box = picture.getBoundingClientRect();
  const said = () => document.querySelector("#lens-rows tr:nth-child(3) .first").firstChild.textContent;
  const point = (x, y) => picture.dispatchEvent(new PointerEvent("pointermove",
    {clientX: box.left + x * box.width, clientY: box.top + y * box.height, bubbles: true}));
  const press = key => picture.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
  point(.75, .75); const hovered = said();
  press("ArrowUp"); const stepped = said();
  point(.2, .8); const other = said();
  press("PageDown"); const turned = document.querySelector('[aria-pressed="true"]').textContent;
  const sections = [...document.querySelectorAll("section[id]")].filter(s => s.getBoundingClientRect().height > 80);
  const curves = [...document.querySelectorAll(".plot path.line")].filter(p => p.getBoundingClientRect().width > 50);
  parent.postMessage([innerWidth, "scroll", document.documentElement.scrollWidth, "hover", hovered, stepped, other,
    turned.replace(" ", ""), "rows", document.querySelectorAll("#lens-rows tr").length, "curves", curves.length,
    "crowded", CROWDED, "failed", failed.length, failed.join("+").replace(/ /g, "_"),
    "title", document.title.slice(0, 10), "sections", ...sections.map(s => s.id)]
    .join(" "), "*") })</script></body>""".replace("CROWDED", CROWDED)


@pytest.fixture(scope="module")
def page(metrics, pictures, tmp_path_factory) -> Path:
    return write_report(tmp_path_factory.mktemp("page"), metrics, pictures)


@pytest.fixture(scope="module")
def shown(page, tmp_path_factory) -> str:
    """What PROBE found at each width, and below it the untouched page's own root: one start of the browser.

    The policy, which would stop any script but the lens, is taken out for the probe. Frames, because a browser window
    has a least width.
    """
    out = tmp_path_factory.mktemp("frames")
    content = POLICY.sub("", page.read_text(encoding="utf-8")).replace("<head>", CATCH)
    assert content.count("</body>") == 1
    (out / "page.html").write_text(content.replace("</body>", PROBE), encoding="utf-8")
    frames = "".join(f'<iframe src="page.html" style="width:{w}px;height:900px;border:0"></iframe>' for w in WIDTHS)
    listen = 'onmessage = e => document.querySelector("pre").textContent += e.data + "\\n"'
    (out / "frame.html").write_text(f"<pre></pre><script>{listen}</script>{frames}")
    address = (out / "frame.html").as_uri()
    return chromium(out / "profile", "--window-size=1400,1000", "--virtual-time-budget=5000", "--dump-dom", address)


@pytest.mark.parametrize("width", WIDTHS)
def test_every_section_shows_and_the_lens_answers(shown, metrics, width):
    state = re.search(
        rf"\b{width} scroll (\d+) hover (\S+) (\S+) (\S+) (\S+) rows (\d+) curves (\d+) "
        r"crowded (\d+) failed (\d+) (\S*) title (.{10}) sections ([^\n<]*)",
        shown,
    )
    assert state, shown[:2000]
    assert state[8] == "0", "labels of an axis run into each other"
    assert state[9] == "0", state[10]
    assert int(state[1]) <= width, "the page is wider than its window"
    assert state.groups()[1:5] == ("2:3", "2:1", "2:2", "picture2"), "state 2 of the patches 3, 1 and 2"
    assert int(state[6]) == metrics.model.num_layers + 1
    assert int(state[7]) >= len(metrics.metrics) - 1, "the curves collapsed"
    assert state[11] == "Metrics of", "a hostile script ran: it would make the title 'owned'"
    assert state[12].split() == ordered(list(metrics.metrics))


def test_the_policy_lets_the_lens_run_and_the_page_shows_ink(page, tmp_path):
    picture = tmp_path / "shot.png"
    arguments = ("--window-size=1000,1600", f"--screenshot={picture}", "--virtual-time-budget=3000", "--dump-dom")
    root = chromium(tmp_path / "profile", *arguments, page.as_uri())
    assert 'data-lens="ready"' in root[:200]
    with Image.open(picture) as image:
        colours = image.convert("RGB").getcolors(maxcolors=1 << 24)
    assert max(colours)[1] == (255, 255, 255)
    assert (0, 114, 178) in {colour for _, colour in colours}

"""The pages in headless Chromium: no overflow at a phone's and a desktop's width, and hostile text stays text."""

import re
from pathlib import Path
from typing import Any

import pytest
from headless import POLICY, chromium, needs_chromium
from PIL import Image
from report_pages import CROWDED

from vfl.locate.report.compare import compare_maps
from vfl.locate.report.write import write_comparison, write_report

pytestmark = [pytest.mark.tool, needs_chromium]

WIDTHS = (390, 1280)
# Tells the page around it how wide it is laid out, what sticks out, how many curves have an extent, and its title.
PROBE = """<script>addEventListener("load", () => parent.postMessage([
  "NAME", "width", innerWidth, "scroll", document.documentElement.scrollWidth,
  "curves", [...document.querySelectorAll(".plot path")].filter(p => p.getBoundingClientRect().width > 50).length,
  "tiny", [...document.querySelectorAll(".x, .y, td, p")].filter(e => parseInt(getComputedStyle(e).fontSize)<10).length,
  "crowded", CROWDED, "title", document.title].join(" "), "*"))</script></body>""".replace("CROWDED", CROWDED)


@pytest.fixture(scope="module")
def pages(finished: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    out = tmp_path_factory.mktemp("pages")
    report, _ = write_report(out, finished.fmap, finished.records, finished.pairs, planted={"counting": [6]})
    for folder in ("a", "b"):
        finished.fmap.save(out / folder / "map.json")
    (comparison,) = write_comparison(compare_maps([out / "a", out / "b"]), out / "compare.html")
    return {"report": report, "compare": comparison}


@pytest.fixture(scope="module")
def laid_out(pages: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """What PROBE found in each page at each width, from one start of the browser.

    The pages' policy, which would stop any script, is taken out first: escaping alone must keep hostile text inert.
    Frames, because a browser window has a least width.
    """
    out = tmp_path_factory.mktemp("frames")
    frames = ""
    for name, page in pages.items():
        content = POLICY.sub("", page.read_text(encoding="utf-8"))
        assert content.count("</body>") == 1
        (out / f"{name}.html").write_text(content.replace("</body>", PROBE.replace("NAME", name)), encoding="utf-8")
        for width in WIDTHS:
            frames += f'<iframe src="{name}.html" style="width:{width}px;height:800px;border:0"></iframe>'
    listen = 'onmessage = e => document.querySelector("pre").textContent += e.data + "\\n"'
    (out / "frame.html").write_text(f"<pre></pre><script>{listen}</script>{frames}")
    window = f"--window-size={max(WIDTHS) + 100},1000"
    address = (out / "frame.html").as_uri()
    return chromium(out / "profile", window, "--virtual-time-budget=5000", "--dump-dom", address)


@pytest.mark.parametrize("name", ["report", "compare"])
@pytest.mark.parametrize("width", WIDTHS)
def test_pages_fit_and_stay_inert(laid_out: str, name: str, width: int) -> None:
    state = re.search(
        rf"{name} width {width} scroll (\d+) curves (\d+) tiny (\d+) crowded (\d+) title ([^\n<]*)", laid_out
    )
    assert state, laid_out[:2000]
    assert int(state[1]) <= width, "the page is wider than its window"
    assert int(state[3]) == 0, "text too small to read"
    assert int(state[4]) == 0, "labels of an axis run into each other"
    assert state[5].startswith("Function layers of"), "a hostile script ran: it would make the title 'owned'"
    if name == "report":
        assert int(state[2]) > 10, "the curves collapsed"


def test_a_screenshot_shows_ink(pages: dict[str, Path], tmp_path: Path) -> None:
    picture = tmp_path / "shot.png"
    chromium(tmp_path / "profile", "--window-size=1000,1600", f"--screenshot={picture}", pages["report"].as_uri())
    with Image.open(picture) as image:
        colours = image.convert("RGB").getcolors(maxcolors=1 << 24)
    assert colours is not None
    assert max(colours)[1] == (255, 255, 255)  # light
    assert {(0, 114, 178), (213, 94, 0)} <= {colour for _, colour in colours}  # the first two functions' lines

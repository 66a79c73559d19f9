"""The pages in headless Chromium: they fit a phone and a desktop, and a hostile name stays text."""

import re

import pytest
from headless import chromium, needs_chromium
from report_pages import CROWDED

from vfl.serve.folder import runs
from vfl.serve.pages import index_page, samples_page, swap_page, training_page
from vfl.serve.samples import Condition, Samples
from vfl.serve.swapping import Swapped
from vfl.serve.training import compare_training

pytestmark = [pytest.mark.tool, needs_chromium]
WIDTHS = (390, 1280)
# Switches the first line of charts off.
PROBE = """<script>addEventListener("load", () => { document.querySelector(".legend label")?.click();
  const off = which => [...document.querySelectorAll(which)].filter(e => getComputedStyle(e).display === "none").length;
  parent.postMessage(["NAME", "width", innerWidth, "off", off(".l1"), off(".l2, .l3"),
  "scroll", document.documentElement.scrollWidth, "crowded", CROWDED, "title", document.title]
  .join(" "), "*") })</script></body>""".replace("CROWDED", CROWDED)


@pytest.fixture
def laid_out(root, tmp_path):
    hostile = next(run.place for run in runs(root) if "script" in run.place)
    rows = [Swapped("none", "1", "target", (1.0, 0.0)), Swapped("all", hostile * 3, "source", (0.0, 1.0))]
    pages = {
        "index": index_page(str(root), runs(root), 500),
        "training": training_page(compare_training(root, ["a", "deep/b", hostile])),
        "swap": swap_page("embedded", {"question": hostile * 4, "window": "1"}, rows, error=hostile),
    }
    wide = Samples([f"column_{n}" for n in range(30)], [["some words"] * 30] * 3, 3, 3)
    pages["samples"] = samples_page(hostile, [Condition(hostile, "=", hostile)], wide)
    frames = ""
    for name, page in pages.items():
        (tmp_path / f"{name}.html").write_text(page.replace("</body>", PROBE.replace("NAME", name)))
        for width in WIDTHS:
            frames += f'<iframe src="{name}.html" style="width:{width}px;height:800px;border:0"></iframe>'
    listen = 'onmessage = e => document.querySelector("pre").textContent += e.data + "\\n"'
    (tmp_path / "frame.html").write_text(f"<pre></pre><script>{listen}</script>{frames}")
    address = (tmp_path / "frame.html").as_uri()
    return chromium(
        tmp_path / "profile", "--window-size=1400,1000", "--virtual-time-budget=5000", "--dump-dom", address
    )


def test_pages_fit_and_stay_inert(laid_out):
    states = re.findall(r"(\w+) width (\d+) off (\d+) (\d+) scroll (\d+) crowded (\d+) title ([^\n<]*)", laid_out)
    assert {(name, int(width)) for name, width, *_ in states} == {
        (name, width) for name in ("index", "training", "swap", "samples") for width in WIDTHS
    }
    for name, width, off, others, scroll, crowded, title in states:
        assert (int(off) > 0, int(others)) == (name == "training", 0), "a legend switches its line, without a script"
        assert crowded == "0", f"labels of an axis of {name} run into each other"
        assert int(scroll) <= int(width), f"{name} is wider than its window"
        assert title.endswith("vfl"), "a hostile script ran: it would make the title 'owned'"

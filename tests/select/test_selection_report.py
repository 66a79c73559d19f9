"""The page of a selection: all that scores and subset hold, escaped, in one file that works offline."""

import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from fake_scores import FUNCTIONS, row, write_scores
from headless import POLICY, chromium, needs_chromium
from PIL import Image
from report_pages import CROWDED, DRAWING, column, figures, scripts, sheets

import vfl
from vfl.errors import InputError
from vfl.select.choose.agreement import agreements
from vfl.select.choose.filtering import ChoiceConfig, choose
from vfl.select.report.page import write_selection_report
from vfl.select.shards.score_folder import database, open_scores

HOSTILE = "<script>document.title='owned'</script>\"'&"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Scores, subset and data with 160 rows: what is written by others is hostile."""
    out = tmp_path_factory.mktemp("selection")
    rng = np.random.default_rng(0)
    data, scores = [], []
    for n in range(160):
        name = FUNCTIONS[n % 4]
        image = Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8))
        image.save(out / f"{n}.png")
        answer = HOSTILE if n % 3 == 0 else f"answer {n}"
        turns = [{"from": "human", "value": f"<image>\nquestion {n} {HOSTILE}"}, {"from": "gpt", "value": answer}]
        data.append({"id": f"row{n}", "image": f"{n}.png", "conversations": turns})
        kind = "text" if n % 20 == 19 else "vision"
        drop = {name: float(rng.random())} if n % 5 else {}
        scores.append(
            row(n, uid=f"row{n}", kind=kind, drops=drop, logprobs={name: float(rng.random())}, solved=n % 7 > 0,
                no_image=n % 10 == 0, source=HOSTILE if n % 2 else "plain", answer_tokens=int(rng.integers(1, 9)),
                perplexity=float(rng.random()))
        )  # fmt: skip
    (out / "data.json").write_text(json.dumps(data))
    errors = [
        {"uid": f"bad{n}", "where": f"row {n}", "reason": f"image '{HOSTILE}{n}.png' does not exist"} for n in range(60)
    ]
    folder = write_scores(
        out / "scores", scores, errors=errors, settings={"data": [str(out / "data.json")]}, versions={"torch": HOSTILE}
    )
    subset = vfl.filter(folder, budget="20%", out=out / "subset")
    return folder, subset, out


@pytest.fixture(scope="module")
def page(made):
    folder, subset, out = made
    path = write_selection_report(folder, out / "report.html", subset=subset)
    return path.read_text(encoding="utf-8")


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.sources = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.text.append(data)


def test_one_file_without_addresses_whose_one_script_is_ours(page):
    found = Tags(page)
    assert scripts(page) == [DRAWING]
    assert found.sources
    assert all(source.startswith(("data:image/", "data:text/csv;")) for source in found.sources)
    assert HOSTILE in " ".join(found.text)


def test_the_numbers_of_every_figure_are_those_that_it_draws(page):
    found = sheets(page)
    assert figures(page) == (len(found), 0)
    classes = found["classes"]
    assert sum(column(classes, "rows")) == 160
    assert sum(column(classes, "chosen rows")) == 32
    for share in (*column(classes, "rows (%)"), *column(found["sources"], "chosen rows (%)")):
        assert f'width="{round(share, 3)}"' in page
    for name in FUNCTIONS:
        drop = found[f"drop-in-log-probability-{name}"]
        most = max(column(drop, "rows"))
        for low, high, rows, chosen in zip(*(column(drop, heading) for heading in drop[0]), strict=True):
            assert f"<title>{low:.3g} to {high:.3g}: {rows:,.0f} rows, {chosen:,.0f} chosen</title>" in page
            assert f'height="{round(100 * (rows / most) ** 0.5, 3)}"' in page


def test_all_that_was_asked_for_is_there(page):
    text = " ".join(" ".join(Tags(page).text).split())
    for heading in ("Classes", "Sources", "Scores", "Samples", "Agreement with simpler policies", "couldn’t be scored"):
        assert heading in text
    for name in FUNCTIONS:
        assert f"{name}, highest scores" in text
        assert f"{name}, lowest scores" in text
    assert "blind: right without the image" in text
    assert "160 scored rows, 32 of them chosen" in text
    assert "10 more in errors.parquet" in text
    for policy in ("random", "stratified-random", "length", "perplexity", "el2n", "no-image-gap"):
        assert policy in text
    assert page.count("<img") >= 4 * 6


def test_without_a_subset_and_without_the_data(made, tmp_path):
    folder, _, out = made
    lost = tmp_path / "scores"
    shutil.copytree(folder, lost)
    manifest = json.loads((lost / "manifest.json").read_text())
    (lost / "manifest.json").write_text(json.dumps(manifest | {"settings": {"data": [str(tmp_path / "gone.json")]}}))
    (lost / "errors.parquet").unlink()
    text = write_selection_report(lost, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "gone.json does not exist" in text
    assert "<img" not in text
    assert "None." in text
    again = write_selection_report(lost, tmp_path / "r.html", data=out / "data.json").read_text(encoding="utf-8")
    assert "<img" in again


def test_a_subset_of_other_scores_is_refused(made, tmp_path):
    _, subset, out = made
    other = write_scores(tmp_path / "other", [row(n, drops={"ocr": 1.0}) for n in range(9)])
    with pytest.raises(InputError, match="of other scores"):
        write_selection_report(other, tmp_path / "r.html", subset=subset)
    with pytest.raises(InputError, match="is no subset"):
        write_selection_report(other, tmp_path / "r.html", subset=out)
    assert not (tmp_path / "r.html").exists()


def test_all_alike_and_nothing_to_show(tmp_path):
    folder = write_scores(tmp_path / "s", [row(n, kind="text") for n in range(3)])
    assert "No row has a function" in write_selection_report(folder, tmp_path / "r.html").read_text()
    folder = write_scores(tmp_path / "t", [row(n) for n in range(3)])
    assert "none" in write_selection_report(folder, tmp_path / "r.html").read_text()


def test_agreement_is_overlap_and_rank_correlation(tmp_path):
    rows = [
        row(n, drops={"ocr": 0.1 + n / 1000}, answer_tokens=n + 1, perplexity=float(100 - n), el2n=0.5)
        for n in range(100)
    ]
    folder = open_scores(write_scores(tmp_path / "s", rows))
    config = ChoiceConfig(budget="20%", policy="quota")
    with database() as connection:
        choose(connection, folder, config)
        found = {one.policy: one for one in agreements(connection, folder, config)}
    assert (found["length"].overlap, found["length"].correlation) == (1.0, pytest.approx(1.0))
    assert (found["perplexity"].overlap, found["perplexity"].correlation) == (0.0, pytest.approx(-1.0))
    assert found["el2n"].correlation is None  # all alike
    assert 0 < found["random"].overlap < 0.6
    assert {one.expected for one in found.values()} == {0.2}


@pytest.mark.tool
@needs_chromium
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_and_stays_inert(page, tmp_path, width):
    probe = """<script>addEventListener("load", () => parent.postMessage(["scroll",
      document.documentElement.scrollWidth, "crowded", CROWDED, "title", document.title]
      .join(" "), "*"))</script></body>"""
    plain = POLICY.sub("", page)
    (tmp_path / "page.html").write_text(plain.replace("</body>", probe.replace("CROWDED", CROWDED)), encoding="utf-8")
    listen = 'onmessage = e => document.querySelector("pre").textContent += e.data'
    (tmp_path / "frame.html").write_text(
        f"<pre></pre><script>{listen}</script>"
        f'<iframe src="page.html" style="width:{width}px;height:800px;border:0"></iframe>'
    )
    window, address = f"--window-size={width + 100},900", (tmp_path / "frame.html").as_uri()
    seen = chromium(tmp_path / "profile", window, "--virtual-time-budget=5000", "--dump-dom", address)
    found = re.search(r"scroll (\d+) crowded (\d+) title ([^\n<]*)", seen)
    assert found, seen[:500]
    assert int(found[1]) <= width
    assert found[2] == "0", "labels of an axis run into each other"
    assert found[3].startswith("Selection with")

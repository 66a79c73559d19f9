"""The page of a training run: whatever of the run's files is there, escaped, in one file that works offline."""

import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from headless import POLICY, chromium, needs_chromium
from PIL import Image
from preflights import HOSTILE, preflight
from report_pages import CROWDED, DRAWING, column, figures, scripts, sheets

from vfl.errors import InputError
from vfl.evaluate.result import Baseline, Evaluation
from vfl.evaluate.summary import Difference, accuracy_of
from vfl.functionmap import ModelId
from vfl.report.lines import Panel, Series, chart
from vfl.report.sheet import with_unit
from vfl.report.words import SHARE
from vfl.train.report.before_after import changes_of
from vfl.train.report.log import read_log
from vfl.train.report.page import steps_map, write_training_report

STEPS, EVERY, L = 564, 94, 28
GROUPS = {"counting": (20, 36), "grounding": (36, 34), "ocr": (38, 38), f"set/{HOSTILE}": (24, 28)}


def lines() -> list[dict[str, Any]]:
    rng, lines = np.random.default_rng(0), []
    for step in range(STEPS + 1):
        at = {"step": step, "epoch": step / 188}
        if step:
            loss: Any = 2 * math.exp(-step / 100) + 0.4 + rng.normal() * 0.05
            lines.append(
                {**at, "kind": "train", "loss": "nan" if step == 7 else loss, "grad_norm": 1.0, "note": HOSTILE}
            )
        if step % EVERY == 0:
            right = {name: round(a + (b - a) * step / STEPS) for name, (a, b) in GROUPS.items()}
            groups = {
                name: {
                    "accuracy": n / 40,
                    "low": accuracy_of(n, 40).low,
                    "high": accuracy_of(n, 40).high,
                    "n": 40,
                    "forgetting": (GROUPS[name][0] - n) / 40,
                }
                for name, n in right.items()
            }
            lines.append({**at, "kind": "evaluation", "groups": groups})
            value = [None if k == 3 else math.exp(-(((k - 12 - step / 200) / 3) ** 2)) for k in range(L)]
            curves = {f"{name}/changed": {"axis": "layer", "at": list(range(L)), "value": value} for name in GROUPS}
            scalars = {"counting/peak": {"value": 12 + step // 188}, "counting/none": {"value": None}}
            result = {"n": 4, "scalars": scalars, "curves": curves, "options": {"reading": HOSTILE}}
            lines.append({**at, "kind": "metric", "name": "swap", "result": result})
    return [*lines, {"step": STEPS, "epoch": 3, "kind": "train", "train_runtime": 1234.5}]


def evaluation() -> Evaluation:
    before = {name: accuracy_of(a, 40) for name, (a, _) in GROUPS.items()}
    after = {name: accuracy_of(b, 40) for name, (_, b) in GROUPS.items()}
    gains = {
        name: Difference(40, a / 40, b / 40, (b - a) / 40, -0.1234, 0.5678, max(b - a, 0), max(a - b, 0))
        for name, (a, b) in GROUPS.items()
    }
    return Evaluation(
        model=ModelId(id="owner/Model-7B", family="qwen2_5_vl", num_layers=L),
        groups=after,
        baseline=Baseline(source="step 0", groups=before),
        differences=gains,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    preflight().save(out / "preflight.json")
    (out / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines()))
    (out / "evaluation.json").write_text(evaluation().model_dump_json(by_alias=True))
    (out / "settings.yaml").write_text(f'model: "{HOSTILE}"\nlora: {{r: 64}}\nlayers: {{functions: [counting]}}\n')
    write_training_report(out)
    return out


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


class Elements(HTMLParser):
    """Every element with its attributes, and the text outside <style> and <script>."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if not self.tags or self.tags[-1][0] not in ("style", "script"):
            self.text += data


def test_nothing_from_data_becomes_markup(page: str) -> None:
    elements = Elements(page)
    assert scripts(page) == [DRAWING]
    assert not [name for _, attrs in elements.tags for name in attrs if name.startswith("on")]
    assert elements.text.count(HOSTILE) > 8
    assert "\x1b" not in page


def test_the_page_needs_nothing_from_outside(page: str) -> None:
    for tag, attrs in Elements(page).tags:
        for name in ("src", "href", "srcset", "data", "xlink:href", "poster", "action"):
            assert (attrs.get(name) or "data:text/csv;").startswith("data:text/csv;"), (tag, name)
    assert "@import" not in page
    assert "url(" not in page
    assert "default-src 'none'" in page
    assert len(page) < 400_000


def test_the_numbers_of_every_figure_are_those_that_it_draws(page: str, folder: Path) -> None:
    found, log = sheets(page), read_log(folder / "metrics.jsonl")
    assert figures(page) == (len(found), 0)

    def drawn(rows: list[list[str]], name: str, unit: str) -> str:
        at = [value for value in column(rows, rows[0][0]) if value is not None]
        ready = chart(Panel(name, rows[0][0], unit, [Series(name, at, column(rows, with_unit(name, unit)))]))
        assert ready is not None
        return f'd="{ready.lines[0].path}"'

    assert drawn(found["loss"], "loss", "") in page
    assert drawn(found["by-step-grad-norm"], "grad_norm", "") in page
    for name in GROUPS:
        slug = "-".join(re.findall("[a-z0-9]+", name.lower()))
        rates = [groups[name].rate for _, groups in log.evaluations]
        assert column(found["accuracy"], f"{name} (share)") == [rate.value for rate in rates]
        own = found[f"accuracy-by-step-{slug}"]
        assert drawn(own, name, SHARE) in page
        assert column(own, f"{name} low (share)") == [rate.low for rate in rates]
        steps = log.curves[f"swap: {name}/changed"]
        heat = found[f"by-step-swap-{slug}-changed"]
        assert [int(row[0]) for row in heat[1:]] == [step for step, _ in steps]
        assert heat[0][1:] == [f"layer {k}" for k in range(L)]
        assert [column(heat, f"layer {k}") for k in range(L)] == [[c.value[k] for _, c in steps] for k in range(L)]
        assert column(found[f"swap-{slug}-changed"], f"step {STEPS}") == list(steps[-1][1].value)
    changes = changes_of(evaluation())
    assert column(found["accuracy-before-and-after"], "after high (share)") == [
        c.after and c.after.high for c in changes
    ]
    lengths = preflight().lengths
    assert lengths is not None
    assert column(found["tokens-a-row"], "rows") == [part.rows for part in lengths.bins]


def test_it_has_what_the_run_left(page: str) -> None:
    elements = Elements(page)
    labels = [attrs["aria-label"] for tag, attrs in elements.tags if tag == "svg" and "aria-label" in attrs]
    assert "Loss by step" in labels
    for name in GROUPS:
        assert f"{name} accuracy by step" in labels
        assert f"swap: {name}/changed, first and last step" in labels
        assert f"swap: {name}/changed by step" in labels
    text = " ".join(elements.text.split())
    for fact in (
        "50.0 %",
        "90.0 %",
        "+40.0",
        "-12.3 to +56.8",
        "layers 0-9 run without autograd; the backward pass ends at layer 10",
        "lora.r",
        "layers.functions",
        "69,206,016",
        "1,234.5",
        "cd" * 32,
        "31.0 GiB of 80.0 GiB",
        "There are 3 cubes. …",
    ):
        assert fact in text, fact
    assert all(warning in text for warning in preflight().warnings)


@pytest.mark.parametrize("missing", ["preflight.json", "metrics.jsonl", "evaluation.json", "settings.yaml"])
def test_one_missing_file_leaves_the_rest(folder: Path, missing: str, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / missing).unlink()
    text = Elements(write_training_report(tmp_path).read_text(encoding="utf-8")).text
    assert ("Before the first step" in text) == (missing != "preflight.json")
    assert ("Accuracy over steps" in text) == (missing != "metrics.jsonl")
    assert ("-12.3 to +56.8" in text) == (missing != "evaluation.json")
    assert "Accuracy before and after" in text
    assert "+40.0" in text  # of the log or of the evaluation


def test_an_empty_folder_has_a_page_too(tmp_path: Path) -> None:
    text = Elements(write_training_report(tmp_path).read_text(encoding="utf-8")).text
    assert "Not measured" in text


def test_a_run_with_one_evaluation_is_drawn(tmp_path: Path) -> None:
    first = [line for line in lines() if line["step"] == 0]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in first))
    page = write_training_report(tmp_path).read_text(encoding="utf-8")
    assert "counting accuracy by step" in page
    assert "nan" not in page.lower().replace("nano", "")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("metrics.jsonl", '{"step": 1, "kind": "train"}\n{"step"\n', r"metrics\.jsonl line 2 is no line"),
        ("metrics.jsonl", '{"step": 1, "kind": "other"}\n', "kind 'other'"),
        ("metrics.jsonl", '{"step": 1, "kind": "evaluation"}\n', "KeyError: 'groups'"),
        ("settings.yaml", "a: [", "is not YAML"),
        ("settings.yaml", "- a", "holds a list"),
        ("evaluation.json", "{}", "is no evaluation"),
        ("preflight.json", "[]", "not a preflight.json"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_an_error(tmp_path: Path, name: str, content: str, words: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=words):
        write_training_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_the_log_is_read_as_it_was_written(folder: Path) -> None:
    log = read_log(folder / "metrics.jsonl")
    assert len(log.train) == STEPS + 1
    assert math.isnan(log.train[6][1]["loss"])
    assert "note" not in log.train[0][1]
    assert [step for step, _ in log.evaluations] == list(range(0, STEPS + 1, EVERY))
    assert set(log.scalars) == {"swap: counting/peak"}
    assert log.curves["swap: counting/changed"][0][1].value[3] is None


def test_a_line_that_a_killed_run_did_not_finish_is_left_out(folder: Path, tmp_path: Path) -> None:
    content = (folder / "metrics.jsonl").read_text()
    (tmp_path / "cut.jsonl").write_text(content[:-9])
    assert len(read_log(tmp_path / "cut.jsonl").train) == STEPS


def test_the_changes_are_those_of_the_evaluation_or_of_the_log(folder: Path) -> None:
    paired, unpaired = changes_of(evaluation()), read_log(folder / "metrics.jsonl").changes()
    assert [first.group for first in paired] == [first.group for first in unpaired] == list(GROUPS)
    for first, second in zip(paired, unpaired, strict=True):
        assert (first.before, first.after, first.n) == (second.before, second.after, second.n)
        assert first.gain == pytest.approx(second.gain)
    assert all(first.difference for first in paired)
    alone = changes_of(evaluation().model_copy(update={"baseline": None, "differences": None}))
    assert all(first.before is None and first.gain is None and first.after for first in alone)


def test_a_heat_map_shows_the_first_and_the_last_of_many_steps() -> None:
    rows = [(step, [float(step), None, 2.0]) for step in range(0, 1000, 10)]
    drawn = steps_map("a", "layer", [4, 5, 6], rows, marked=[5, 9])
    assert drawn is not None
    assert [tick.text for tick in drawn.y_ticks][:: drawn.height - 1] == ["0", "990"]
    assert drawn.height == 16
    assert drawn.marks == [1]
    assert drawn.cells[1][3] == "step 0, layer 5: none"


WIDTHS = (390, 1280)
PROBE = """<script>addEventListener("load", () => parent.postMessage([
  "width", innerWidth, "scroll", document.documentElement.scrollWidth,
  "curves", [...document.querySelectorAll(".plot path")].filter(p => p.getBoundingClientRect().width > 50).length,
  "tiny", [...document.querySelectorAll(".x, .y, td, p")].filter(e => parseInt(getComputedStyle(e).fontSize)<10).length,
  "crowded", CROWDED, "title", document.title].join(" "), "*"))</script></body>""".replace("CROWDED", CROWDED)


@pytest.mark.tool
@needs_chromium
def test_the_page_fits_and_stays_inert(page: str, tmp_path: Path) -> None:
    # The policy, which would stop any script, is taken out: escaping alone must keep hostile text inert.
    (tmp_path / "page.html").write_text(POLICY.sub("", page).replace("</body>", PROBE), encoding="utf-8")
    frames = "".join(f'<iframe src="page.html" style="width:{w}px;height:800px;border:0"></iframe>' for w in WIDTHS)
    listen = 'onmessage = e => document.querySelector("pre").textContent += e.data + "\\n"'
    (tmp_path / "frame.html").write_text(f"<pre></pre><script>{listen}</script>{frames}")
    address = (tmp_path / "frame.html").as_uri()
    laid_out = chromium(
        tmp_path / "profile", "--window-size=1400,1000", "--virtual-time-budget=5000", "--dump-dom", address
    )
    for width in WIDTHS:
        state = re.search(
            rf"width {width} scroll (\d+) curves (\d+) tiny (\d+) crowded (\d+) title ([^\n<]*)", laid_out
        )
        assert state, laid_out[:2000]
        assert int(state[1]) <= width, "the page is wider than its window"
        assert int(state[2]) > 10, "the curves collapsed"
        assert int(state[3]) == 0, "text too small to read"
        assert int(state[4]) == 0, "labels of an axis run into each other"
        assert state[5].startswith("LoRA training of"), "a hostile script ran: it would make the title 'owned'"


@pytest.mark.tool
@needs_chromium
def test_a_screenshot_shows_ink(folder: Path, tmp_path: Path) -> None:
    picture, address = tmp_path / "shot.png", (folder / "report.html").as_uri()
    chromium(tmp_path / "profile", "--window-size=1000,2400", f"--screenshot={picture}", address)
    with Image.open(picture) as image:
        colours = image.convert("RGB").getcolors(maxcolors=1 << 24)
    assert colours is not None
    assert max(colours)[1] == (255, 255, 255)  # light
    assert {(0, 114, 178), (213, 94, 0)} <= {colour for _, colour in colours}  # the first two groups' lines

"""What results show of themselves in a notebook: a table of what they hold, escaped; and a short repr."""

from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from vfl.engine.image_cache import ImageCache
from vfl.engine.plan import Plan
from vfl.engine.sweep import SweepResult
from vfl.evaluate.result import Evaluation
from vfl.evaluate.summary import Accuracy, Difference
from vfl.functionmap import FunctionMap, ModelId
from vfl.io.notebook import ROWS, html_table
from vfl.measure.metrics_file import MeasuredOn, Metrics
from vfl.negatives.result import Negatives
from vfl.select.subset.result import Subset
from vfl.train.preflight.facts import ModelFacts, Preflight
from vfl.train.report.before_after import Change, Rate
from vfl.train.run import Outcome

EVIL = "<script>alert('&amp;')</script>"
TAGS = {"div", "b", "table", "thead", "tbody", "tr", "th", "td"}
MODEL = ModelId(id=EVIL, family="Qwen2.5-VL", num_layers=4)
MAP = Path(__file__).parents[1] / "recipes" / "micro" / "map.json"


class Table(HTMLParser):
    """A page's tags and rows of cells; whatever is open is closed again, in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.rows, self.text = [], [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert tag in TAGS
        assert not attrs
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        self.text += text
        if self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += text


def function_map():
    fmap = FunctionMap.load(MAP)
    counting = fmap.functions["counting"].model_copy(update={"warnings": [EVIL]})
    return fmap.model_copy(update={"functions": {EVIL: counting, **fmap.functions}})


def sweep_result():
    logprobs = torch.tensor([[-0.25], [-1.5]])
    return SweepResult(torch.zeros(2, 9), logprobs, ["3", EVIL], [[1], [2]], True, ["own", "swap 5"], [EVIL])


def evaluation():
    groups = {EVIL: Accuracy(8, 4, 0.5, 0.2, 0.8)}
    differences = {EVIL: Difference(8, 0.25, 0.5, 0.25, -0.1, 0.6, 3, 1)}
    return Evaluation(model=MODEL, groups=groups, differences=differences, notes=[EVIL])


def metrics():
    scalars = {EVIL: {"value": 0.125, "low": None, "high": 0.25, "n": 7}}
    data = MeasuredOn(kind="probes", name="micro", sha256="", n=7, functions={})
    return Metrics(model=MODEL, data=data, metrics={"var": {"scalars": scalars}}, not_measured={"drop": EVIL})


def outcome():
    flight = Preflight.model_construct(model=ModelFacts.model_construct(id=EVIL), adapted=())
    rate = Rate(0.5, 0.25, 0.75)
    return Outcome(Path("run"), flight, Path("run") / EVIL, (Change(EVIL, 8, None, rate),))


def negatives():
    left_out = {"same answer": 3}
    return Negatives(images=None, model=MODEL, map=None, layers=[1, 2], rows=10, kept=7, left_out=left_out, settings={})


def subset():
    counts = {EVIL: {"rows": 40, "chosen_rows": 10}, "ocr": {"rows": 8, "chosen_rows": 2}}
    budget = {"limit": 12, "spent": 12, "unit": "rows"}
    settings = {"policy": "balanced"}
    facts = {"rows": 12, "scored": 48, "counts": {"class": counts}, "budget": budget, "notes": [], "settings": settings}
    return Subset(Path("subset"), facts)


RESULTS = {
    "map": (function_map, ("counting", "5")),
    "sweep": (sweep_result, ("swap 5", "-1.500")),
    "evaluation": (evaluation, ("50.0\u00a0%", "+25.0", "-10.0 to +60.0")),
    "metrics": (metrics, ("var", "0.125", "–", "0.25", "7")),
    "outcome": (outcome, ("8", "–", "50.0\u00a0% (25.0–75.0)")),
    "subset": (subset, ("40", "10", "25.0\u00a0%")),
    "negatives": (negatives, ("kept", "7")),
}


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_shows_what_it_holds_escaped(name):
    make, cells = RESULTS[name]
    shown = Table(make()._repr_html_())
    assert {len(row) for row in shown.rows} == {len(shown.rows[0])}
    assert any(set(cells) <= set(row) for row in shown.rows[1:]), shown.rows
    assert (EVIL in shown.text) == (name != "negatives")


@pytest.mark.parametrize("name", RESULTS)
def test_a_repr_is_one_line(name):
    result = RESULTS[name][0]()
    assert "\n" not in repr(result)
    assert len(repr(result)) < 250
    assert str(result) == repr(result)


def test_what_holds_tensors_does_not_print_them():
    keys = (torch.zeros(1, 2, 3, 4),)
    image_cache = ImageCache(keys, keys, torch.zeros(1, 3), torch.zeros(1, 3), (), "")
    assert repr(image_cache) == "ImageCache(1 layers, 3 tokens, torch.float32)"
    assert repr(Plan.swap([1, 2], image_cache)) == "Plan('swap 1–2')"


def test_long_tables_are_cut():
    shown = Table(html_table("long", ["number"], [[number] for number in range(ROWS + 5)]))
    assert len(shown.rows) == 1 + ROWS
    assert "and 5 more rows" in shown.text

"""`plot()` of what people hold: a figure without pyplot that shows itself, and draws the numbers of a real result.

Where there is such a run: training's in tests/train/test_run.py, selecting's in tests/select/test_subset.py.
"""

from pathlib import Path

import pytest
from figures import dots_of, drawn, lines_of

import vfl
from vfl.errors import InputError
from vfl.metrics.measure import known_metrics
from vfl.probes.make import make
from vfl.probes.style import MICRO_STYLE

MAP = Path(__file__).parents[1] / "recipes" / "micro" / "map.json"


@pytest.fixture(scope="module")
def vlm():
    return vfl.load()


def test_a_map_draws_every_function_with_its_layers():
    fmap = vfl.FunctionMap.load(MAP)
    figure = drawn(fmap.plot(planted={"counting": [5]}))
    titles = {axes.get_title(loc="left").partition(":")[0]: axes for axes in figure.axes}
    assert titles.keys() == fmap.functions.keys()
    counting = fmap.functions["counting"]
    assert [100 * rate for rate in counting.changed] in lines_of(titles["counting"])
    assert "planted (on the axis)" in [text.get_text() for text in figure.legends[0].get_texts()]
    assert "planted (on the axis)" not in [text.get_text() for text in fmap.plot().legends[0].get_texts()]


def test_a_sweep_draws_each_answer_over_the_plans(vlm, tmp_path):
    (pair,) = make(tmp_path, ["counting"], pairs=1, seed=3, style=MICRO_STYLE)
    target, source = (vlm.ask(pair.question, pair.open(which)) for which in ("image", "source_image"))
    other = vfl.prefill(vlm, source)
    plans = [vfl.Plan.own(), vfl.Plan.swap([5], other), vfl.Plan.swap([5], other)]
    answers = [pair.answer, pair.source_answer]
    result = vfl.sweep(vlm, target, plans, answers=answers)
    assert result.answers == answers
    (axes,) = drawn(result.plot()).axes
    for column, answer in enumerate(answers):
        assert dots_of(axes, answer) == pytest.approx(result.answer_logprobs[:, column].tolist())
    assert [label.get_text() for label in axes.get_yticklabels()] == ["own", "1: swap 5", "2: swap 5"]
    with pytest.raises(InputError, match=r"No answer was scored.*answers="):
        vfl.sweep(vlm, target, plans[:1], max_new_tokens=2).plot()


def test_an_evaluation_draws_its_groups_beside_the_baseline(vlm, tmp_path):
    settings = {"pairs": 2, "functions": ["counting", "ocr"], "progress": False}
    before = vfl.evaluate(vlm, out=tmp_path / "before", **settings)
    (axes,) = drawn(before.plot()).axes
    assert dots_of(axes) == [100 * group.accuracy for group in before.groups.values()]
    after = vfl.evaluate(vlm, out=tmp_path / "after", baseline=tmp_path / "before", **settings)
    (axes,) = drawn(after.plot()).axes
    for run in ("baseline", "this run"):
        assert dots_of(axes, run) == [100 * group.accuracy for group in after.groups.values()]


def test_a_measurement_draws_the_metric_that_is_named(vlm, tmp_path):
    both = vfl.measure(vlm, out=tmp_path, metrics=["cosine", "head_weight"], pairs=2, functions=["ocr"], progress=False)
    figure = drawn(both.plot("cosine"))
    assert figure.get_suptitle() == known_metrics()["cosine"].title
    for curve in both.metrics["cosine"]["curves"].values():
        assert any(pytest.approx(curve["value"]) == line for axes in figure.axes for line in lines_of(axes))
    alone = both.model_copy(update={"metrics": {"cosine": both.metrics["cosine"]}})
    assert alone.plot().get_suptitle() == figure.get_suptitle()
    with pytest.raises(InputError, match=r"No metric was named; those measured are .*head_weight"):
        both.plot()
    with pytest.raises(InputError, match="There is no metric 'cosin'"):
        both.plot("cosin")
    empty = both.model_copy(update={"metrics": {"cosine": {"n": 1, "scalars": {}, "curves": {}}}})
    with pytest.raises(InputError, match="cosine has no curve"):
        empty.plot()

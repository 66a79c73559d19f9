"""A metric is one file and one line of the list in `vfl.metrics`, and every exported name is its function."""

import sys
from importlib import util

import pytest
import warm

from vfl import metrics
from vfl.measure.config import MeasureConfig
from vfl.measure.run import run
from vfl.metrics.measure import known_metrics, measure_named

NEW = '''
"""Number of tokens of a prompt, layer by layer the same."""

from vfl.metrics.result import mean_curve, mean_scalar, result
from vfl.metrics.spec import Metric


def prompt_length(vlm, prompts, *, factor=1):
    """Tokens of each prompt."""
    lengths = [factor * encoded.length for encoded in prompts]
    curves = {"counted/tokens": mean_curve([[n] * vlm.num_layers for n in lengths])}
    return result(len(lengths), {"counted/tokens": mean_scalar(lengths)}, curves, {"factor": factor})


SPEC = Metric(
    function=prompt_length,
    needs="prompts",
    title="Length of prompts",
    read="Longer prompts lie higher.",
    use="Shorten the longest.",
    source="this test",
    equation="n = |prompt|",
    units={"tokens": "pieces"},
)
'''


@pytest.fixture
def listed(tmp_path, monkeypatch):
    """A metric that vfl does not have: its file, and what a line in the list does."""
    path = tmp_path / "prompt_length.py"
    path.write_text(NEW, encoding="utf-8")
    spec = util.spec_from_file_location("prompt_length", path)
    module = util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "prompt_length", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(metrics, "prompt_length", module.prompt_length, raising=False)


@pytest.mark.usefixtures("listed")
def test_a_new_metric_is_measured_drawn_and_explained(vlm, pairs, tmp_path):
    lengths = [vlm.ask(pair.question, pair.path("image")).length for pair in pairs[:2]]
    measured = measure_named(vlm, ["prompt_length"], pairs[:2], options={"prompt_length": {"factor": 2}})
    assert measured["prompt_length"]["scalars"]["counted/tokens"]["value"] == sum(lengths)
    config = MeasureConfig(
        model=vlm.model_id, metrics="prompt_length,cosine", data=str(pairs[0].folder), out=tmp_path / "out"
    )
    run(config, vlm=vlm, progress=False)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    for text in ("Length of prompts", "Longer prompts lie higher.", "this test", "n = |prompt|", "pieces"):
        assert text in page, text
    assert page.index('<section id="cosine">') < page.index('<section id="prompt_length">'), "the list's order"
    assert (tmp_path / "out" / "figures" / "prompt_length.png").stat().st_size > 1000


def test_every_metric_bears_the_name_of_its_file():
    for name, spec in known_metrics().items():
        assert getattr(metrics, name) is spec.function
        assert spec.function.__module__ == f"vfl.metrics.{name}"


@pytest.mark.parametrize("first", ["vfl", "vfl.metrics.drop", "vfl.metrics.recommended", "vfl.measure.run"])
def test_a_name_is_the_function_whatever_was_imported_first(first):
    code = f"""
import {first}
from vfl.metrics import cosine, drop, late_entry, mask, swap, var
import vfl.metrics.drop, vfl.metrics.measure
from vfl import metrics
for function in (cosine, drop, late_entry, mask, swap, var):
    assert callable(function) and getattr(metrics, function.__name__) is function, function
"""
    done = warm.finished(["-c", code])
    assert done.returncode == 0, done.stderr

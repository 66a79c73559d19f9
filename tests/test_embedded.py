"""The embedded model end to end: what was planted is recovered, from generated probes and from a folder of them."""

import pytest

import vfl
from vfl.loading.beds import EMBEDDED
from vfl.locate.recovery import read_truth, score
from vfl.probes.make import make
from vfl.probes.style import MICRO_STYLE
from vfl.testbeds.micro.evaluate import evaluate

pytestmark = pytest.mark.long

PAIRS = 9  # with fewer than eight, no layer of ten can be significant


@pytest.fixture(scope="module")
def vlm():
    return vfl.load()


# All three are planted in one layer each; the first tutorial, which is run, recovers the other two.
@pytest.mark.parametrize(
    "functions", [("grounding",), pytest.param(("counting", "grounding", "ocr"), marks=pytest.mark.slow)], ids=len
)
def test_planted_single_layers_are_recovered_exactly(vlm, functions, tmp_path):
    fmap = vfl.locate(vlm, out=tmp_path, functions=functions, pairs=PAIRS, seed=5, mode="single", progress=False)
    truth = read_truth(EMBEDDED)
    assert fmap.model.id == "embedded"
    assert {name: entry.layers for name, entry in fmap.functions.items()} == {name: truth[name] for name in functions}
    assert all(recovered.precision == recovered.recall == 1.0 for recovered in score(fmap, truth).values())
    assert "test bed" in (tmp_path / "report.html").read_text()


def test_a_folder_of_the_same_probes_gives_the_same_map(vlm, tmp_path):
    settings = {"mode": "single", "progress": False}
    generated = vfl.locate(vlm, out=tmp_path / "a", functions=["counting"], pairs=2, seed=3, **settings)
    make(tmp_path / "mine", ["counting"], pairs=2, seed=3, style=MICRO_STYLE)
    from_folder = vfl.locate(vlm, out=tmp_path / "b", probes=str(tmp_path / "mine"), **settings)
    assert from_folder.functions == generated.functions
    assert from_folder.probes_sha256 == generated.probes_sha256


@pytest.mark.slow
def test_the_embedded_model_keeps_its_promises():
    measured = evaluate(EMBEDDED, read_truth(EMBEDDED), pairs=100, seed=2026)
    assert all(row.passed for row in measured), "\n".join(row.line() for row in measured)

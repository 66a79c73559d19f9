"""The same pairs on weights drawn anew: all are swept, and what the rule names there stands in the map."""

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from fake_records import Fake, records, sharp
from own_suite import write_own_suite

import vfl
from vfl.errors import InputError
from vfl.functionmap import FunctionMap, ModelId
from vfl.loading.untrained import refuse_unequal, untrained
from vfl.locate.layer_rule import ChoiceConfig
from vfl.locate.map_entries import build_entries, with_random_weights

PAIRS, ANSWER = 4, 3


@pytest.fixture(scope="module")
def vlm(loaded):
    return loaded("qwen2_5_vl")


@pytest.fixture(scope="module")
def run(vlm, tmp_path_factory):
    suite = write_own_suite(vlm, tmp_path_factory.mktemp("suite") / "probes", PAIRS, max_new_tokens=ANSWER)
    out = tmp_path_factory.mktemp("random")
    how = {"probes": str(suite), "random_weights": True, "mode": "single", "max_new_tokens": ANSWER, "progress": False}
    return out, vfl.locate(vlm, out=out, **how), how


def test_weights_are_drawn_by_the_seed_and_all_else_is_kept(vlm):
    before = {name: weight.clone() for name, weight in vlm.model.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = (untrained(vlm, seed).model for seed in (0, 0, 1))
    assert torch.equal(torch.rand(3), expected), "the caller's own random numbers go on as they were"
    for name, weight in one.named_parameters():
        assert torch.equal(weight, same.get_parameter(name)), name
        assert weight.shape == before[name].shape
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)
    for name, buffer in vlm.model.named_buffers():
        assert torch.equal(buffer, one.get_buffer(name)), name
    assert all(torch.equal(before[name], weight) for name, weight in vlm.model.state_dict().items())
    assert untrained(vlm, 0).dtype == vlm.dtype


def test_a_model_that_weights_drawn_anew_would_not_be_like_is_refused(vlm, monkeypatch):
    monkeypatch.setattr(vlm.model, "is_quantized", True, raising=False)
    with pytest.raises(InputError, match="quantised or spread over several devices"):
        refuse_unequal(vlm)


def test_all_pairs_are_swept_with_their_controls_and_texts_compared(run):
    out, fmap, _ = run
    table = pq.read_table(out / "random-weights.parquet")
    assert all(table["kept"].to_pylist())
    names = set(table["function"].to_pylist())
    assert set(fmap.functions) <= names
    layers = fmap.model.num_layers
    for name in names:
        rows = table.filter(pc.field("function") == name)
        swaps = rows["swap"].to_pylist()
        assert (swaps.count("none"), swaps.count("source")) == (PAIRS, PAIRS * layers)
        for row in rows.filter(pc.field("swap") != "none").to_pylist():
            assert row["changed"] == (row["answer"] != row["baseline_answer"])
            assert row["followed_source"] == (row["answer"] == row["source_baseline"])
    assert table.filter(pc.field("swap") == "control").num_rows > 0


def test_the_map_and_the_report_hold_it(run):
    out, fmap, _ = run
    for entry in fmap.functions.values():
        assert entry.random_weights.seed == 0
        assert entry.random_weights.layers == [], "four pairs can name none"
        assert len(entry.random_weights.changed) == fmap.model.num_layers
        assert entry.random_weights.in_words() == "with random weights (seed 0) the rule names no layer"
    assert FunctionMap.load(out) == fmap
    assert fmap.settings["random_weights"] is True
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count('class="untrained"') == len(fmap.functions)
    assert "With random weights (seed 0) the rule names no layer." in page


def test_killed_behind_its_sweeps_a_run_asks_no_pair_again(run, vlm, monkeypatch):
    out, fmap, how = run
    (out / "map.json").unlink()
    monkeypatch.setattr("vfl.locate.sweeping.sweep_group", None)
    assert vfl.locate(vlm, out=out, resume=True, **how) == fmap
    assert not (out / "random-weights-parts").exists()


def test_a_layer_that_is_named_there_is_said():
    choice = ChoiceConfig(bootstrap=0, permutations=0)
    entries = build_entries(records({"ocr": Fake(sharp(5))}), 12, choice)
    anew = build_entries(records({"ocr": Fake(sharp(2))}), 12, choice)
    entry = with_random_weights(entries, anew, seed=3)["ocr"]
    assert entry.layers == [5]
    assert "With random weights (seed 3) the rule names 2: what no training put there" in entry.lines()[-1]
    fmap = FunctionMap(model=ModelId(id="m", family="f", num_layers=12), functions={"ocr": entry})
    axes = fmap.plot().axes[0]
    assert any(list(line.get_ydata()) == [100 * rate for rate in entry.random_weights.changed] for line in axes.lines)

"""Pairs of a group are swept together and say what each says alone; the map takes a group as one sample."""

from collections import Counter

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from fake_records import Fake, records, sharp

import vfl
from vfl.engine import joint_prefill
from vfl.errors import InputError
from vfl.evaluate.items import items_of_probes
from vfl.locate import pairs
from vfl.locate.map_entries import build_entries
from vfl.locate.pairs import groups, sweep_group, sweep_pair
from vfl.locate.records import write_part
from vfl.metrics.swap import swap
from vfl.probes.asking import Asker
from vfl.probes.make import make
from vfl.probes.style import MICRO_STYLE

QUIET = {"progress": False}


@pytest.fixture(scope="module")
def embedded():
    return vfl.load("embedded")


@pytest.fixture(scope="module")
def grouped(tmp_path_factory):
    functions = ("recognition", "counting", "grounding", "ocr")
    return make(tmp_path_factory.mktemp("grouped"), functions, pairs=12, style=MICRO_STYLE, group=4)


def test_a_group_says_what_its_pairs_say_alone(embedded, grouped):
    blocks = [(0, 0), (5, 5), (7, 8), (0, 9)]
    for group in groups(grouped):
        rows = sweep_group(Asker(embedded), group, blocks)
        together = {(row["pair_id"], row["swap"], row["first"], row["last"]): row for row in rows}
        alone = [row for pair in group for row in sweep_pair(Asker(embedded), pair, blocks)]
        assert len(together) == len(alone)
        for row in alone:
            other = together[row["pair_id"], row["swap"], row["first"], row["last"]]
            for name in ("logprob_answer", "logprob_source_answer"):
                assert other[name] == pytest.approx(row[name], abs=2e-4), (row, other)
            assert {**other, **{name: None for name in row if "logprob" in name}} == {
                **row,
                **{name: None for name in row if "logprob" in name},
            }


def test_visits_together_say_what_each_says_alone(embedded, grouped):
    blocks = [(0, 0), (5, 5)]
    for function in ("counting", "ocr"):
        asked = [pair for pair in grouped if pair.function == function]
        several = [visit for group in groups(asked) for visit in pairs.visits(group)]
        asker = Asker(embedded)
        for visit, rows in zip(several, pairs.sweep_visits(asker, several, blocks), strict=True):
            alone = pairs.sweep_visit(asker, visit, blocks)
            assert len(rows) == len(alone) > 0
            for row, other in zip(rows, alone, strict=True):
                for name in ("logprob_answer", "logprob_source_answer"):
                    assert row.pop(name) == pytest.approx(other.pop(name), abs=2e-4)
                assert row == other


def test_an_answer_is_read_by_the_two_answers_of_each_pair(embedded, grouped, monkeypatch):
    """A text that holds both is no answer; one that holds the target's and some third is."""
    ocr = [pair for pair in grouped if pair.function == "ocr"]
    first = next(pair for pair in ocr if all(row["kept"] for row in sweep_pair(Asker(embedded), pair, [])))
    asked = [pair for pair in ocr if pair.image == first.image]
    real = pairs.read_answer

    def torn(vlm, pair, text, encoded):
        text = real(vlm, pair, text, encoded)
        return f"{text} or {asked[0].source_answer}" if text == first.answer else text

    monkeypatch.setattr(pairs, "read_answer", torn)
    together = {row["pair_id"]: row["target_correct"] for row in sweep_group(Asker(embedded), asked, [])}
    assert together == {pair.id: sweep_pair(Asker(embedded), pair, [])[0]["target_correct"] for pair in asked}
    assert set(together.values()) == {True, False}


def test_an_image_of_a_group_is_prefilled_once(embedded, grouped, monkeypatch):
    prefilled = Counter()
    real = joint_prefill.prefill_all

    def counted(vlm, prompts):
        prefilled.update(prompt.image_key for prompt in prompts)
        return real(vlm, prompts)

    monkeypatch.setattr("vfl.probes.asking.prefill_all", counted)
    counting = [pair for pair in grouped if pair.function == "counting"]
    sweep_group(Asker(embedded), counting, [(5, 5)])
    assert len(counting) == 12
    assert prefilled.total() == len(prefilled) == 8, "four images and their controls"


def test_groups_of_a_suite_stay_together_wherever_their_lines_stand(grouped):
    shuffled = [grouped[n] for n in np.random.default_rng(0).permutation(len(grouped))]
    dealt = groups(shuffled)
    assert sorted(map(len, dealt)) == sorted(map(len, groups(grouped)))
    assert all(len({pair.group for pair in group}) == 1 for group in dealt)


def test_the_map_of_groups_names_the_planted_layers(tmp_path):
    fmap = vfl.locate("embedded", out=tmp_path, pairs=60, group=3, functions=["counting", "ocr"], **QUIET)
    assert {name: entry.layers for name, entry in fmap.functions.items()} == {"counting": [5], "ocr": [8]}
    counting = fmap.functions["counting"]
    assert (counting.kept, counting.groups) == (60, 10)
    assert counting.ci_low[5] < 0.75, "ten scenes that agree are ten samples, not sixty"
    assert fmap.settings["group"] == 3
    # Killed with four groups of each function saved, a run goes on to the very same.
    whole = pq.read_table(tmp_path / "pairs.parquet")
    saved = [f"{name}-{number:04d}" for name in fmap.functions for number in range(4)]
    write_part(tmp_path / "parts", whole.filter(pc.field("group").isin(saved)))
    (tmp_path / "pairs.parquet").unlink()
    (tmp_path / "map.json").unlink()
    again = vfl.locate("embedded", out=tmp_path, pairs=60, group=3, functions=["counting", "ocr"], resume=True, **QUIET)
    assert again == fmap
    assert pq.read_table(tmp_path / "pairs.parquet").equals(whole)


def test_groups_that_are_too_few_are_refused_before_a_pair_is_asked(tmp_path):
    with pytest.raises(InputError, match=r"20 pairs of counting are 4 groups of 3 images.*at least 8 .*--pairs 48"):
        vfl.locate("embedded", out=tmp_path / "out", pairs=20, group=3, functions=["counting"], **QUIET)
    assert not (tmp_path / "out" / "probes").exists()


def test_a_suite_with_too_few_groups_names_nothing_and_says_why():
    table = records({"ocr": Fake(sharp(5), pairs=60, group=12)}, 12)
    (entry,) = build_entries(table, 12).values()
    assert entry.layers == []
    assert entry.stability is None
    assert "60 kept pairs are of 5 groups" in entry.warnings[0]
    (enough,) = build_entries(records({"ocr": Fake(sharp(5), pairs=60, group=4)}, 12), 12).values()
    assert enough.layers == [5]
    (alone,) = build_entries(records({"ocr": Fake(sharp(5), pairs=60)}, 12), 12).values()
    assert alone.groups is None
    width = {n: e.ci_high[5] - e.ci_low[5] for n, e in (("grouped", enough), ("alone", alone))}
    assert width["grouped"] > width["alone"], "pairs that share their fate say less"


def test_an_evaluation_asks_each_image_of_a_group_once(embedded, grouped):
    counting = [pair for pair in grouped if pair.function == "counting"]
    items = items_of_probes(embedded, counting, ("image", "source_image"))
    assert len(items) == len({pair.image for pair in counting}) == 4
    alone = [pair.model_copy(update={"group": None}) for pair in counting]
    assert len(items_of_probes(embedded, alone, ("image", "source_image"))) == 24


def test_the_metric_of_swapping_takes_a_group_as_one_sample(embedded, grouped):
    counting = [pair for pair in grouped if pair.function == "counting"]
    peak = swap(embedded, counting)["scalars"]["counting/peak_changed"]
    alone = swap(embedded, [pair.model_copy(update={"group": None}) for pair in counting])["scalars"]
    assert peak["value"] == alone["counting/peak_changed"]["value"] == 1.0
    assert peak["low"] < alone["counting/peak_changed"]["low"], "one scene that agrees is one sample"

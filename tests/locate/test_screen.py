"""What a screen leaves out, when it leaves out nothing, and that the map says so."""

import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from fake_records import Fake, records, redundant, sharp
from pydantic import ValidationError

from vfl.engine.swap_estimates import SwapEstimates
from vfl.errors import InputError
from vfl.functionmap import FunctionEntry, FunctionMap, ModelId
from vfl.locate.config import LocateConfig
from vfl.locate.curves import outcomes
from vfl.locate.gaps import gaps_of
from vfl.locate.layer_rule import ChoiceConfig, Families, single_blocks, window_blocks
from vfl.locate.map_entries import build_entries
from vfl.locate.report.page import render_report
from vfl.locate.schedule import next_blocks
from vfl.locate.screen_rule import BOUND, SMALL, screening, survivors
from vfl.locate.screening import Scores, is_usable, read_scores, refuse_unscreenable, save_scores, scores_of
from vfl.locate.significance import levels
from vfl.report import charts
from vfl.report.map_figure import curves_figure

L, PAIRS = 12, 60
CHOICE = ChoiceConfig(bootstrap=50)
WHOLE = [*single_blocks(L), *window_blocks(L)]


def scores(away, back=None, changed=(), pairs=16, samples=None, asked=16):
    """Scores of some layers; the others are at 0."""
    curve, other = [0.0] * L, [0.0] * L
    for of, given in ((curve, away), (other, back or {})):
        for layer, score in given.items():
            of[layer] = score
    return Scores(pairs=pairs, samples=samples or pairs, away=curve, back=other, changed=list(changed), asked=asked)


class _Pair:
    def __init__(self, number):
        self.id = f"f-{number:04d}"


def screen_of(found, tmp_path, **settings):
    config = LocateConfig(out=tmp_path, screen=True, choice=CHOICE, **settings)
    return screening(config, "f", found, [_Pair(number) for number in range(PAIRS)], WHOLE, L)


def without(table, blocks, pairs=None):
    """Records of a sweep that left blocks out, but for the first pairs, which a screen sweeps in full."""
    span = pc.add(pc.multiply(pc.cast(table["first"], pa.int32()), 100), pc.cast(table["last"], pa.int32()))
    gone = pc.is_in(span, value_set=pa.array([100 * first + last for first, last in blocks], pa.int32()))
    late = pc.greater_equal(table["pair_id"], f"f-{pairs or 0:04d}")
    return table.filter(pc.invert(pc.and_(gone, late)))


def test_layers_pass_by_what_they_take_away_or_bring_back_or_change() -> None:
    assert survivors(scores({5: 0.6, 2: 0.6 * BOUND, 1: 0.59 * BOUND}), L, CHOICE) == ({2, 5}, "")
    # Layers 8 and 9 can each serve: neither takes anything away, and each brings it back.
    assert survivors(scores({5: 0.6}, {5: 0.3, 8: 0.3, 9: 0.2}), L, CHOICE)[0] == {5, 8, 9}
    changed = [(3, 3), (3, 4), (7, 8), (6, 8)]
    assert survivors(scores({5: 0.6}, changed=changed), L, CHOICE)[0] == {3, 5, 7, 8}, "and of windows the narrowest"


def test_a_screen_that_says_little_leaves_nothing_out(tmp_path) -> None:
    for found, why in (
        (scores({5: SMALL / 2}, {5: 0.9}), "no layer alone is estimated to take more than 10% of the log-odds"),
        (scores({5: 0.9}, pairs=7), "7 pairs could be screened, and 8 are needed"),
        (scores({5: 0.9}, pairs=42, samples=7), "7 groups of pairs could be screened, and 8 are needed"),
        (scores({5: 0.9}, asked=PAIRS), "there are no more pairs than the 60 that a screen sweeps in full"),
    ):
        left_out = screen_of(found, tmp_path).left_out(records({"f": Fake(sharp(5))}, L).slice(0, 0))
        assert left_out.blocks == ()
        assert left_out.screen.skipped == []
        assert left_out.screen.in_words().startswith(f"all layers were swept: {why}")


def test_blocks_without_a_layer_that_passed_are_left_out(tmp_path) -> None:
    screen = screen_of(scores({5: 0.6}), tmp_path)
    asked = screen.asked(records({"f": Fake(sharp(5))}, L).slice(0, 0))
    assert asked == [block for block in WHOLE if block[0] <= 5 <= block[1]]
    assert len(asked) == 1 + 2 + 3
    assert (3, 3) in screen_of(scores({5: 0.6}), tmp_path, layers={"f": [3]}).asked(records({}, L)), "the user's own"


def test_a_screened_map_is_that_of_the_full_sweep_with_gaps(tmp_path) -> None:
    blocks = [*window_blocks(L), *gaps_of([5], L)]
    fake = Fake(sharp(5), lambda a, b: 0.1 if a == 2 else 0.0, blocks=blocks, pairs=PAIRS)
    whole = records({"f": fake}, L)
    screen = screen_of(scores({5: 0.6, 2: 0.1}), tmp_path)
    before = screen.left_out(whole.slice(0, 0))
    swept = without(whole, before.blocks, pairs=16)
    left_out = screen.left_out(swept)
    assert left_out == before, "the layers that passed explain the answers"
    assert next_blocks(swept, "f", L, CHOICE, left_out.blocks) == []
    full = build_entries(whole, L, CHOICE)["f"]
    assert [block.layers[-1] for block in full.gaps] == [4, 11], "what was skipped is swapped with the others"
    entry = build_entries(swept, L, CHOICE, left_out={"f": left_out})["f"]
    assert entry.screen.skipped == [0, 1, 3, 4, 6, 7, 8, 9, 10, 11]
    curves = {"changed", "followed_source", "ci_low", "ci_high", "control", "logprob_effect", "unfiltered", "screen"}
    of_layers = {"layer_null", "equivalence"}  # of those that were swept
    assert entry.model_dump(exclude=curves | of_layers) == full.model_dump(exclude=curves | of_layers)
    assert entry.layer_null.layer == full.layer_null.layer == 5
    assert [entry.equivalence.states[k] for k in entry.screen.skipped] == ["undecided"] * 10
    for name in curves - {"screen", "unfiltered"}:
        gaps = [None if k in entry.screen.skipped else value for k, value in enumerate(getattr(full, name))]
        assert getattr(entry, name) == gaps, name
    words = "10 of 12 layers were skipped (0–1, 3–4, 6–11): each is estimated to do less than 2% of what the peak does"
    assert entry.screen.in_words().startswith(words)
    assert "changed no answer of 16 pairs" in entry.screen.in_words()


def test_skipped_layers_that_serve_together_come_back(tmp_path) -> None:
    """Each of 0 to 3 stands in for the others beside layer 6: no estimate and no window shows them, one swap does."""
    wide = {(0, last) for last in range(3, 6)}
    fake = Fake(lambda a, b: 0.9 if a <= 6 <= b or (a, b) in wide else 0.0, blocks=window_blocks(L), pairs=PAIRS)
    screen = screen_of(scores({6: 0.6}), tmp_path)
    left_out, wanted = screen.left_out(records({}, L)), [(0, 0)]
    while wanted:
        swept = without(records({"f": fake}, L), left_out.blocks, pairs=16)
        left_out = screen.left_out(swept)
        wanted = next_blocks(swept, "f", L, CHOICE, left_out.blocks)
        fake.blocks += [block for block in wanted if block[0] != block[1] and block not in fake.blocks]
    entry = build_entries(swept, L, CHOICE, left_out={"f": left_out})["f"]
    assert entry.layers == [0, 1, 2, 3, 6]
    assert entry.screen.skipped == [k for k in range(L) if k not in entry.layers]


def test_what_the_screen_did_not_see_is_swept_after_all(tmp_path) -> None:
    """Few answers explained by the layers that passed: the others are swept, on the pairs that lack them."""
    blocks = window_blocks(L)
    for fake, why in (
        (Fake(sharp(8), blocks=blocks), "the layers that passed the screen explain 0% of the answers"),
        (Fake(redundant(8, 9), blocks=blocks), "the layers that passed the screen explain 0% of the answers"),
        (Fake(sharp(5), control=False, blocks=blocks), "too few kept pairs have a control image"),
    ):
        whole = records({"f": fake}, L)
        screen = screen_of(scores({5: 0.6}), tmp_path)
        swept = without(whole, screen.left_out(whole.slice(0, 0)).blocks, pairs=16)
        for table in (swept, whole):  # the decision stays once the others are swept
            left_out = screen.left_out(table)
            assert left_out.blocks == ()
            assert left_out.screen.fallback.startswith(why)
        entry = build_entries(whole, L, CHOICE, left_out={"f": left_out})["f"]
        assert entry.layers == build_entries(whole, L, CHOICE)["f"].layers
        assert None not in entry.changed


def test_a_layer_inside_a_named_window_is_swept(tmp_path) -> None:
    """Layer 5 passed, 6 did not: were 6 alone to do all that both do, the window would be named for nothing."""
    whole = records({"f": Fake(redundant(5, 6), blocks=window_blocks(L), pairs=PAIRS)}, L)
    screen = screen_of(scores({5: 0.6}), tmp_path)
    first = screen.left_out(whole.slice(0, 0))
    assert (6, 6) in first.blocks
    then = screen.left_out(without(whole, first.blocks))
    assert (6, 6) not in then.blocks
    assert set(then.blocks) < set(first.blocks)
    entry = build_entries(without(whole, then.blocks), L, CHOICE, left_out={"f": then})["f"]
    assert (entry.layers, entry.chosen_by) == ([5, 6], "window")


def test_what_is_left_out_stays_in_the_family_of_hypotheses(tmp_path) -> None:
    """Holm's correction runs over all layers and all windows, those that were not swept with p = 1."""
    whole = records({"f": Fake(sharp(5), blocks=window_blocks(L), pairs=PAIRS)}, L)
    left_out = screen_of(scores({5: 0.6}), tmp_path).left_out(whole.slice(0, 0)).blocks
    data = outcomes(without(whole, left_out, pairs=16), "f", L, left_out)
    families = Families.of(data.blocks, L)
    assert set(data.blocks) == set(WHOLE)
    assert len(families.windows) == len(window_blocks(L))
    level = levels(data, np.ones((1, data.kept)), 0.05)
    assert {data.blocks[column] for column in np.flatnonzero(level.p[0] == 1.0)} >= set(left_out)
    full = levels(outcomes(whole, "f", L), np.ones((1, data.kept)), 0.05)
    swept = [column for column, block in enumerate(data.blocks) if block not in left_out]
    np.testing.assert_array_equal(level.p[0, swept], full.p[0, swept])


def test_scores_are_shares_of_the_log_odds_and_at_most_one() -> None:
    table = records({"f": Fake(sharp(1, 1.0), pairs=2)}, 3)
    away = [SwapEstimates(4.0, torch.tensor([1.0, 9.0, -0.4])), SwapEstimates(1.0, torch.tensor([0.5, 0.5, 0.0]))]
    back = SwapEstimates(2.0, torch.tensor([0.0, -1.0, 0.2]))
    found = {f"f-{number:04d}": (one, back) for number, one in enumerate(away)}
    got = scores_of(found, table, "f", 3, samples=2, asked=2)
    assert got.away == pytest.approx([(0.25 + 0.5) / 2, (1.0 + 0.5) / 2, 0.1 / 2])
    assert got.back == pytest.approx([0.0, 0.5, 0.1])
    assert got.changed == [(1, 1)]
    assert scores_of({}, table, "f", 3, samples=2, asked=2).away == [0.0, 0.0, 0.0]


def test_pairs_without_anything_to_take_are_not_used() -> None:
    one, overflown = SwapEstimates(1.0, torch.zeros(3)), SwapEstimates(1.0, torch.tensor([0.0, math.inf, 0.0]))
    assert is_usable((one, one))
    for other in (overflown, SwapEstimates(0.0, torch.zeros(3)), SwapEstimates(-1.0, torch.zeros(3))):
        assert not is_usable((one, other))
        assert not is_usable((other, one))


def test_what_the_control_changes_too_is_no_change() -> None:
    table = records({"f": Fake(sharp(1, 1.0), lambda a, b: 1.0 if a == 2 else 0.0, pairs=2)}, 3)
    both = SwapEstimates(1.0, torch.zeros(3))
    assert scores_of({"f-0000": (both, both)}, table, "f", 3, samples=1, asked=2).changed == [(1, 1)]


def test_scores_are_read_as_they_were_saved(tmp_path) -> None:
    first, second = scores({5: 1 / 3}, changed=[(5, 5), (4, 5)]), scores({2: math.pi / 10})
    save_scores(tmp_path, "a", first)
    save_scores(tmp_path, "b", second)
    assert read_scores(tmp_path) == {"a": first, "b": second}
    (tmp_path / "screen.json").write_text("[]")
    with pytest.raises(InputError, match=r"screen\.json is not what"):
        read_scores(tmp_path)


def test_what_cannot_be_screened_is_refused(tmp_path, loaded) -> None:
    for settings, why in (({"reading": "answer"}, "reading: answer"), ({"mode": "suffix"}, "mode: suffix")):
        with pytest.raises(ValidationError, match=why):
            LocateConfig(out=tmp_path, screen=True, **settings)
    with pytest.raises(InputError, match="--screen can't estimate the swaps of"):
        refuse_unscreenable(loaded("paligemma"))


def test_gaps_are_those_of_the_screen(tmp_path) -> None:
    whole = records({"f": Fake(sharp(5), pairs=PAIRS)}, L)
    screen = screen_of(scores({5: 0.6}), tmp_path, mode="single")
    left_out = screen.left_out(whole.slice(0, 0))
    entry = build_entries(whole, L, CHOICE, left_out={"f": left_out})["f"]
    content = entry.model_dump()
    for wrong, why in (
        ({"screen": None}, "a number for every layer but those skipped"),
        ({"changed": [0.0, *content["changed"][1:]]}, "a number for every layer but those skipped"),
        ({"layers": [4, 5], "stability": None}, "layer 4 is named and skipped"),
    ):
        with pytest.raises(ValidationError, match=why):
            FunctionEntry(**content | wrong)
    fmap = FunctionMap(model=ModelId(id="m", family="f", num_layers=L), functions={"f": entry})
    fmap.save(tmp_path / "map.json")
    assert FunctionMap.load(tmp_path / "map.json") == fmap
    assert "Screen: 11 of 12 layers were skipped" in fmap._repr_html_()
    plain = FunctionMap(model=fmap.model, functions=build_entries(whole, L, CHOICE))
    assert '"screen"' not in plain.to_json()


def test_figures_have_gaps_where_nothing_was_swept(tmp_path) -> None:
    assert charts.line([0.0, 0.5, None, 1.0, None]) == "M10.0 100.0 L30.0 50.0 M64.0 0.0 L76.0 0.0"
    assert charts.area([0.0, None], [0.5, None]) == "M10.0 50.0 L40.0 50.0 L40.0 100.0 L10.0 100.0 Z"
    assert charts.shade(None) not in (charts.shade(0.0), charts.shade(1.0))
    whole = records({"f": Fake(sharp(5), pairs=PAIRS)}, L)
    left_out = screen_of(scores({5: 0.6, 2: 0.2, 3: 0.2}), tmp_path, mode="single").left_out(whole.slice(0, 0))
    entry = build_entries(whole, L, CHOICE, left_out={"f": left_out})["f"]
    fmap = FunctionMap(model=ModelId(id="m", family="f", num_layers=L), functions={"f": entry})
    page = render_report(fmap, {})
    assert "f, layer 0: not swept" in page
    assert "f, layer 5: " in page
    assert "Screen: 9 of 12 layers were skipped" in page
    (axes,) = curves_figure(fmap).axes
    curve = next(line for line in axes.lines if len(line.get_xdata()) == L and line.get_color() != "#777777")
    assert [math.isnan(value) for value in curve.get_ydata()] == [k not in (2, 3, 5) for k in range(L)]

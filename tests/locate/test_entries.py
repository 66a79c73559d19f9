"""Layers chosen from simulated models whose serving layers are known."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_records import Fake, additive, records, redundant, sharp

from vfl.errors import InputError
from vfl.functionmap import FunctionEntry
from vfl.locate.layer_rule import ChoiceConfig, end_blocks, runs, single_blocks, window_blocks
from vfl.locate.map_entries import build_entries, kept_counts
from vfl.locate.schedule import next_blocks

L = 28
FAST = ChoiceConfig(bootstrap=60)
WINDOWS = window_blocks(L)
ENDS = end_blocks(L)


def entry(fake: Fake, choice: ChoiceConfig = FAST, num_layers: int = L, seed: int = 0) -> FunctionEntry:
    return build_entries(records({"f": fake}, num_layers, seed), num_layers, choice)["f"]


def staged(fake: Fake, num_layers: int = L) -> tuple[FunctionEntry, list[int]]:
    """The entry after sweeping what `next_blocks` asks for, and how many blocks each stage asked."""
    fake.blocks, asked = [], [num_layers]
    while True:
        table = records({"f": fake}, num_layers)
        wanted = next_blocks(table, "f", num_layers, FAST)
        if not wanted:
            return build_entries(table, num_layers, FAST)["f"], asked
        assert not set(wanted) & set(fake.blocks)
        fake.blocks += wanted
        asked.append(len(wanted))


def test_a_sharp_layer_is_found_alone() -> None:
    located = entry(Fake(sharp(20)))
    assert (located.layers, located.peak, located.distributed, located.chosen_by) == ([20], 20, False, "single")
    assert located.stability == [1.0]
    assert located.warnings == []


def test_a_function_over_many_layers_is_distributed_and_not_capped() -> None:
    located = entry(Fake(additive(0, 10, 0.4), pairs=100))
    assert located.layers == list(range(11))
    assert located.distributed


def test_the_cap_keeps_the_peaks_neighbours() -> None:
    heights = {9: 0.6, 10: 0.7, 11: 0.9, 12: 0.8, 13: 0.5}
    located = entry(Fake(lambda a, b: max(heights.get(k, 0.0) for k in range(a, b + 1)), pairs=200))
    assert located.layers == [10, 11, 12]
    assert located.peak == 11
    assert entry(Fake(sharp(3)), ChoiceConfig(cap=1, bootstrap=0)).layers == [3]


def test_layers_below_half_the_peak_are_left_out() -> None:
    located = entry(Fake(lambda a, b: 0.9 if a <= 12 <= b else 0.3 if a <= 20 <= b else 0.0, pairs=200))
    assert located.layers == [12]


def test_two_peaks_make_two_blocks() -> None:
    located = entry(Fake(lambda a, b: 0.9 if a <= 5 <= b else 0.7 if a <= 20 <= b else 0.0, pairs=100))
    assert located.layers == [5, 20]
    assert not located.distributed


def test_two_layers_that_can_each_serve_are_found_by_a_window() -> None:
    assert entry(Fake(redundant(5, 6))).layers == []
    located, asked = staged(Fake(redundant(5, 6)))
    assert (located.layers, located.chosen_by) == ([5, 6], "window")
    assert [(block.layers, block.changed > 0.8) for block in located.blocks] == [([5, 6], True)]
    assert asked == [L, len(WINDOWS), 2], "at last what lies below and above"


def test_three_redundant_layers_need_the_wider_window_and_gain_no_neighbour() -> None:
    assert staged(Fake(redundant(14, 16)))[0].layers == [14, 15, 16]
    assert staged(Fake(redundant(14, 15)))[0].layers == [14, 15]


def test_a_window_is_added_beside_single_layers() -> None:
    # Layer 4 serves some pairs alone; most are served by 4 or 5 alike.
    located, _ = staged(Fake(lambda a, b: 0.9 if a <= 4 and b >= 5 else 0.4 if a <= 4 <= b else 0.0, pairs=100))
    assert located.layers == [4, 5]
    assert located.peak == 4
    assert [block.layers for block in located.blocks] == [[4, 5]]


def test_a_long_redundant_range_is_found_from_both_ends_and_verified() -> None:
    located, asked = staged(Fake(redundant(5, 12)))
    assert (located.layers, located.chosen_by) == (list(range(5, 13)), "range")
    assert located.distributed
    assert [block.layers for block in located.blocks] == [list(range(5, 13))]
    assert asked[0] == L
    assert len(asked) == 4
    assert asked[-1] == 1
    unverified = entry(Fake(redundant(5, 12), blocks=WINDOWS + ENDS))
    assert unverified.layers == list(range(5, 13))
    assert "were not swapped together" in unverified.warnings[0]


def test_a_range_whose_joint_swap_does_nothing_is_not_named() -> None:
    rate = redundant(5, 12)
    fake = Fake(lambda a, b: 0.0 if (a, b) == (5, 12) else rate(a, b), blocks=[*WINDOWS, *ENDS, (5, 12)])
    located = entry(fake)
    assert located.layers == []
    assert any("not named" in warning for warning in located.warnings)


def test_a_function_spread_thin_gets_the_middle_of_its_rise() -> None:
    located, _ = staged(Fake(additive(2, 26, 0.03), pairs=150))
    assert located.chosen_by == "range"
    assert located.layers
    assert set(located.layers) < set(range(2, 27))
    assert located.layers[0] <= 14 <= located.layers[-1]
    assert any("spread" in warning for warning in located.warnings)


@pytest.mark.parametrize("rate", [0.2, 0.6, 0.95])
def test_pure_disruption_is_no_function(rate: float) -> None:
    fake = Fake(lambda a, b: 0.0, lambda a, b: rate if a < 6 else 0.0, pairs=300, blocks=WINDOWS + ENDS)
    located = entry(fake)
    assert located.control == located.changed
    assert (located.layers, located.peak, located.chosen_by) == ([], None, "nothing")
    assert any("No layer" in warning for warning in located.warnings)


def test_disruption_does_not_hide_the_function() -> None:
    fake = Fake(sharp(18, 0.6), lambda a, b: 0.8 if a == 0 else 0.0, pairs=100)
    assert entry(fake).layers == [18]


def test_without_control_the_floor_decides_and_the_entry_says_so() -> None:
    located = entry(Fake(sharp(4), control=False))
    assert (located.layers, located.tested_against, located.control) == ([4], "floor", None)
    weak = entry(Fake(sharp(4, 0.08), control=False, pairs=60))
    assert weak.layers == []


def test_few_kept_pairs_are_said_loudly() -> None:
    located = entry(Fake(sharp(3), pairs=15))
    assert "15 of 15 pairs were kept, which is fewer than 20" in located.warnings[0]
    hopeless = entry(Fake(sharp(3, 1.0), pairs=6))
    assert hopeless.layers == []
    assert "At least 10 kept pairs are needed" in hopeless.warnings[0]
    assert entry(Fake(sharp(3), pairs=20)).warnings == []


def test_no_kept_pair_is_an_error_that_names_the_function() -> None:
    table = records({"ocr": Fake(sharp(3)), "chart": Fake(sharp(3), pairs=4, accuracy=0)}, 6)
    assert kept_counts(table) == {"ocr": (60, 60), "chart": (0, 4)}
    with pytest.raises(InputError, match=r"both images for chart.*--functions"):
        build_entries(table, 6, FAST)


def test_a_users_layers_replace_the_rules() -> None:
    table = records({"ocr": Fake(sharp(3)), "counting": Fake(sharp(5))}, 8)
    entries = build_entries(table, 8, FAST, {"ocr": [7, 2, 3]})
    assert (entries["ocr"].layers, entries["ocr"].chosen_by, entries["ocr"].peak) == ([2, 3, 7], "user", 3)
    assert entries["ocr"].stability == [0.0, 1.0, 0.0]
    assert entries["counting"].layers == [5]
    for override in ({"ocr": [8]}, {"ocr": []}, {"reading": [1]}):
        with pytest.raises(InputError, match="were given for"):
            build_entries(table, 8, FAST, override)


def test_neither_order_nor_the_way_of_reading_changes_the_entries(tmp_path: Path) -> None:
    table = records({"a": Fake(additive(3, 5, 0.3), pairs=40), "b": Fake(redundant(6, 7), blocks=window_blocks(9))}, 9)
    shuffled = table.take(pa.array(np.random.default_rng(5).permutation(table.num_rows)))
    path = tmp_path / "pairs.parquet"
    pq.write_table(shuffled, path)
    assert build_entries(table, 9, FAST) == dict(sorted(build_entries(path, 9, FAST).items()))


@pytest.mark.parametrize("seed", range(5))
def test_stability_is_a_share_and_low_where_the_choice_is_close(seed: int) -> None:
    close = entry(Fake(sharp(6, 0.25), pairs=40), ChoiceConfig(bootstrap=200), num_layers=10, seed=seed)
    assert all(0 <= share <= 1 for share in close.stability or [])
    again = entry(Fake(sharp(6, 0.25), pairs=40), ChoiceConfig(bootstrap=200), num_layers=10, seed=seed)
    assert again == close
    assert entry(Fake(sharp(6)), ChoiceConfig(bootstrap=0)).stability is None


def test_followed_source_never_exceeds_changed_here_and_intervals_hold_the_rate() -> None:
    located = entry(Fake(additive(4, 9, 0.15), lambda a, b: 0.1, pairs=80))
    for followed, changed, low, high in zip(
        located.followed_source, located.changed, located.ci_low, located.ci_high, strict=True
    ):
        assert followed <= changed
        assert low <= changed <= high


def test_nothing_is_asked_of_a_function_without_kept_pairs() -> None:
    table = records({"f": Fake(sharp(3), pairs=5, accuracy=0)}, 6)
    assert next_blocks(table, "f", 6) == []
    assert next_blocks(table, "unswept", 6) == [*single_blocks(6), *window_blocks(6)]


def test_blocks_are_complete() -> None:
    assert window_blocks(4) == [(0, 1), (1, 2), (2, 3), (0, 2), (1, 3)]
    assert end_blocks(3) == [(0, 0), (0, 1), (0, 2), (1, 2), (2, 2)]
    assert list(runs([1, 2, 5])) == [[1, 2], [5]]
    assert window_blocks(1) == []


def test_one_and_two_layer_models_work() -> None:
    for num_layers in (1, 2):
        located, _ = staged(Fake(sharp(0, 1.0)), num_layers)
        assert located.layers == [0]


def test_entries_are_json() -> None:
    located = entry(Fake(sharp(2)), num_layers=5)
    assert FunctionEntry.model_validate(json.loads(located.model_dump_json())) == located

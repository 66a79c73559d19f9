"""Simulated maps that once named what is not there, or kept silent about what is."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from fake_records import Fake, records, sharp

from vfl.functionmap import FunctionEntry
from vfl.locate.layer_rule import ChoiceConfig, end_blocks, window_blocks
from vfl.locate.map_entries import build_entries
from vfl.locate.schedule import next_blocks

L = 28
DEPTH = 12
FAST = ChoiceConfig(bootstrap=20)


def entry(table: pa.Table, num_layers: int = L, choice: ChoiceConfig = FAST) -> FunctionEntry:
    return build_entries(table, num_layers, choice)["f"]


def nowhere(first: int, last: int) -> float:
    return 0.0


def test_flat_disruption_without_control_is_no_function() -> None:
    """Named layers in every map when the floor was 5 % whatever the swaps do."""
    named = 0
    for seed in range(40):
        fake = Fake(nowhere, lambda a, b: 0.1, pairs=100, control=False)
        table = _independent(records({"f": fake}, L, seed), seed)
        named += bool(entry(table, choice=ChoiceConfig(bootstrap=0)).layers)
    assert named <= 5


def test_without_control_a_planted_layer_stands_out_and_the_floor_is_said() -> None:
    fake = Fake(sharp(9, 0.8), lambda a, b: 0.1, pairs=100, control=False)
    result = entry(_independent(records({"f": fake}, L), 0))
    assert result.layers == [9]
    assert result.tested_against == "floor"
    assert result.floor == pytest.approx(0.1, abs=0.05)
    assert "No kept pair has a control swap: layers were tested against a floor of" in result.warnings[0]


@pytest.mark.parametrize("control", [True, False])
@pytest.mark.parametrize("kept", [2, 3, 9])
def test_too_few_kept_pairs_name_nothing(kept: int, control: bool) -> None:
    """Two kept pairs of 50 named a layer, with a stability of 100 %."""
    result = entry(records({"f": Fake(sharp(9, 1.0), pairs=50, accuracy=kept / 50, control=control)}, L))
    assert (result.kept, result.layers, result.stability, result.also_significant) == (kept, [], None, [])
    assert "At least 10 kept pairs are needed" in result.warnings[0]
    own = build_entries(records({"f": Fake(sharp(9, 1.0), pairs=kept, control=control)}, L), L, FAST, {"f": [9]})["f"]
    assert (own.layers, own.stability) == ([9], None)


@pytest.mark.parametrize("controlled", [1, 4, 9, 12])
def test_a_handful_of_controls_does_not_hide_a_layer_that_changes_everything(controlled: int) -> None:
    table = records({"f": Fake(sharp(9, 1.0), pairs=50)}, L)
    first = [f"f-{n:04d}" for n in range(controlled)]
    table = table.filter((pc.field("swap") != "control") | pc.field("pair_id").isin(first))
    result = entry(table)
    assert (result.layers, result.tested_against) == ([9], "floor")
    assert f"Only {controlled} of 50 kept pairs have a control swap (at least 20 are needed)" in result.warnings[0]


def test_most_controls_decide() -> None:
    table = records({"f": Fake(sharp(9, 0.8), lambda a, b: 0.7 if a == 3 else 0.0, pairs=50)}, L)
    first = [f"f-{n:04d}" for n in range(30)]
    table = table.filter((pc.field("swap") != "control") | pc.field("pair_id").isin(first))
    result = entry(table)
    assert (result.layers, result.tested_against, result.floor) == ([9], "control", None)


def test_a_significant_layer_under_half_of_the_peak_is_said() -> None:
    def rate(first: int, last: int) -> float:
        return 0.9 if first <= 9 <= last else 0.24 if first <= 20 <= last else 0.0

    result = entry(records({"f": Fake(rate, pairs=200)}, L))
    assert (result.layers, result.also_significant) == ([9], [20])


def test_a_function_whose_pairs_are_each_served_by_another_layer_is_not_passed_off_as_one_layer() -> None:
    silent = named = 0
    for seed in range(4):
        layer_of = np.random.default_rng(seed).integers(0, DEPTH, 60)
        wider = [block for block in window_blocks(DEPTH) + end_blocks(DEPTH) if block[0] != block[1]]
        result = entry(_served(layer_of, wider), DEPTH, ChoiceConfig(bootstrap=0))
        if not result.layers or result.chosen_by == "range" or (result.explained or 0) >= 0.5:
            continue
        named += 1
        silent += not any("explain only" in warning for warning in result.warnings)
        asked = next_blocks(_served(layer_of, window_blocks(DEPTH)), "f", DEPTH, FAST)
        assert set(asked) == {block for block in end_blocks(DEPTH) if block[0] != block[1]} - set(window_blocks(DEPTH))
    assert not silent
    assert named  # otherwise this says nothing


def test_what_one_layer_serves_needs_no_prefixes_and_its_share_is_said() -> None:
    fake = Fake(sharp(9, 0.9), pairs=100)
    fake.blocks = window_blocks(L)
    assert next_blocks(records({"f": fake}, L), "f", L, FAST) == [(0, 8), (10, L - 1)]
    fake.blocks += [(0, 8), (10, L - 1)]
    table = records({"f": fake}, L)
    assert next_blocks(table, "f", L, FAST) == []
    result = entry(table)
    assert result.explained == pytest.approx(0.9, abs=0.1)
    assert result.warnings == []


def _served(layer_of: np.ndarray, blocks: list[tuple[int, int]]) -> pa.Table:
    """Records in which pair n changes under every block that holds layer_of[n]."""
    table = records({"f": Fake(nowhere, pairs=len(layer_of), blocks=list(dict.fromkeys(blocks)))}, DEPTH)

    def changed(row: dict) -> bool:
        layer = layer_of[int(row["pair_id"].split("-")[1])]
        return row["swap"] == "source" and bool(row["first"] <= layer <= row["last"])

    return _with_changed(table, changed)


def _independent(table: pa.Table, seed: int) -> pa.Table:
    """Disruption drawn for each layer anew: a pair's luck at one layer says nothing about the next."""
    rng = np.random.default_rng(seed)
    return _with_changed(table, lambda row: row["swap"] == "source" and (row["followed_source"] or rng.random() < 0.1))


def _with_changed(table: pa.Table, changed: Callable[[dict], bool]) -> pa.Table:
    column = pa.array([changed(row) for row in table.to_pylist()])
    return table.set_column(table.column_names.index("changed"), "changed", column)

"""What serves a function beside the named layers, in more of them than windows hold, is found, or said to be there."""

from collections.abc import Callable, Sequence

import pyarrow as pa
import pytest
from fake_records import Block, Fake, records, sharp

from vfl.functionmap import FunctionEntry
from vfl.locate.config import LocateConfig
from vfl.locate.gaps import gaps_of, wide_windows
from vfl.locate.layer_rule import ChoiceConfig, end_blocks, window_blocks
from vfl.locate.map_entries import build_entries
from vfl.locate.records import joined, table_of
from vfl.locate.schedule import next_blocks
from vfl.locate.sweeping import _next_stage, first_blocks

L = 12
QUICK = ChoiceConfig(bootstrap=40, permutations=0)


def swept(fake: Fake, num_layers: int = L) -> tuple[FunctionEntry, list[list[Block]]]:
    """The entry after all stages, and what each asked."""
    fake.blocks, stages = [], []
    while wanted := next_blocks(records({"f": fake}, num_layers), "f", num_layers, QUICK):
        stages.append(wanted)
        assert not set(wanted) & set(fake.blocks), "no block twice"
        fake.blocks += wanted
    return build_entries(records({"f": fake}, num_layers), num_layers, QUICK)["f"], stages


def both(*sets: range, rate: float = 0.95) -> Callable[[int, int], float]:
    """Each of the sets, swapped whole, changes the answer."""
    return lambda a, b: rate if any(a <= one[0] and one[-1] <= b for one in sets) else 0.0


def test_four_layers_beside_a_named_one_are_found_by_the_swap_of_all_that_is_not_named() -> None:
    located, stages = swept(Fake(both(range(6, 7), range(4))))
    assert (located.layers, located.peak, located.chosen_by) == ([0, 1, 2, 3, 6], 6, "window")
    assert [block.layers for block in located.blocks] == [[0, 1, 2, 3]]
    assert located.stability == [1.0] * 5
    assert stages[1] == [(0, 5), (7, 11)]
    assert stages[2] == wide_windows((0, 5)), "the other gap is shut, and the layers at 4 and 5 are no gap"
    assert len(stages) == 3
    assert located.deletion is not None
    assert located.deletion.at_least[:4] == [1] * 4, "nothing is proved of what depends on the gap"
    assert located.deletion.at_least[4] > 1


def test_what_is_left_of_a_gap_is_a_gap_again() -> None:
    located, stages = swept(Fake(both(range(19, 20), range(6, 10), range(12, 16))), num_layers=28)
    assert located.layers == [*range(6, 10), *range(12, 16), 19]
    assert [block.layers for block in located.gaps] == [list(range(6)), list(range(20, 28))]
    assert stages[1] == [(0, 18), (20, 27)]
    assert (0, 5) in stages[3]


def test_a_gap_that_does_nothing_costs_one_swap_and_shows_that_its_layers_are_not_read() -> None:
    located, stages = swept(Fake(sharp(5), pairs=80))
    assert stages[1:] == [[(0, 4), (6, 11)]]
    assert [(block.layers, block.changed) for block in located.gaps] == [
        (list(range(5)), 0.0),
        (list(range(6, 12)), 0.0),
    ]
    assert located.equivalence is not None
    assert located.equivalence.of("not read") == [k for k in range(L) if k != 5]
    assert located.warnings == []


def test_five_layers_that_stand_in_for_each_other_are_not_named_and_it_is_said() -> None:
    located, _ = swept(Fake(both(range(8, 9), range(1, 6)), pairs=80))
    assert located.layers == [8]
    (warning,) = located.warnings
    assert warning.startswith("Layers 0–7, none of which is named, change 9")
    assert located.equivalence is not None
    assert located.equivalence.of("undecided") == list(range(8)), "none of them is shown not to be read"


def test_disruption_opens_no_gap() -> None:
    located, stages = swept(Fake(sharp(5), lambda a, b: 0.9 if b - a > 2 else 0.0, pairs=80))
    assert (located.layers, located.warnings, len(stages)) == ([5], [], 2)
    assert all(block.changed > 0.8 and block.control == block.changed for block in located.gaps)


def test_a_floor_says_nothing_of_gaps() -> None:
    located, stages = swept(Fake(both(range(6, 7), range(4)), control=False))
    assert (located.layers, located.gaps, len(stages)) == ([6], [], 1)


def test_prefixes_and_suffixes_alone_name_no_window_of_four_and_open_no_gap() -> None:
    """Layers 2 and 3 stand in for each other: without the window of them, 0-3 would be named in its place."""
    suffix = Fake(both(range(6, 7), range(2, 4)), blocks=end_blocks(L))
    located = build_entries(records({"f": suffix}, L), L, QUICK)["f"]
    assert (located.layers, located.chosen_by, located.blocks, located.warnings) == ([6], "single", [], [])
    suffix.blocks = [*end_blocks(L), *window_blocks(L)]
    assert build_entries(records({"f": suffix}, L), L, QUICK)["f"].layers == [2, 3, 6]


def test_a_prefix_of_four_is_named_once_all_windows_of_its_gap_are_swept() -> None:
    fake = Fake(both(range(8, 9), range(4), rate=0.4), blocks=[*window_blocks(L), *end_blocks(L)])
    located = build_entries(records({"f": fake}, L), L, QUICK)["f"]
    assert located.layers == [8]
    assert any(warning.startswith("Layers 0–7, none of which is named") for warning in located.warnings)
    located, stages = swept(fake)
    assert located.layers == [0, 1, 2, 3, 8]
    assert set(wide_windows((0, 7))) <= {block for stage in stages for block in stage}


def test_a_block_that_the_rule_names_is_none_of_a_users_layers() -> None:
    fake = Fake(both(range(6, 7), range(4)))
    swept(fake)
    located = build_entries(records({"f": fake}, L), L, QUICK, {"f": [4]})["f"]
    assert (located.blocks, [block.layers for block in located.gaps]) == ([], [[0, 1, 2, 3]])
    assert located.explained == 0.0, "of what layer 4 does"
    theirs = build_entries(records({"f": fake}, L), L, QUICK, {"f": [0, 1, 2, 3, 6]})["f"]
    assert [block.layers for block in theirs.blocks] == [[0, 1, 2, 3]]


def test_below_half_of_the_peak_a_gap_stays_shut() -> None:
    weak = Fake(lambda a, b: 0.9 if a <= 6 <= b else 0.4 if a <= 0 and b >= 3 else 0.0, pairs=80)
    located, stages = swept(weak)
    assert (located.layers, len(stages)) == ([6], 2)
    assert located.equivalence is not None
    assert located.equivalence.of("undecided") == list(range(6))


@pytest.mark.parametrize(("layers", "gaps"), [([], []), ([5], [(0, 4), (6, 11)]), ([3, 7], [(8, 11)])])
def test_gaps_are_runs_longer_than_a_window(layers: list[int], gaps: list[Block]) -> None:
    assert gaps_of(layers, L) == gaps


class _Pair:
    group = None

    def __init__(self, number: int) -> None:
        self.id = f"f-{number:04d}"


@pytest.mark.parametrize("served", [True, False])
def test_first_pairs_foretell_what_the_others_are_asked_in_their_one_visit(tmp_path, served) -> None:
    """So that all but the first 20 pairs have their images prefilled once."""
    blocks = [*window_blocks(L), *gaps_of([5], L), *end_blocks(L)]
    whole = records({"f": Fake(sharp(5) if served else lambda a, b: 0.0, pairs=50, blocks=list(set(blocks)))}, L)
    pairs = [_Pair(number) for number in range(50)]
    config = LocateConfig(out=tmp_path, mode="auto", choice=QUICK)
    table, stages, first = whole.slice(0, 0), [], set(first_blocks(L, config))
    while stage := _next_stage(table, L, function="f", pairs=pairs, config=config, screen=None):
        wanted, todo = stage
        stages.append((len(todo), set(wanted) >= first, len(set(wanted) - first)))
        table = joined([table, _asked(whole, wanted, {pair.id for pair in todo})])
    others = len(set(end_blocks(L)) - first)
    assert (
        stages == [(20, True, 0), (30, True, 2), (20, False, 2)]
        if served
        else [
            (20, True, 0),
            (30, True, 0),
            (50, False, others),
        ]
    )


def _asked(whole: pa.Table, blocks: Sequence[Block], ids: set[str]) -> pa.Table:
    spans = set(blocks) | {(-1, -1)}
    rows = [row for row in whole.to_pylist() if row["pair_id"] in ids and (row["first"], row["last"]) in spans]
    return table_of(rows)

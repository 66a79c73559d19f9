"""Which blocks of layers to sweep next for a function, in `--mode auto`."""

from collections.abc import Collection, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from vfl.io.layers import runs
from vfl.locate.choosing import choice_and_share, next_in_gaps
from vfl.locate.curves import LayerSpan, Outcomes, outcomes
from vfl.locate.explained import HALF
from vfl.locate.layer_rule import Choice, ChoiceConfig, end_blocks, single_blocks, window_blocks

AHEAD = 20  # pairs that are swept first, and foretell with what the others can be asked in their one visit


def next_blocks(
    records: pa.Table,
    function: str,
    num_layers: int,
    choice: ChoiceConfig | None = None,
    skipped: Collection[LayerSpan] = frozenset(),
) -> list[LayerSpan]:
    """The blocks (first, last) to sweep next over the function's kept pairs; empty when there is nothing left to ask.

    Single layers and windows of 2 and 3 first, in one visit of a pair; prefixes and suffixes only where what these find
    changes less than half of the kept pairs; then the runs of layers that are not chosen, each swapped together, with
    windows of 4 in those that change answers; and the runs of chosen layers, for the rate of the whole block. Call it
    again with the new records each time. Blocks that a screen left out are `skipped`.
    """
    config = choice or ChoiceConfig()
    narrow = [block for block in (*single_blocks(num_layers), *window_blocks(num_layers)) if block not in skipped]
    rows = records.filter(pc.field("function") == function)
    if not rows.num_rows:
        return narrow
    rows = rows.filter(pc.field("kept"))
    num_kept = pc.count_distinct(rows["pair_id"]).as_py()
    rows = rows.filter(pc.field("swap") == "source")
    swept = rows.group_by(["first", "last"]).aggregate([("pair_id", "count_distinct")])
    columns = (swept[name].to_pylist() for name in ("first", "last", "pair_id_count_distinct"))
    pairs_with = {(first, last): count for first, last, count in zip(*columns, strict=True)}

    def missing(blocks: list[LayerSpan]) -> list[LayerSpan]:
        return [block for block in blocks if pairs_with.get(block, 0) < num_kept]

    if wanted := missing(narrow):
        return wanted
    if not num_kept:
        return []
    data = outcomes(records, function, num_layers, skipped)
    choice_so_far, share = choice_and_share(data, config)
    if share < HALF and (wanted := missing(end_blocks(num_layers))):
        return wanted
    return missing(_beside(data, choice_so_far, config))


def blocks_ahead(
    records: pa.Table, function: str, pair_ids: Sequence[str], num_layers: int, choice: ChoiceConfig
) -> list[LayerSpan]:
    """What these first pairs, swept with single layers and windows, foretell that all will be asked with after that.

    Others can be asked with it in the same visit, in which their images are prefilled once. What is foretold wrongly
    is a block that no rule looks at. None where too few pairs were kept, or prefixes and suffixes would come first.
    """
    rows = records.filter(pc.field("function") == function)
    rows = rows.filter(pc.is_in(rows["pair_id"], value_set=pa.array(pair_ids, pa.string())))
    if not pc.any(rows["kept"]).as_py():
        return []
    data = outcomes(rows, function, num_layers)
    chosen, share = choice_and_share(data, choice)
    return [] if share < HALF else list(dict.fromkeys(_beside(data, chosen, choice)))


def _beside(data: Outcomes, chosen: Choice, config: ChoiceConfig) -> list[LayerSpan]:
    """The gaps between the chosen layers, with windows in those that are open, and the runs of chosen ones."""
    together = [(run[0], run[-1]) for run in runs(chosen.layers) if len(run) > 1]
    return [*next_in_gaps(data, chosen, config), *together]

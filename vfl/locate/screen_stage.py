"""The first stage of a screened function: pairs swept in full, with estimates while their image caches are there."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from vfl.launching.ranks import Ranks
from vfl.locate.pairs import groups
from vfl.locate.records import joined
from vfl.locate.screening import SCREENED, Both, Scores, estimates_of, is_usable, save_scores, scores_of
from vfl.probes.asking import Asker
from vfl.probes.pair import Pair


def screen(
    asker: Asker,
    function: str,
    pairs: Sequence[Pair],
    records: pa.Table,
    out: Path,
    *,
    lacking: Callable[..., list[Pair]],
    sweep: Callable[..., pa.Table],
    ranks: Ranks,
) -> tuple[pa.Table, Scores]:
    """All records with those of the pairs that were swept, and the function's scores, which are saved in `out`.

    The pairs come in parts, since those that aren't kept say nothing of how the model answers. Those of a group stay
    together, and count as one.

    Args:
        lacking: those of `pairs` that the records don't hold in full.
        sweep: this process's share of such pairs in full, and calls `kept_pair` with each that is kept; new records.
    """
    found: dict[str, Both] = {}
    usable: list[list[str]] = []
    left, asked = groups(pairs), 0
    while left and len(usable) < SCREENED:
        together, left = left[:SCREENED], left[SCREENED:]
        part = [pair for group in together for pair in group]
        asked += len(part)
        todo = lacking(records, pairs=part)
        kept = set(records.filter((pc.field("function") == function) & pc.field("kept"))["pair_id"].to_pylist())
        swept_before = [pair for pair in part if pair.id in kept and pair not in todo]
        fresh: dict[str, Both] = {}
        if todo:
            work = partial(sweep, todo, kept_pair=partial(_estimate, asker, fresh))
            records = joined([records, *ranks.each(work)])
        for of_rank in ranks.each(partial(_estimated, asker, fresh, swept_before, ranks)):
            found |= of_rank
        of_groups = (
            [pair.id for pair in group if pair.id in found and is_usable(found[pair.id])] for group in together
        )
        usable += filter(None, of_groups)
    usable = usable[:SCREENED]
    chosen = {pair_id: found[pair_id] for group in usable for pair_id in group}
    scores = scores_of(chosen, records, function, asker.vlm.num_layers, samples=len(usable), asked=asked)
    ranks.first(partial(save_scores, out, function, scores))
    return records, scores


def _estimate(asker: Asker, into: dict[str, Both], pair: Pair) -> None:
    into[pair.id] = estimates_of(asker, pair)


def _estimated(asker: Asker, fresh: dict[str, Both], swept_before: Sequence[Pair], ranks: Ranks) -> dict[str, Both]:
    """Estimates of this process: those made while it swept, and of pairs that a run before had swept."""
    return fresh | {pair.id: estimates_of(asker, pair) for _, pair in ranks.dealt(swept_before)}

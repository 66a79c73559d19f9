"""All pairs of a suite through the sweep, in stages, saved part by part."""

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vfl.io.disk import explained
from vfl.io.progress import progress_bar, say, say_between
from vfl.launching.ranks import ALONE, Ranks
from vfl.locate.config import LocateConfig
from vfl.locate.curves import LayerSpan
from vfl.locate.forecast import Forecast
from vfl.locate.layer_rule import end_blocks, single_blocks, window_blocks
from vfl.locate.pairs import groups, sweep_group, sweep_pair
from vfl.locate.records import joined, pending, read_saved, table_of, write_part
from vfl.locate.schedule import AHEAD, blocks_ahead, next_blocks
from vfl.locate.screen_rule import Screening, saved_screenings, screening
from vfl.locate.screen_stage import screen
from vfl.probes.asking import Asker, question_of
from vfl.probes.match import is_thinking
from vfl.probes.pair import Pair

logger = logging.getLogger(__name__)

KEPT = "What was finished is kept: make room and go on with --resume, or give another --out folder."
FIRST = 10  # pairs that are asked at most before anything is swept


def sweep_all(
    asker: Asker,
    pairs: list[Pair],
    config: LocateConfig,
    parts: Path,
    *,
    united: Path | None = None,
    untrained: bool = False,
    progress: bool,
    ranks: Ranks = ALONE,
) -> pa.Table:
    """Sweep every function in stages until nothing is left to ask; parts are saved as they finish.

    The pairs of a stage are dealt among the processes. All of them have its records before the first decides, from all
    of these, what is swept next.

    Args:
        united: the file of all records, which an interrupted run may have come to.
        untrained: the model answers nothing rightly, and its texts are compared; see `sweep_visit`.
    """
    num_layers = asker.vlm.num_layers
    records = ranks.first(partial(read_saved, parts, united))
    swept = set(records["function"].to_pylist())
    of_functions = by_function(pairs)
    first = first_blocks(num_layers, config)
    screens = ranks.first(partial(saved_screenings, config, of_functions, first, num_layers))
    asked = {name: screens[name].asked(records) if name in screens else first for name in of_functions}
    left = sum(len(_lacking(records, name, some, asked[name], config)) for name, some in of_functions.items())
    forecast = Forecast(asker.vlm, config, pairs=left, blocks=len(first), processes=ranks.size)
    sweep = partial(_sweep_stage, asker, config=config, parts=parts, forecast=forecast, ranks=ranks, progress=progress)
    sweep = partial(sweep, untrained=untrained)
    for function, of_function in of_functions.items():
        if function not in swept and not untrained:
            ranks.first(partial(_try_out, asker, of_function[:FIRST], config))
        if config.screen and function not in screens:
            records, scores = screen(
                asker,
                function,
                of_function,
                records,
                config.out,
                lacking=partial(_lacking, function=function, blocks=first, config=config),
                sweep=partial(sweep, blocks=first, title=f"{function}: screen"),
                ranks=ranks,
            )
            screens[function] = screening(config, function, scores, of_function, first, num_layers)
        screened, said = screens.get(function), ""
        next_stage = partial(_next_stage, function=function, pairs=of_function, config=config, screen=screened)
        while stage := ranks.first(partial(next_stage, records, num_layers)):
            blocks, todo = stage
            if progress and screened and (line := screened.left_out(records).screen.in_words()) != said:
                say_between(f"{function}: {line}.")
                said = line
            title = f"{function}{', random weights' if untrained else ''}: {_describe(blocks, num_layers)}"
            records = joined([records, *ranks.each(partial(sweep, todo, blocks, title=title))])
    return records


def by_function(pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
    """The pairs of each function, functions in the order in which they first appear."""
    names = dict.fromkeys(pair.function for pair in pairs)
    return {name: [pair for pair in pairs if pair.function == name] for name in names}


def _try_out(asker: Asker, pairs: Sequence[Pair], config: LocateConfig) -> None:
    """Ask the first pairs unswapped, until one is kept: before hours are spent on answers that are never right."""
    rows = []
    for pair in pairs:
        rows += sweep_pair(asker, pair, [], max_new_tokens=config.max_new_tokens)
        if rows[-1]["kept"]:
            return
    wrong = [row for row in rows if not row["target_correct"]] or rows
    got, pair = wrong[0], next(pair for pair in pairs if pair.id == wrong[0]["pair_id"])
    answers = [got["baseline_answer"], got["source_baseline"]]
    hint = ""
    if any(map(is_thinking, answers)):
        hint = "\nThe answer ends inside <think>: give the model more tokens with --max-new-tokens."
    logger.warning(
        "none of the first %d pairs of %s was answered correctly on both images, for example pair %s:"
        "\n  asked     %s\n  expected  %r and %r\n  got       %r and %r%s",
        len(pairs),
        pair.function,
        pair.id,
        question_of(asker.vlm, pair),
        pair.answer,
        pair.source_answer,
        *answers,
        hint,
    )


def _next_stage(
    records: pa.Table,
    num_layers: int,
    *,
    function: str,
    pairs: list[Pair],
    config: LocateConfig,
    screen: Screening | None,
) -> tuple[Sequence[LayerSpan], list[Pair]] | None:
    """The blocks to sweep next for a function and the pairs that lack them; None when there is nothing left to ask."""
    first, left_out = first_blocks(num_layers, config), frozenset[LayerSpan]()
    if screen is not None:
        left_out = frozenset(screen.left_out(records).blocks)
        # Where layers come back in, the others have been swept.
        first = [b for b in first if b not in left_out and _lacking(records, function, pairs, [b], config)]
    if todo := _lacking(records, function, pairs, first, config):
        if config.mode != "auto" or screen is not None:
            return first, todo
        ahead = _ahead(pairs)
        if soon := [pair for pair in todo if pair.id in ahead]:
            return first, soon
        foretold = blocks_ahead(records, function, ahead, num_layers, config.choice)
        return [*first, *(block for block in foretold if block not in first)], todo
    blocks = next_blocks(records, function, num_layers, config.choice, left_out) if config.mode == "auto" else []
    todo = _lacking(records, function, pairs, blocks, config) if blocks else []
    return (blocks, todo) if todo else None


def _ahead(pairs: Sequence[Pair]) -> list[str]:
    """The ids of the first pairs, whole groups of them."""
    ids: list[str] = []
    for group in groups(pairs):
        if len(ids) >= AHEAD:
            break
        ids += [pair.id for pair in group]
    return ids


def first_blocks(num_layers: int, config: LocateConfig) -> list[LayerSpan]:
    """What every pair is asked anyway, in one visit: its images are encoded and prefilled once."""
    first = single_blocks(num_layers)
    if config.mode in ("auto", "window"):
        first += window_blocks(num_layers)
    if config.mode == "suffix":
        first += end_blocks(num_layers)
    return first


def _lacking(
    records: pa.Table, function: str, pairs: list[Pair], blocks: Sequence[LayerSpan], config: LocateConfig
) -> list[Pair]:
    """Pairs without some of the blocks; one that was asked and isn't kept lacks none, unless all pairs are swept."""
    wanted = set(pending(records, function, [pair.id for pair in pairs], blocks))
    if not config.unfiltered:
        rows = records.filter((pc.field("function") == function) & ~pc.field("kept"))
        wanted -= set(rows["pair_id"].to_pylist())
    return [pair for pair in pairs if pair.id in wanted]


def _sweep_stage(
    asker: Asker,
    pairs: Sequence[Pair],
    blocks: Sequence[LayerSpan],
    *,
    config: LocateConfig,
    parts: Path,
    forecast: Forecast,
    ranks: Ranks,
    untrained: bool,
    title: str,
    progress: bool,
    kept_pair: Callable[[Pair], None] | None = None,
) -> pa.Table:
    """The records of the pairs that are this process's, each part of which was saved.

    Args:
        kept_pair: what is done besides with each pair that is kept, while its image caches are there.
    """
    saved: list[pa.Table] = []
    rows: list[dict[str, Any]] = []
    dealt = groups(pairs)
    ends = list(accumulate(map(len, dealt)))
    asked_of_all = set(blocks) <= set(first_blocks(asker.vlm.num_layers, config))

    def save() -> None:
        saved.append(table_of(rows))
        with explained(parts.parent, full=KEPT):  # here too, for processes that do not hold the folder
            write_part(parts, saved[-1], rank=ranks.rank, ranks=ranks.size)
        rows.clear()

    with progress_bar(total=len(pairs), desc=title, unit="pair", disable=not progress) as bar:
        unsaved = 0
        for number, group in ranks.dealt(dealt):
            start = time.perf_counter()
            swept = sweep_group(
                asker,
                group,
                blocks,
                reading=config.reading,
                max_new_tokens=config.max_new_tokens,
                unfiltered=config.unfiltered,
                untrained=untrained,
            )
            rows += swept
            seconds = time.perf_counter() - start
            kept = {row["pair_id"] for row in swept if row["kept"]}
            if kept_pair is not None:
                for pair in group:
                    if pair.id in kept:
                        kept_pair(pair)
            # Pairs that are screened take longer than the others will.
            told = len(kept) if kept_pair is None else 0
            if asked_of_all and (line := forecast.after(seconds, pairs=len(group), kept=told, blocks=len(blocks))):
                say(bar, line)
            bar.update(ends[number] - bar.n)
            unsaved += len(group)
            if unsaved >= config.part_pairs:
                save()
                unsaved = 0
        if rows:
            save()
        if not ranks.halted:  # the last pairs may be with the others
            bar.update(len(pairs) - bar.n)
    return joined(saved)


def _describe(blocks: Sequence[LayerSpan], num_layers: int) -> str:
    kinds = {
        "single layers": single_blocks(num_layers),
        "windows": window_blocks(num_layers),
        "prefixes and suffixes": end_blocks(num_layers),
    }
    return " and ".join(kind for kind, whole in kinds.items() if set(whole) <= set(blocks)) or "wider blocks"

"""The two methods that name layers by the map's own rule: swapping, as `vfl locate` does, and knockout in its place."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import vfl
from experiments.localisation.asked import Kept
from vfl.engine.plan import Plan
from vfl.functionmap import FunctionEntry, FunctionMap
from vfl.locate.map_entries import build_entries
from vfl.locate.pairs import Record
from vfl.locate.records import table_of
from vfl.locate.schedule import next_blocks
from vfl.models.vlm import VLM


def located(vlm: VLM, functions: Sequence[str], pairs: int, seed: int) -> FunctionMap:
    """The map that `vfl locate` makes, in its default mode."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        return vfl.locate(
            vlm, out=out, probes="micro", functions=list(functions), pairs=pairs, seed=seed, progress=False
        )


def knocked_out(vlm: VLM, function: str, kept: Sequence[Kept]) -> FunctionEntry:
    """The entry of a map whose blocks of layers were hidden from the text instead of swapped; tested by the floor."""
    records = [_record(pair, "none", (-1, -1), pair.text) for pair in kept]
    while blocks := next_blocks(table_of(records), function, vlm.num_layers):
        plans = [Plan.hide(range(first, last + 1)) for first, last in blocks]
        for pair in kept:
            texts = pair.texts(vlm, plans)
            records += [_record(pair, "source", block, text) for block, text in zip(blocks, texts, strict=True)]
    return build_entries(table_of(records), vlm.num_layers)[function]


def _record(pair: Kept, swap: str, block: tuple[int, int], text: str) -> Record:
    return {
        "function": pair.pair.function,
        "pair_id": pair.pair.id,
        "group": None,
        "kept": True,
        "target_correct": True,
        "source_correct": True,
        "swap": swap,
        "first": block[0],
        "last": block[1],
        "answer": text,
        "changed": swap != "none" and pair.pair.changed(text, pair.text),
        "followed_source": False,
        "logprob_answer": 0.0,
        "logprob_source_answer": 0.0,
        "baseline_answer": pair.text,
        "source_baseline": "",
    }

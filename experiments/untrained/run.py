"""How often does a map name layers of a model that learned nothing?

    python -m experiments.untrained.run                      # 40 seeds of the embedded model's shape, two tables
    python -m experiments.untrained.run --seeds 2 --out /tmp/untrained.json

Each seed draws the weights of the embedded model's configuration anew (`vfl.loading.untrained`), asks it pairs of its
own seed, and swaps every layer, window, prefix and suffix that `vfl locate` swaps; the layer rule is the default one.
Texts are compared as they are, since such a model answers nothing rightly. *as initialised* is the class's own scale,
where little depends on the image; *sharpened* multiplies the attention's query and key weights, so that heads look
somewhere and swaps change answers. A false map is a seed in which one of four functions has a layer.
"""

import argparse
import json
import logging
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vfl
from vfl.loading.untrained import untrained
from vfl.locate.layer_rule import ChoiceConfig, single_blocks, window_blocks
from vfl.locate.map_entries import build_entries
from vfl.locate.pairs import groups, sweep_group
from vfl.locate.records import SCHEMA, joined, table_of
from vfl.locate.schedule import next_blocks
from vfl.locate.sweeping import by_function
from vfl.models.vlm import VLM
from vfl.probes.asking import Asker
from vfl.probes.functions import PAPER_FUNCTIONS
from vfl.probes.make import make
from vfl.probes.style import MICRO_STYLE
from vfl.stats import wilson

HERE = Path(__file__).resolve().parent
KINDS = {"sharpened": 12.0, "as initialised": 1.0}
CHOICE = ChoiceConfig(bootstrap=0, permutations=199)


def drawn(trained: VLM, seed: int, scale: float) -> VLM:
    """The model of one seed; `scale` multiplies the decoder's query and key weights."""
    vlm = untrained(trained, seed)
    with torch.no_grad():
        for layer in vlm.layers:
            for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj):
                projection.weight *= scale
    return vlm


def located(vlm: VLM, seed: int, pairs: int, tokens: int) -> dict[str, dict[str, Any]]:
    """Per function: layers named, its p over layers, and the mean and largest rates of both swaps over the layers."""
    asker, entries = Asker(vlm), {}
    with tempfile.TemporaryDirectory() as folder:
        made = make(Path(folder), PAPER_FUNCTIONS, pairs=pairs, seed=1000 + seed, style=MICRO_STYLE)
        for function, asked in by_function(made).items():
            records = SCHEMA.empty_table()
            blocks = [*single_blocks(vlm.num_layers), *window_blocks(vlm.num_layers)]
            while blocks:
                how = {"max_new_tokens": tokens, "untrained": True}
                rows = [row for group in groups(asked) for row in sweep_group(asker, group, blocks, **how)]
                records = joined([records, table_of(rows)])
                blocks = next_blocks(records, function, vlm.num_layers, CHOICE)
            entries |= build_entries(records, vlm.num_layers, CHOICE)
    return {
        name: {
            "layers": entry.layers,
            "p": entry.layer_null.p if entry.layer_null else None,
            "changed": round(float(np.mean(entry.changed)), 4),
            "control": round(float(np.mean(entry.control or [0.0])), 4),
        }
        for name, entry in entries.items()
    }


def table(results: dict[str, list[dict[str, dict[str, Any]]]]) -> str:
    """One row a kind of weights: false maps and functions with 95 % intervals, p over layers, and change rates."""
    lines = [
        "| weights | models | with a false layer | functions with one | p over layers ≤ .05 | changed | control |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, seeds in results.items():
        functions = [entry for seed in seeds for entry in seed.values()]
        counts = [
            (sum(any(entry["layers"] for entry in seed.values()) for seed in seeds), len(seeds)),
            (sum(bool(entry["layers"]) for entry in functions), len(functions)),
            (sum(entry["p"] <= 0.05 for entry in functions), len(functions)),
        ]
        cells = []
        for hits, of in counts:
            low, high = wilson(np.array([float(hits)]), np.array([float(of)]))
            cells.append(f"{hits} of {of} ({100 * low[0]:.0f}–{100 * high[0]:.0f} %)")
        means = [np.mean([entry[name] for entry in functions]) for name in ("changed", "control")]
        lines.append(f"| {kind} | {len(seeds)} | {' | '.join(cells)} | {means[0]:.1%} | {means[1]:.1%} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--pairs", type=int, default=12, help="of each function")
    parser.add_argument("--tokens", type=int, default=1, help="of an answer: more of them is more noise")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    options = parser.parse_args()
    logging.getLogger("vfl").setLevel(logging.ERROR)
    trained = vfl.load("embedded")
    results: dict[str, list[dict[str, dict[str, Any]]]] = {kind: [] for kind in options.kinds}
    for kind in options.kinds:
        for seed in range(options.seeds):
            start = time.perf_counter()
            vlm = drawn(trained, seed, KINDS[kind])
            results[kind].append(located(vlm, seed, options.pairs, options.tokens))
            named = {name: entry["layers"] for name, entry in results[kind][-1].items() if entry["layers"]}
            print(f"seed {seed}, {kind}: {named or 'no layer'}, {time.perf_counter() - start:.0f} s", flush=True)
            settings = {"pairs": options.pairs, "tokens": options.tokens, "choice": CHOICE.model_dump()}
            whole = {"settings": settings, "models": results}
            options.out.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main()

"""Every method on every model, and what is true there.

    python -m experiments.localisation.run runs/localisation/* embedded experiments/twin/weights [--out FILE.json]

A model that the results hold already is left out, so that a stopped run goes on; with `--locate` what `vfl locate`
names there is asked anew, for a change of its rule. Then `tables.py`.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

import vfl
from experiments.localisation.asked import asked
from experiments.localisation.by_rule import knocked_out, located
from experiments.localisation.layouts import FUNCTIONS, LAYOUTS
from experiments.localisation.methods import SCORES
from experiments.localisation.truth import truth_of
from vfl.functionmap import FunctionEntry
from vfl.io.atomic import replacing

T = TypeVar("T")
HERE = Path(__file__).resolve().parent
SEED, TRUE_SEED = 0, 1  # of the pairs that methods see, and of those that say what is true
LEAST = 10  # kept pairs; a function that the model answers more rarely is left out
SWAP, KNOCKOUT = "swap, auto", "knockout, by the same rule"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="embedded, or folders")
    parser.add_argument("--pairs", type=int, default=40, help="pairs of a function that methods see")
    parser.add_argument("--true-pairs", type=int, default=30, help="other pairs of a function, for the truth")
    parser.add_argument("--locate", action="store_true", help="ask `vfl locate` anew, on models that the results hold")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    for model in options.models:
        name = name_of(model)
        if Path(model).suffix == ".work" or (name in results) != options.locate:
            continue
        print(f"{name} ...", flush=True)
        if options.locate:
            locate_anew(model, results[name])
        else:
            results[name] = of_model(model, name, options.pairs, options.true_pairs)
        with replacing(options.out) as temporary:
            temporary.write_text(json.dumps(results) + "\n")


def name_of(model: str) -> str:
    """A model's name in the results: its folder's, or that of the folder around `weights`."""
    path = Path(model)
    return path.parent.name if path.name == "weights" else path.name


def of_model(model: str, name: str, pairs: int, true_pairs: int) -> dict[str, Any]:
    """What every method says of each function of a model, its CPU seconds, and the truth."""
    vlm = vfl.load(model)
    others = asked(vlm, FUNCTIONS, true_pairs, TRUE_SEED)
    prepared, preparing = timed(lambda: asked(vlm, FUNCTIONS, pairs, SEED))
    prepared = {function: kept for function, kept in prepared.items() if min(len(kept), len(others[function])) >= LEAST}
    true = {function: truth_of(vlm, others[function]) for function in prepared}
    fmap, locating = timed(lambda: located(vlm, list(prepared), pairs, SEED))
    seconds: dict[str, float] = {SWAP: locating, KNOCKOUT: preparing, **dict.fromkeys(SCORES, preparing)}
    functions = {}
    for function, kept in prepared.items():
        entry, took = timed(partial(knocked_out, vlm, function, kept))
        seconds[KNOCKOUT] += took
        scores = {}
        for method, score in SCORES.items():
            values, took = timed(partial(score, vlm, kept))
            seconds[method] += took
            scores[method] = [[float(f"{value:.4g}") for value in row] for row in values.tolist()]
        functions[function] = {
            "kept": len(kept),
            "planted": LAYOUTS[name].planted(function) if name in LAYOUTS else None,
            "truth": {**asdict(true[function]), "layers": true[function].layers, "grey": true[function].grey},
            "identifiable": true[function].identifiable,
            "named": {SWAP: named(fmap.functions[function]), KNOCKOUT: named(entry)},
            "scores": scores,
        }
    return {
        "layers": vlm.num_layers,
        "pairs": pairs,
        "seconds": {method: round(took, 2) for method, took in seconds.items()},
        "functions": functions,
    }


def locate_anew(model: str, result: dict[str, Any]) -> None:
    """Put what `vfl locate` names now, and its CPU seconds, into the results of a model."""
    fmap, took = timed(partial(located, vfl.load(model), list(result["functions"]), result["pairs"], SEED))
    result["seconds"][SWAP] = round(took, 2)
    for function, found in result["functions"].items():
        found["named"][SWAP] = named(fmap.functions[function])


def named(entry: FunctionEntry) -> dict[str, Any]:
    """The layers that a map names, and in what share of its bootstrap resamples it names each again."""
    stability = entry.stability or [1.0] * len(entry.layers)
    return {"layers": entry.layers, "stability": stability, "chosen_by": entry.chosen_by}


def timed(run: Callable[[], T]) -> tuple[T, float]:
    """What it gives, and the CPU seconds that it took."""
    before = time.process_time()
    return run(), time.process_time() - before


if __name__ == "__main__":
    main()

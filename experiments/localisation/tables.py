"""The tables of a results file, as Markdown.

python -m experiments.localisation.tables [results.json]
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from experiments.localisation.methods import SCORES
from experiments.localisation.naming import Hits, best_possible, best_share, brier, by_share, confidence, hits
from experiments.localisation.run import HERE, KNOCKOUT, SWAP
from vfl.io.layers import layer_list

SET_ON = "embedded"  # the model on which shares are set; it counts in no total
RULES = (SWAP, KNOCKOUT)
Results = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="?", type=Path, default=HERE / "results.json")
    results: Results = json.loads(parser.parse_args().results.read_text())
    if len(results.keys() - {SET_ON}) == 0 or SET_ON not in results:
        parser.error(f"expected results of {SET_ON}, on which shares are set, and of at least one other model")
    print("\n\n".join([truth_table(results), named_table(results), method_table(results)]))


def markdown(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table."""
    heads = list(heads)
    lines = [heads, ["---"] * len(heads), *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def truth_table(results: Results) -> str:
    """What is true, and what the design was."""
    rows = []
    for name, model in results.items():
        for function, cell in model["functions"].items():
            truth = cell["truth"]
            sets = ", ".join(
                f"{{{layer_list(layers)}}} {rate:.0%}"
                for layers, rate in zip(truth["sets"], truth["rates"], strict=True)
            )
            planted = "" if cell["planted"] is None else layer_list(cell["planted"])
            shown = "yes" if cell["identifiable"] else "no"
            layers = [layer_list(truth[key]) for key in ("layers", "grey")]
            counts = [str(truth[key]) for key in ("asked", "broken")]
            rows.append([name, function, planted, sets or "none", *layers, shown, *counts])
    heads = ["model", "function", "designed", "smallest sets that change 70 %", "true", "grey", "in runs"]
    heads += ["sets swapped", "broken"]
    return markdown(heads, rows)


def named_table(results: Results) -> str:
    """The layers that each rule names, function by function."""
    rows = []
    for name, model in results.items():
        for function, cell in model["functions"].items():
            named = [layer_list(cell["named"][rule]["layers"]) or "none" for rule in RULES]
            rows.append([name, function, layer_list(cell["truth"]["layers"]), *named])
    return markdown(["model", "function", "true", *RULES], rows)


def method_table(results: Results) -> str:
    """Every method over all models but the one that set its share."""
    judged = {name: model for name, model in results.items() if name != SET_ON}
    rows = []
    for method in (*RULES, *SCORES):
        share = None if method in RULES else best_share(results[SET_ON]["functions"].values(), method)
        total, possible, by_model = Hits(), Hits(), dict.fromkeys(judged, Hits())
        errors: list[float] = []
        for name, model in judged.items():
            for cell in model["functions"].values():
                truth = cell["truth"]
                if share is None:
                    named, probability = cell["named"][method]["layers"], np.zeros(model["layers"])
                    probability[named] = cell["named"][method]["stability"]
                else:
                    named = by_share(np.mean(cell["scores"][method], axis=0), share)
                    probability = confidence(cell["scores"][method], share)
                    possible += best_possible(cell["scores"][method], truth)
                found = hits(named, truth)
                total, by_model[name] = total + found, by_model[name] + found
                errors += brier(probability, truth)
        kept = sum(cell["kept"] for model in judged.values() for cell in model["functions"].values())
        seconds = sum(model["seconds"][method] for model in judged.values())
        rows.append(
            [
                method,
                "" if share is None else f"{share:.0%}",
                f"{total.precision:.2f}",
                f"{total.recall:.2f}",
                "" if share is None else f"{possible.recall:.2f}",
                f"{np.mean(errors):.3f}",
                f"{seconds / kept:.2f}",
                *(f"{of.precision:.2f} / {of.recall:.2f}" for of in by_model.values()),
            ]
        )
    heads = ["method", "names from", "precision", "recall", "recall, number known", "Brier", "CPU s a pair", *judged]
    return markdown(heads, rows)


if __name__ == "__main__":
    main()

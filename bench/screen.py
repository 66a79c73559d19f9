"""What `vfl locate --screen` spares and what it costs: both ways on models whose layers are known or were located.

    python bench/screen.py                                                # the embedded model, a few minutes
    python bench/screen.py embedded experiments/twin/weights smol --pairs 60 --json results.json

Counted are floating-point operations of a whole run (PyTorch's counter, vision tower and answers included), and of the
runs' maps: layers named by the full sweep that the screened one skips or does not name, and the order of functions.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import vfl
from bench.swapping.measure import count_flops
from vfl.functionmap import FunctionMap
from vfl.io.atomic import replacing
from vfl.io.layers import layer_list
from vfl.models.vlm import VLM


def main() -> None:
    """Measure, print, write."""
    arguments = parse()
    results = [compared(model, arguments) for model in arguments.models]
    for result in results:
        print(told(result))
    if arguments.json:
        with replacing(arguments.json) as temporary:
            temporary.write_text(json.dumps(results, indent=2) + "\n")


def compared(model: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One model located in full and screened, on the same pairs."""
    vlm = vfl.load() if model == "embedded" else vfl.load(model)
    settings = {"probes": "micro", "pairs": arguments.pairs, "seed": arguments.seed, "mode": arguments.mode}
    if arguments.functions:
        settings["functions"] = arguments.functions
    whole, flops = located(vlm, settings)
    screened, fewer = located(vlm, settings | {"screen": True})
    functions = {name: of_function(whole, screened, name) for name in whole.functions}
    return {
        "model": model,
        **settings,
        "flops": flops,
        "screened_flops": fewer,
        "order": [whole.order(), screened.order()],
        "functions": functions,
    }


def located(vlm: VLM, settings: dict[str, Any]) -> tuple[FunctionMap, int]:
    """The map of a run, and the operations that it took."""
    with tempfile.TemporaryDirectory() as folder:
        return count_flops(lambda: vfl.locate(vlm, out=Path(folder) / "out", progress=False, **settings))


def of_function(whole: FunctionMap, screened: FunctionMap, name: str) -> dict[str, Any]:
    """What both runs say of one function."""
    full, entry = whole.functions[name], screened.functions[name]
    assert entry.screen is not None
    told_by_sweep = {*full.layers, *full.also_significant}
    return {
        "layers": [full.layers, entry.layers],
        "peaks": [full.peak, entry.peak],
        "missed": sorted(told_by_sweep & set(entry.screen.skipped)),
        "screen": entry.screen.model_dump(),
        "words": entry.screen.in_words(),
    }


def told(result: dict[str, Any]) -> str:
    """A model's results in lines."""
    whole, fewer = result["flops"], result["screened_flops"]
    lines = [
        f"{result['model']}: {result['pairs']} pairs a function, mode {result['mode']}",
        f"  operations: {whole:.3g} in full, {fewer:.3g} screened: {1 - fewer / whole:.0%} less",
        f"  order of functions: {'the same' if result['order'][0] == result['order'][1] else result['order']}",
    ]
    for name, found in result["functions"].items():
        full, screened = map(layer_list, found["layers"])
        missed = layer_list(found["missed"])
        lines.append(f"  {name}: layers {full} in full, {screened} screened; significant and skipped: {missed}")
        lines.append(f"    {found['words']}")
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["embedded"], help="embedded, smol, or folders")
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mode", choices=("auto", "single", "window"), default="auto")
    parser.add_argument("--functions", type=lambda text: text.split(","), help="such as counting,ocr; all by default")
    parser.add_argument("--json", type=Path, help="where to write the results, too")
    return parser.parse_args()


if __name__ == "__main__":
    main()

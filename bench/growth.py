"""How a sweep's work grows with layers, vision tokens and images a group: hooks, a cached prefix, this engine, groups.

    python bench/growth.py --out docs/growth.png    # counts alone, some minutes of one core
    python bench/growth.py --points layers          # one row of the picture, as text

All single layers of every pair, one-token answers, LLaVA-1.5's form at a small width; no controls. The unit is the work
of one plain pass over the prompt, without the vision tower. Operations and operators that start a kernel are exact
counts, so the same run gives the same numbers on every machine; each point first compares the contenders' logits.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.panels import Row, Values, growth_picture
from bench.swapping.cached_prefix import sweep_by_cached_prefix
from bench.swapping.compare import difference
from bench.swapping.engine import sweep_by_engine
from bench.swapping.floor import forward_flops
from bench.swapping.groups import group, sweep_group_by_engine, sweep_group_by_prefixes
from bench.swapping.hooks import sweep_by_hooks
from bench.swapping.measure import count_flops, count_launches
from bench.swapping.model import Answers, Shape, build
from vfl.io.atomic import replacing

BASE = Shape(layers=32, width=64, heads=2, vision_tokens=576, text_tokens=40)
IMAGES = 8
POINTS: dict[str, list[Any]] = {
    "layers": [8, 16, 32, 64],
    "vision tokens": [64, 256, 576, 1296],
    "images a group": [2, 3, 4, 6, 8],
}
HOOKS = "hooks, a pair at a time"
PREFIX, PREFIXES = "cached prefix, a pair at a time", "cached prefixes, kept"
ENGINE, GROUPS = "this engine, a pair at a time", "this engine, groups"
NAMES = (HOOKS, PREFIX, PREFIXES, ENGINE, GROUPS)


def main() -> None:
    """Count, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", choices=list(POINTS), action="append", help="rows of the picture; default: all")
    parser.add_argument("--small", action="store_true", help="6 layers, 64 tokens, 3 images: a try")
    parser.add_argument("--out", type=Path, metavar="FILE.png", help="draw it here")
    arguments = parser.parse_args()
    found = {}
    for what in arguments.points or POINTS:
        points = POINTS[what][:1] if arguments.small else POINTS[what]
        found[what] = {point: counted(*setting(what, point, small=arguments.small)) for point in points}
        print(table(what, found[what]), end="\n\n", flush=True)
    if arguments.out:
        with replacing(arguments.out) as temporary:
            drawn(found).savefig(temporary, format="png", dpi=150)


def setting(what: str, point: int, *, small: bool) -> tuple[Shape, int]:
    """The shape and the images a group of one point."""
    shape = replace(BASE, layers=6, vision_tokens=64, text_tokens=12) if small else BASE
    images = 3 if small else IMAGES
    if what == "images a group":
        return shape, point
    return replace(shape, **{what.replace(" ", "_"): point}), images


def counted(shape: Shape, images: int) -> dict[str, tuple[float, float]]:
    """Contender -> (forwards, kernels) a pair.

    Raises:
        UnequalError: two contenders do not compute the same.
    """
    vlm = build(shape, "cpu", "float32")
    many = group(vlm, shape, images, num_tokens=1)
    pair = many.pair()
    forward = forward_flops(pair)
    runs: dict[str, tuple[Callable[[], Answers], int]] = {
        HOOKS: (partial(sweep_by_hooks, pair), 1),
        PREFIX: (partial(sweep_by_cached_prefix, pair), 1),
        PREFIXES: (partial(sweep_group_by_prefixes, many), many.pairs),
        ENGINE: (partial(sweep_by_engine, pair), 1),
        GROUPS: (partial(sweep_group_by_engine, many), many.pairs),
    }
    answers, counts = {}, {}
    for name, (run, pairs) in runs.items():
        answers[name], flops = count_flops(run)
        counts[name] = flops / forward / pairs, count_launches(run) / pairs
    rows = shape.layers + 1  # a group begins with its first target's own row and its rows of the second image
    for name in NAMES[1:]:
        difference(name, _first(answers[name], rows), _first(answers[HOOKS], rows), pair)
    difference(GROUPS, answers[GROUPS], answers[PREFIXES], pair)
    return counts


def _first(answers: Answers, rows: int) -> Answers:
    return Answers(answers.logits[:rows], answers.token_ids[:rows])


def table(what: str, points: dict[Any, dict[str, tuple[float, float]]]) -> str:
    """One row of the picture, as text."""
    lines = [f"{what:33}" + "".join(f"{point:>18}" for point in points)]
    for name in NAMES:
        cells = (f"{of[name][0]:>9.2f}{of[name][1]:>9,.0f}" for of in points.values())
        lines.append(f"{name:33}" + "".join(cells))
    pairwise, kept = (
        ", ".join(f"{of[name][0] / of[GROUPS][0]:.1f}" for of in points.values()) for name in (PREFIX, PREFIXES)
    )
    lines.append(
        f"Forwards and kernels a pair. Groups do {pairwise} times less work than the cached prefix, and {kept} times "
        "less than prefixes that are kept."
    )
    return "\n".join(lines)


def drawn(found: dict[str, dict[Any, dict[str, tuple[float, float]]]]) -> Any:
    """Forwards and kernels a pair over each quantity."""

    def column(number: int) -> Values:
        return {
            what: {point: {name: of[name][number] for name in NAMES} for point, of in points.items()}
            for what, points in found.items()
        }

    return growth_picture([Row("forwards a pair", column(0)), Row("kernels a pair", column(1))], NAMES)


if __name__ == "__main__":
    main()

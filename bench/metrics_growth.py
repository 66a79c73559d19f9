"""How the work of `vfl measure --metrics all` grows with layers, vision tokens and samples.

    python bench/metrics_growth.py --out docs/metrics-growth.png    # some minutes of one core
    python bench/metrics_growth.py --points layers                  # one row of the picture, as text

LLaVA-1.5's form at a small width with random weights, on pairs of random pictures whose right answers are what the
model says (seed 0), so that no metric leaves a sample out. The unit of work is a plain pass over a prompt, its vision
tower included, counted in operations: exact, the same on every machine. Seconds are the process's, as ratios to the
first point of a row, from this run.
"""

import argparse
import logging
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from bench.panels import Row, growth_picture
from bench.swapping.measure import count_flops
from bench.swapping.model import Shape, build, picture, question
from vfl.io.atomic import replacing
from vfl.measure.asked_once import AskedOnce
from vfl.metrics.accuracy import IMAGES
from vfl.metrics.edited_prompts import question_on, reply
from vfl.metrics.measure import known_metrics, measure_named
from vfl.models.vlm import VLM
from vfl.probes.pair import Pair

BASE = Shape(layers=8, width=64, heads=4, vision_tokens=64, text_tokens=16)
SAMPLES = 4
ANSWER = 2  # tokens
POINTS: dict[str, list[int]] = {
    "layers": [4, 8, 16, 32],
    "vision tokens": [16, 64, 256],
    "samples": [4, 8, 16],
}
ALONE = ("token_ablation", "head_masking", "knockout", "swap")
OTHERS, ALL = "the other metrics", "all"
NAMES = (*ALONE, OTHERS, ALL)
# Answers of a random model are much alike, on noise and on another image too, and name no object.
OPTIONS: dict[str, dict[str, Any]] = {
    "injection": {"unrelated": "noise"},
    "knockout": {"noise_filter": False},
    "token_ablation": {"noise_filter": False, "evaluations": ["vqa"]},
}
# `recommended` times the model.
LEFT_OUT = ("recommended",)


def main() -> None:
    """Count, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", choices=list(POINTS), action="append", help="rows of the picture; default: all")
    parser.add_argument("--small", action="store_true", help="the first point alone: a try")
    parser.add_argument("--out", type=Path, metavar="FILE.png", help="draw it here")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # answers have no end here
    found = {}
    for what in arguments.points or POINTS:
        points = POINTS[what][:1] if arguments.small else POINTS[what]
        found[what] = {point: counted(*setting(what, point)) for point in points}
        print(table(what, found[what]), end="\n\n", flush=True)
    if arguments.out:
        with replacing(arguments.out) as temporary:
            drawn(found).savefig(temporary, format="png", dpi=150)


def setting(what: str, point: int) -> tuple[Shape, int]:
    """The shape and the samples (pictures asked) of one point."""
    return (BASE, point) if what == "samples" else (replace(BASE, **{what.replace(" ", "_"): point}), SAMPLES)


def counted(shape: Shape, samples: int) -> dict[str, tuple[float, float]]:
    """Metric, or some together -> (forwards, CPU seconds) a sample."""
    torch.manual_seed(0)  # of what `build` does not draw itself, the tower's class embedding
    vlm = build(shape, "cpu", "float32")
    with tempfile.TemporaryDirectory() as folder:
        pairs = own_pairs(vlm, shape, samples // 2, Path(folder))
        encoded = vlm.ask(pairs[0].question, pairs[0].path("image"))
        with torch.no_grad():
            _, forward = count_flops(lambda: vlm.model(**encoded.inputs))
        work = {}
        for name in known_metrics():
            if name in LEFT_OUT:
                continue

            def run(name: str = name) -> object:
                return measure_named(AskedOnce(vlm), [name], pairs, options={name: OPTIONS.get(name, {})})

            _, operations = count_flops(run)
            start = time.process_time()
            run()
            work[name] = operations / forward / samples, (time.process_time() - start) / samples
    together = {name: [name] for name in ALONE} | {OTHERS: [name for name in work if name not in ALONE], ALL: [*work]}
    return {
        name: (sum(work[each][0] for each in members), sum(work[each][1] for each in members))
        for name, members in together.items()
    }


def own_pairs(vlm: VLM, shape: Shape, count: int, folder: Path) -> list[Pair]:
    """Pairs of random pictures with a box each, whose right answers are the model's own."""
    pairs = []
    side = picture(shape, 0).width
    corner = [[0.0, 0.0, side / 2, side / 2]]
    for number in range(count):
        pair = Pair(
            id=str(number),
            function="naming",
            image=f"{number}.png",
            source_image=f"{number}-source.png",
            question=question(shape),
            answer="first",
            source_answer="second",
            match="text",
            boxes=dict.fromkeys(IMAGES, corner),
            label="w9",
        )
        pair._folder, pair._size = folder, (side, side)
        pair = pair.limited(ANSWER)
        said = {}
        for place, which in enumerate(IMAGES):
            picture(shape, 2 * number + place).save(pair.path(which))
            said[which] = reply(vlm, question_on(vlm, pair, which, pair.path(which))).text
        pairs.append(pair.model_copy(update={"answer": said["image"], "source_answer": said["source_image"]}))
    return pairs


def table(what: str, points: dict[int, dict[str, tuple[float, float]]]) -> str:
    """One row of the picture, as text."""
    lines = [f"{what:20}" + "".join(f"{point:>16}" for point in points)]
    first = next(iter(points.values()))
    for name in NAMES:
        cells = (f"{of[name][0]:>9.1f}{of[name][1] / first[name][1]:>7.2f}" for of in points.values())
        lines.append(f"{name:20}" + "".join(cells))
    lines.append("Forwards a sample, and CPU seconds a sample over those of the first point.")
    return "\n".join(lines)


def drawn(found: dict[str, dict[int, dict[str, tuple[float, float]]]]) -> Any:
    """Forwards a sample, and seconds as ratios, over each quantity."""
    forwards: dict[str, dict[int, dict[str, float]]] = {}
    seconds: dict[str, dict[int, dict[str, float]]] = {}
    for what, points in found.items():
        first = next(iter(points.values()))
        forwards[what] = {point: {name: of[name][0] for name in NAMES} for point, of in points.items()}
        seconds[what] = {point: {name: of[name][1] / first[name][1] for name in NAMES} for point, of in points.items()}
    rows = [Row("forwards a sample", forwards), Row("CPU seconds a sample, as ratios", seconds, yscale="linear")]
    return growth_picture(rows, NAMES)


if __name__ == "__main__":
    main()

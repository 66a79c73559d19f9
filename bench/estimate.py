"""What `vfl estimate` says beside what is measured: operations, memory and seconds of a pair, a row, a training step.

    python bench/estimate.py                        # the embedded model: some minutes
    python bench/estimate.py --model smol           # or a folder
    python bench/estimate.py --metrics swap,lens    # the forward passes of metrics, instead

Operations are counted by PyTorch's formulas. Seconds are foreseen from this machine's own rate, that of a plain
forward pass over the same prompt: they say how well the passes of a work use the machine, and not what a GPU does.
Training needs `pip install '.[train]'`.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from bench.estimating.train import measured_step
from bench.swapping.measure import count_flops
from vfl.engine.operations import pass_operations, step_operations, tower_operations
from vfl.engine.teacher_forcing import teacher_forced
from vfl.estimate.config import EstimateConfig
from vfl.estimate.locating import visit
from vfl.estimate.scoring import row_operations
from vfl.estimate.tokens import Prompt
from vfl.estimate.training import activation_bytes
from vfl.io.files import open_rgb
from vfl.loading.beds import bed_folders, probe_style
from vfl.loading.load import load, resolve
from vfl.locate.layer_rule import single_blocks, window_blocks
from vfl.locate.pairs import sweep_pair
from vfl.metrics.measure import known_metrics, measure_named
from vfl.models.conversation import encoder_of
from vfl.models.encode import Encoded
from vfl.models.shape import Picture, picture_of, shape_of
from vfl.models.vlm import VLM
from vfl.probes.asking import Asker
from vfl.probes.make import make
from vfl.probes.pair import Pair, read_suite
from vfl.probes.style import STYLES

FUNCTION = "counting"


@dataclass(frozen=True)
class Line:
    """One row of the table: a work, and what was foreseen and measured of it (operations, or bytes)."""

    what: str
    estimated: float
    measured: float
    seconds: tuple[float, float] | None = None


def main() -> None:
    """Measure and print."""
    arguments = parse()
    vlm = load(arguments.model, device="cpu")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        style = STYLES[probe_style(resolve(arguments.model)[0])]
        make(folder / "pairs", [FUNCTION], pairs=4, seed=1, style=style)
        pairs = read_suite(folder / "pairs")
        if arguments.metrics:
            names = list(known_metrics()) if arguments.metrics == "all" else arguments.metrics.split(",")
            print(metrics_table(vlm, pairs, names))
            return
        encoded = vlm.ask(pairs[0].question, pairs[0].path("image"))
        rate = rate_of(vlm, encoded)
        lines = [located(vlm, pairs[0], rate), scored(vlm, pairs[0], rate)]
        if arguments.steps:
            lines += trained(vlm, arguments.model, pairs, folder, arguments.steps, rate)
            lines += trained(vlm, arguments.model, pairs, folder, arguments.steps, rate, short=True)
    print(f"{arguments.model}, float32, {torch.get_num_threads()} threads, a plain forward: {rate / 1e9:.2f} GFLOP/s")
    print(table(lines))


def rate_of(vlm: VLM, encoded: Encoded) -> float:
    """Operations a second of a plain forward pass over a prompt: the best of five."""
    with torch.no_grad():
        _, operations = count_flops(lambda: vlm.model(**encoded.inputs))
        return operations / min(timed(lambda: vlm.model(**encoded.inputs)) for _ in range(5))


def located(vlm: VLM, pair: Pair, rate: float, limit: int | None = None) -> Line:
    """One visit of a pair, single layers and windows swapped; answers have at most `limit` tokens."""
    encoded, shape = vlm.ask(pair.question, pair.path("image")), shape_of(vlm.model)
    blocks = [*single_blocks(vlm.num_layers), *window_blocks(vlm.num_layers)]

    def run() -> list[dict[str, object]]:
        return sweep_pair(Asker(vlm), pair, blocks, max_new_tokens=limit, unfiltered=True)  # a new one keeps no images

    records = run()  # once before: what answers after prompts of this shape need is made once
    answers = 0 if limit == 1 else max(len(vlm.answer_ids(str(row["answer"]) or " ")) for row in records)
    expected = [len(vlm.answer_ids(answer)) for answer in (pair.answer, pair.source_answer)]
    _, counted = count_flops(run)
    prompt = prompt_like(vlm, encoded, answers)
    swapped = len({row["swap"] for row in records} - {"none"})
    passes = visit(shape, prompt, [block[0] for block in blocks], 1, 0, expected=expected, swapped=swapped)
    estimated = sum(each.operations for each in passes)
    return Line("locate: a pair", estimated, counted, (estimated / rate, timed(run)))


def scored(vlm: VLM, pair: Pair, rate: float) -> Line:
    """One row scored with the image hidden everywhere, and from the middle layer on."""
    encoder = encoder_of(vlm)
    middle = vlm.num_layers // 2
    turns: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": pair.question}]},
        {"role": "assistant", "content": [{"type": "text", "text": pair.answer}]},
    ]
    batch = encoder.encode([filled(turns, pair)])
    ablations = {"no image": range(vlm.num_layers), "function": range(middle, vlm.num_layers)}
    length, answers = int(batch.lengths[0]), int(batch.answers.sum())
    end = int(batch.answers[0].nonzero()[-1]) + 1
    encoded = vlm.ask(pair.question, pair.path("image"))
    span = encoded.spans[-1]
    prompt = Prompt(span.start, picture_like(vlm, encoded), end - answers - span.end, answers)

    def run() -> object:
        return teacher_forced(vlm, batch, {name: list(layers) for name, layers in ablations.items()})

    _, counted = count_flops(run)
    shape = shape_of(vlm.model)
    trailing = pass_operations(shape, length, length) - pass_operations(shape, end, end)  # what follows the answer
    estimated = row_operations(shape, prompt, [0, middle]) + trailing
    return Line("score: a row", estimated, counted, (estimated / rate, timed(run)))


def trained(
    vlm: VLM, model: str, pairs: list[Pair], folder: Path, steps: int, rate: float, *, short: bool = False
) -> list[Line]:
    """A forward and backward pass of LoRA in the upper half of the layers, and its memory without weights.

    Args:
        short: whether the backward pass ends at the image (operations alone).
    """
    layers, rank = list(range(vlm.num_layers // 2, vlm.num_layers)), 8
    step = measured_step(model, pairs, layers, rank, folder, steps, short)
    shape = shape_of(vlm.model)
    picture = picture_like(vlm, vlm.ask(pairs[0].question, pairs[0].path("image")))
    # Without Triton TRL's head takes every position but the last.
    row = step_operations(shape, step.tokens, layers=layers, rank=rank, logits=step.tokens - 1, constant=step.constant)
    estimated = step.rows * (tower_operations(shape, picture) + row)
    seconds = (estimated / rate, step.seconds)
    if short:
        return [Line("train: after image", estimated, step.operations, seconds)]
    config = EstimateConfig(model=model, dtype="float32", train_layers=tuple(layers), rank=rank)
    memory = activation_bytes(config, shape, step.rows * step.tokens, step.rows * (step.tokens - 1), whole_tile=True)
    return [
        Line(f"train: {step.rows} rows", estimated, step.operations, seconds),
        Line("train: bytes", memory, step.peak_bytes),
    ]


def prompt_like(vlm: VLM, encoded: Encoded, answers: int) -> Prompt:
    """The lengths of a prompt that was encoded."""
    span = encoded.spans[-1]
    return Prompt(encoded.spans[0].start, picture_like(vlm, encoded), encoded.length - span.end, answers)


def picture_like(vlm: VLM, encoded: Encoded) -> Picture:
    """The picture of a prompt."""
    grid = encoded.inputs.get("image_grid_thw")
    tokens = encoded.num_vision_tokens
    if grid is None:
        return picture_of(shape_of(vlm.model), tokens, (1, 1))
    _, rows, columns = grid[0].tolist()
    merge = round((rows * columns / tokens) ** 0.5)
    return Picture(tokens, (rows // merge, columns // merge), 1)


def filled(turns: list[dict[str, Any]], pair: Pair) -> list[dict[str, Any]]:
    """The turns with the pair's picture in the first."""
    first, *rest = turns
    content = [{"type": "image", "image": open_rgb(pair.path("image"))}, first["content"][1]]
    return [{**first, "content": content}, *rest]


def metrics_table(vlm: VLM, pairs: list[Pair], names: list[str]) -> str:
    """The forward passes of each metric, a pair."""
    encoded = vlm.ask(pairs[0].question, pairs[0].path("image"))
    with torch.no_grad():
        _, forward = count_flops(lambda: vlm.model(**encoded.inputs))
    lines = []
    for name in names:
        _, counted = count_flops(lambda name=name: measure_named(vlm, [name], pairs))  # type: ignore[misc]
        lines.append(f"{name:20}{counted / forward / len(pairs):8.2f}")
    return "\n".join(lines)


def timed(run: Callable[[], object]) -> float:
    """Seconds of this process's processors, which other work on the machine does not take part in."""
    start = time.process_time()
    run()
    return time.process_time() - start


def table(lines: list[Line]) -> str:
    """Estimated beside measured, with the ratio."""
    rows = [f"{'':18}{'estimated':>12}{'measured':>12}{'ratio':>7}{'seconds':>10}{'measured':>10}{'ratio':>7}"]
    for line in lines:
        row = f"{line.what:18}{line.estimated:12.4g}{line.measured:12.4g}{line.estimated / line.measured:7.3f}"
        if line.seconds:
            row += f"{line.seconds[0]:10.3f}{line.seconds[1]:10.3f}{line.seconds[0] / line.seconds[1]:7.2f}"
        rows.append(row)
    return "\n".join(rows)


def parse() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded", help=f"folder, or {' or '.join(bed_folders())}")
    parser.add_argument("--steps", type=int, default=2, help="timed training steps; 0: none")
    parser.add_argument("--metrics", metavar="NAMES", help="count these metrics instead; all: each")
    return parser.parse_args()


if __name__ == "__main__":
    main()

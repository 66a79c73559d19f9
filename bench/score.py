"""Scoring a batch with four ablations by this package's engine, by hooks, and one plain forward beside them.

    python bench/score.py                          # LLaVA-1.5-7B's shape, scaled to a laptop: some minutes
    python bench/score.py --full-shape             # the true shape with random bfloat16 weights, on a GPU
    python bench/score.py --json results.json      # and write what was measured

Beside them, what a careful reader would write: the cache cut at the image's end, and then the text behind it, plain and
with each ablation, as one batch. All score the same answers with the same model: log-probability, hit and EL2N of every
answer token; all but the plain one with the image hidden at all layers and at three functions' layers besides. Their
scores are compared first. Then all of it again for longer texts.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from bench.scoring.contenders import CACHED, ENGINE, HOOKS, NAMES, PLAIN, prepare
from bench.scoring.table import table
from bench.scoring.task import Scored, Task, task
from bench.swapping.compare import UnequalError
from bench.swapping.measure import CHILD_ENVIRONMENT, count_flops, median_seconds, peak_bytes
from bench.swapping.model import FULL_SHAPE, Shape, build
from vfl.errors import InputError
from vfl.io.atomic import replacing

LEAST_PROMPT = 4
MOST, LEAST = 1.5, 3.0  # plain forwards; times faster than hooks
# Largest difference of a log-probability, in nats.
TOLERANCE = {"float64": 1e-9, "float32": 1e-3, "float16": 0.1, "bfloat16": 1.0}


def main() -> None:
    """Measure, print, write."""
    arguments = parse()
    shape = FULL_SHAPE if arguments.full_shape else shape_of(arguments)
    prompts = [length - arguments.answer_tokens for length in arguments.lengths]
    vlm = build(replace(shape, text_tokens=max(shape.text_tokens, *prompts, 0)), arguments.device, arguments.dtype)
    scoring = task(vlm, shape, arguments.rows, arguments.answer_tokens)
    if arguments.memory_of:
        print(json.dumps(peak_bytes(prepare(arguments.memory_of, scoring), scoring.vlm.device)))
        return
    measured = measure(scoring, arguments)
    measured["settings"] = settings(arguments, shape)
    measured["lengths"] = {shape.text_tokens + arguments.answer_tokens: measured["contenders"]}
    for length, prompt in zip(arguments.lengths, prompts, strict=True):
        longer = task(vlm, replace(shape, text_tokens=prompt), arguments.rows, arguments.answer_tokens)
        measured["lengths"][length] = costs(longer, arguments)[0]
    print(table(measured, MOST, LEAST))
    if arguments.json:
        with replacing(arguments.json) as temporary:
            temporary.write_text(json.dumps(measured, indent=2) + "\n")


def measure(scoring: Task, arguments: argparse.Namespace) -> dict[str, Any]:
    """Equality, operations, seconds and memory of all contenders."""
    contenders, scores, difference = costs(scoring, arguments)
    for name, cost in contenders.items():
        cost["peak_bytes"] = peak_of(name, scoring, arguments) if arguments.repeats else None
    changes = (scores[HOOKS].logprobs[1:] - scores[HOOKS].logprobs[0]).abs()
    return {
        "ablations": scoring.ablations,
        "max_difference": difference,
        "median_effect": float(changes.median()),
        "floor": floor(scoring, contenders[PLAIN]["flops"]),
        "contenders": contenders,
    }


def costs(scoring: Task, arguments: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Scored], float]:
    """Operations and seconds of all contenders, their scores, and the largest difference between these."""
    runs = {name: prepare(name, scoring) for name in NAMES}
    counted = {name: count_flops(run) for name, run in runs.items()}
    scores = {name: scored for name, (scored, _) in counted.items()}
    difference = largest_difference(scores, TOLERANCE[arguments.dtype])
    clock = time.process_time if arguments.cpu_time else time.perf_counter
    seconds = median_seconds(runs, arguments.repeats, scoring.vlm.device, clock)
    spent = {name: {"flops": flops, "seconds": seconds.get(name)} for name, (_, flops) in counted.items()}
    return spent, scores, difference


def largest_difference(scores: dict[str, Scored], allowed: float) -> float:
    """Of the log-probabilities from those of the hooks.

    Raises:
        UnequalError: where it exceeds the rounding of one forward.
    """
    expected = scores[HOOKS].logprobs
    pairs = [(scores[name].logprobs, expected) for name in (ENGINE, CACHED)]
    pairs.append((scores[PLAIN].logprobs, expected[:1]))
    largest = max(float((ours - theirs).abs().max()) for ours, theirs in pairs)
    if not largest <= allowed:
        raise UnequalError(f"The log-probabilities differ from those of the hooks by {largest:.3g}.")
    return largest


def floor(scoring: Task, plain: int) -> float:
    """The least operations in plain forwards: the windows through the linear layers and their attention, and logits."""
    config = scoring.vlm.model.config.text_config
    rows, length = scoring.batch.answers.shape
    num_answers = int(scoring.batch.answers.sum())
    window = length - 1 - (int(scoring.slots[-1]) + 1)  # the last answer token predicts nothing
    linear = 4 * config.hidden_size**2 + 3 * config.hidden_size * config.intermediate_size
    attention = 2 * (length - 1) * config.hidden_size
    passes = sum(scoring.vlm.num_layers - layers[0] for layers in scoring.ablations.values())
    windows = 2 * passes * rows * window * (linear + attention)
    logits = 2 * len(scoring.ablations) * num_answers * config.hidden_size * config.vocab_size
    return 1 + (windows + logits) / plain


def peak_of(name: str, scoring: Task, arguments: argparse.Namespace) -> int | None:
    """Peak memory on top of the weights; on the CPU in a process of its own, which holds nothing else."""
    if scoring.vlm.device.type == "cuda":
        return peak_bytes(prepare(name, scoring), scoring.vlm.device)
    command = [sys.executable, __file__, *sys.argv[1:], "--memory-of", name]
    environment = {**os.environ, **CHILD_ENVIRONMENT}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"Measuring the memory of {name} failed:\n{done.stderr}")
    peak: int | None = json.loads(done.stdout.splitlines()[-1])
    return peak


def settings(arguments: argparse.Namespace, shape: Shape) -> dict[str, Any]:
    """What a reader needs to repeat the run."""
    gpu = arguments.device.startswith("cuda")
    return {
        **vars(shape),
        "rows": arguments.rows,
        "answer_tokens": arguments.answer_tokens,
        "lengths": arguments.lengths,
        "dtype": arguments.dtype,
        "device": torch.cuda.get_device_name(arguments.device) if gpu else f"CPU, {torch.get_num_threads()} threads",
        "repeats": arguments.repeats,
        "clock": "the process's" if arguments.cpu_time else "wall",
        "versions": {"python": platform.python_version()} | {name: version(name) for name in ("torch", "transformers")},
    }


def _lengths(value: str) -> list[int]:
    return [int(length) for length in value.split(",") if length]


def shape_of(arguments: argparse.Namespace) -> Shape:
    """The shape that the flags describe."""
    return Shape(
        layers=arguments.layers,
        width=arguments.width,
        heads=arguments.heads,
        vision_tokens=arguments.vision_tokens,
        text_tokens=arguments.text_tokens,
    )


def parse() -> argparse.Namespace:
    """The flags; --full-shape brings its own device and dtype."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--width", type=int, default=256, help="of the decoder; the rest follows as in LLaVA-1.5-7B")
    parser.add_argument("--heads", type=int, default=2, help="default: 2, of size 128 as in LLaVA-1.5-7B")
    parser.add_argument("--vision-tokens", type=int, default=576, help="a square number")
    parser.add_argument("--text-tokens", type=int, default=40, help="of the prompt")
    parser.add_argument("--answer-tokens", type=int, default=20)
    parser.add_argument(
        "--lengths", type=_lengths, default=[360, 660], metavar="N,N", help="texts, answer included, to measure besides"
    )
    parser.add_argument("--rows", type=int, default=4, help="conversations in the batch")
    parser.add_argument("--full-shape", action="store_true", help="32 layers of width 4096 in bfloat16, on a GPU")
    parser.add_argument("--device", help="default: the GPU with --full-shape, else the CPU")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16", "float64"])
    parser.add_argument("--repeats", type=int, default=3, help="timed runs; 0: compare and count only")
    parser.add_argument("--cpu-time", action="store_true", help="the process's time: for a busy machine, one thread")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--memory-of", choices=NAMES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.device = arguments.device or ("cuda" if arguments.full_shape else "cpu")
    arguments.dtype = arguments.dtype or ("bfloat16" if arguments.full_shape else "float32")
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error(
            f"--device {arguments.device}: PyTorch sees no GPU here. Leave --full-shape out, or use --device cpu."
        )
    if any(length < arguments.answer_tokens + LEAST_PROMPT for length in arguments.lengths):
        parser.error(f"--lengths hold the answer's tokens and {LEAST_PROMPT} more at least.")
    if arguments.answer_tokens < 1 or arguments.rows < 1:
        parser.error("At least one answer token and one conversation are needed.")
    return arguments


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        print(f"score.py: {error}", file=sys.stderr)
        sys.exit(2)

"""A full single-layer swapping sweep by this package's engine, by a cached prefix, and by one full forward per layer.

    python bench/locate.py                          # LLaVA-1.5-7B's shape, scaled to a laptop: some minutes
    python bench/locate.py --full-shape             # the true shape with random bfloat16 weights, on a GPU
    python bench/locate.py --json results.json      # and write what was measured

Ratios are "how many times less than hooks", from one run. Every contender answers the same prompts with the same model;
their logits and answers are compared first. With `pip install --group bench` nnsight and TransformerLens take part too.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from bench.swapping.compare import difference, median_effect, num_equal
from bench.swapping.contenders import ENGINE, HOOKS, LIBRARIES, NAMES, installed, prepare
from bench.swapping.floor import floor_flops, forward_flops
from bench.swapping.hooks import embed
from bench.swapping.measure import CHILD_ENVIRONMENT, count_flops, count_launches, median_seconds, peak_bytes
from bench.swapping.model import FULL_SHAPE, Shape, Task, build, task
from bench.swapping.table import table
from vfl.errors import InputError
from vfl.io.atomic import replacing
from vfl.models.vlm import VLM

TARGET = 8.0  # times fewer operations than hooks


def main() -> None:
    """Measure, print, write."""
    arguments = parse()
    shape = FULL_SHAPE if arguments.full_shape else shape_of(arguments)
    vlm = build(shape, arguments.device, arguments.dtype)
    vlm.row_limit = arguments.rows
    if arguments.memory_of:
        memory = {length: peak_of(vlm, shape, length, arguments.memory_of) for length in arguments.answer_tokens}
        print(json.dumps(memory))
        return
    names = [name for name in NAMES if name not in LIBRARIES or installed(name)]
    versions = {name: installed(name) for name in LIBRARIES}
    on_cpu, timed = vlm.device.type == "cpu", arguments.repeats > 0
    peaks = {name: peaks_of_child(name, arguments) for name in names} if on_cpu and timed else {}
    results = []
    for length in arguments.answer_tokens:
        measured = measure(task(vlm, shape, length), names, arguments.repeats)
        for name in names if timed else ():
            peak = peaks[name][str(length)] if on_cpu else peak_of(vlm, shape, length, name)
            measured["contenders"][name]["peak_bytes"] = peak
        results.append(measured)
    results_file = {"settings": settings(arguments, shape, vlm), "libraries": versions, "results": results}
    print(table(results_file, TARGET))
    if arguments.json:
        with replacing(arguments.json) as temporary:
            temporary.write_text(json.dumps(results_file, indent=2) + "\n")


def measure(task: Task, names: list[str], repeats: int) -> dict[str, Any]:
    """Equality, operations and seconds of all contenders on one task."""
    runs = {name: prepare(name, task) for name in names}
    _, tower = count_flops(lambda: embed(task.vlm.model, task.target))
    counted = {name: count_flops(run) for name, run in runs.items()}
    reference, _ = counted[HOOKS]
    differences = {
        name: difference(name, answers, reference, task) for name, (answers, _) in counted.items() if name != HOOKS
    }
    seconds = median_seconds(runs, repeats, task.vlm.device)
    floor, forward = floor_flops(task, tower), forward_flops(task)
    contenders = {
        name: {
            "flops": flops,
            "forwards": flops / forward,
            "launches": count_launches(runs[name]),
            "seconds": seconds.get(name),
        }
        for name, (_, flops) in counted.items()
    }
    return {
        "answer_tokens": task.num_tokens,
        "rows": task.vlm.num_layers + 2,
        "max_logit_difference": differences,
        "median_effect_of_a_swap": median_effect(reference),
        "equal_answers": {name: num_equal(answers, reference) for name, (answers, _) in counted.items()},
        "forward_flops": forward,
        "tower_flops": tower,
        "floor_flops": floor,
        "above_floor": counted[ENGINE][1] / floor - 1,
        "contenders": contenders,
    }


def peak_of(vlm: VLM, shape: Shape, length: int, name: str) -> int | None:
    """Peak memory of a contender in this process."""
    return peak_bytes(prepare(name, task(vlm, shape, length)), vlm.device)


def peaks_of_child(name: str, arguments: argparse.Namespace) -> dict[str, int | None]:
    """Answer length -> peak memory of a contender on the CPU, in a process of its own, which holds nothing else."""
    command = [sys.executable, __file__, *sys.argv[1:], "--memory-of", name]
    environment = {**os.environ, **CHILD_ENVIRONMENT}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"Measuring the memory of {name} failed:\n{done.stderr}")
    peaks: dict[str, int | None] = json.loads(done.stdout.splitlines()[-1])
    return peaks


def settings(arguments: argparse.Namespace, shape: Shape, vlm: VLM) -> dict[str, Any]:
    """What a reader needs to repeat the run."""
    gpu = vlm.device.type == "cuda"
    return {
        **vars(shape),
        "dtype": str(vlm.dtype).removeprefix("torch."),
        "device": torch.cuda.get_device_name(vlm.device) if gpu else f"CPU, {torch.get_num_threads()} threads",
        "repeats": arguments.repeats,
        "rows_in_a_batch": arguments.rows,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in ("torch", "transformers")},
    }


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
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--vision-tokens", type=int, default=576, help="a square number")
    parser.add_argument("--text-tokens", type=int, default=40)
    parser.add_argument("--answer-tokens", type=_lengths, default=[1, 8], metavar="N,N", help="default: 1,8")
    parser.add_argument("--full-shape", action="store_true", help="32 layers of width 4096 in bfloat16, on a GPU")
    parser.add_argument("--device", help="default: the GPU with --full-shape, else the CPU")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16", "float64"])
    parser.add_argument("--repeats", type=int, default=3, help="timed runs; 0: compare and count only")
    parser.add_argument("--rows", type=int, help="most rows in a batch of the engine; default: what fits in memory")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--memory-of", choices=NAMES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.device = arguments.device or ("cuda" if arguments.full_shape else "cpu")
    arguments.dtype = arguments.dtype or ("bfloat16" if arguments.full_shape else "float32")
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error(
            f"--device {arguments.device}: PyTorch sees no GPU here. Leave --full-shape out, or use --device cpu."
        )
    return arguments


def _lengths(text: str) -> list[int]:
    lengths = [int(part) for part in text.split(",")]
    if min(lengths) < 1:
        raise ValueError
    return lengths


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        print(f"locate.py: {error}", file=sys.stderr)
        sys.exit(2)

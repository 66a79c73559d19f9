"""One training step: full-LoRA as TRL does it by default, and full-LoRA and LoRA in function layers with this package.

    python bench/train_step.py                      # Qwen2.5-VL-7B's shape at an eighth of the width: some minutes
    python bench/train_step.py --full-shape --rows 0           # the true shape, random bfloat16 weights, on a GPU
    python bench/train_step.py --out results.json   # and write what was measured

It needs `pip install '.[train]'`. Every arm is TRL's own SFTTrainer with TRL's own loss on the same frozen weights;
what differs is the layers and, for "here", `vfl.train.backward.truncate.truncate`. Their gradients are compared first.
Then an epoch of short rows of different lengths, as `vfl train` runs it: one by one, in padded batches, and packed.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from bench.swapping.compare import UnequalError
from bench.swapping.measure import count_flops, median_seconds
from bench.training.arms import ARMS, NUM_LAYERS, REFERENCE, Step, largest_difference, prepare
from bench.training.model import FULL_SHAPE, SHAPE, SMALL_SHAPE, Shape, build
from bench.training.packing import measure_packing
from bench.training.table import table
from vfl.errors import InputError
from vfl.io.atomic import replacing
from vfl.train.backward.memory import StepMemory, step_memory

# Of the norm of the gradients; the two passes do the same operations, so only their order may differ.
TOLERANCE = {"float32": 1e-4, "float64": 1e-10, "bfloat16": 0.02}


def main() -> None:
    """Measure, print, write."""
    arguments = parse()
    shape = shape_of(arguments)
    base = build(shape, arguments.device, arguments.dtype)
    with tempfile.TemporaryDirectory() as folder:
        steps = {arm.name: prepare(arm, base, shape, arguments.batch, Path(folder)) for arm in ARMS}
        measured = measure(steps, arguments)
    if arguments.rows:
        with tempfile.TemporaryDirectory() as folder:
            measured["packing"] = measure_packing(
                base, shape, Path(folder), arguments.rows, arguments.repeats, arguments.dtype, clock_of(arguments)
            )
    measured["settings"] = settings(arguments, shape, steps[REFERENCE.name])
    print(table(measured))
    if arguments.out:
        with replacing(arguments.out) as temporary:
            temporary.write_text(json.dumps(measured, indent=2) + "\n")


def measure(steps: dict[str, Step], arguments: argparse.Namespace) -> dict[str, Any]:
    """Equality, operations, memory and seconds of all arms."""
    device = torch.device(arguments.device)
    if device.type == "cuda":
        steps[REFERENCE.name]()  # kernels' first calls allocate workspaces, which would be counted as the first arm's
    arms: dict[str, dict[str, Any]] = {}
    expected: dict[str, dict[str, torch.Tensor]] = {}
    largest, how = 0.0, ""
    for name, step in steps.items():
        flops, memory = cost_of(step, device)
        gradients = step.gradients()
        reference = expected.setdefault(f"{step.arm.layers} {step.arm.after_image}", gradients)
        difference = largest_difference(gradients, reference)
        if not difference <= TOLERANCE[arguments.dtype]:
            raise UnequalError(f"The gradients of {name!r} differ from TRL's by {difference:.2g} of their norm.")
        largest, how = max(largest, difference), memory.how
        arms[name] = {
            "layers": step.arm.layers,
            "truncated": step.arm.truncated,
            "checkpointing": step.arm.checkpointing,
            "parameters": sum(p.numel() for p in step.trainer.model.parameters() if p.requires_grad),
            "flops": flops,
            "peak_bytes": memory.peak_bytes,
            "gradient_difference": difference,
        }
        step.trainer.model.zero_grad()
    seconds = median_seconds(steps, arguments.repeats, device, clock_of(arguments))
    for name, arm in arms.items():
        arm["seconds"] = seconds.get(name)
    return {"arms": arms, "memory": how, "largest_difference": largest}


def clock_of(arguments: argparse.Namespace) -> Callable[[], float]:
    """What tells seconds."""
    return time.process_time if arguments.cpu_time else time.perf_counter


def cost_of(step: Step, device: torch.device) -> tuple[int, StepMemory]:
    """Operations and memory of a step, from one run of it."""
    counts: list[int] = []
    memory = step_memory(lambda: counts.append(count_flops(step)[1]), device)
    return counts[0], memory


def settings(arguments: argparse.Namespace, shape: Shape, step: Step) -> dict[str, Any]:
    """What a reader needs to repeat the run."""
    gpu = arguments.device.startswith("cuda")
    names = ("torch", "transformers", "peft", "trl")
    return {
        **vars(shape),
        "layers": NUM_LAYERS,
        "tower_layers": 32,
        "tower_width": shape.vision_width,
        "rank": shape.rank,
        "batch": arguments.batch,
        "tokens": int(step.batch["input_ids"].shape[1]),
        "in_loss": int((step.batch["labels"][0] != -100).sum()),
        "dtype": arguments.dtype,
        "device": torch.cuda.get_device_name(arguments.device) if gpu else f"CPU, {torch.get_num_threads()} threads",
        "repeats": arguments.repeats,
        "clock": "of the processor" if arguments.cpu_time else "on the wall",
        "versions": {"python": platform.python_version()} | {name: version(name) for name in names},
    }


def shape_of(arguments: argparse.Namespace) -> Shape:
    """The shape that the flags describe."""
    shape = FULL_SHAPE if arguments.full_shape else SMALL_SHAPE if arguments.small else SHAPE
    names = ("width", "vision_tokens", "question", "answer")
    return replace(shape, **{name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None})


def parse() -> argparse.Namespace:
    """The flags; --full-shape brings its own device and dtype."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--full-shape", action="store_true", help="width 3584 in bfloat16, on a GPU")
    size.add_argument("--small", action="store_true", help="width 112 and 64 vision tokens: seconds, for a first look")
    parser.add_argument("--width", type=int, help="of the decoder (448); the rest follows as in the 7B model")
    parser.add_argument("--vision-tokens", type=int, help="a square number (576)")
    parser.add_argument("--question", type=int, help="words of the prompt (60)")
    parser.add_argument("--answer", type=int, help="words of the answer (60)")
    parser.add_argument("--batch", type=int, default=1, help="rows of the batch (1)")
    parser.add_argument("--rows", type=int, default=24, help="short rows of the epoch that is packed (24); 0: none")
    parser.add_argument("--device", help="default: the GPU with --full-shape, else the CPU")
    parser.add_argument("--dtype", choices=list(TOLERANCE), help="default: bfloat16 on a GPU, else float32")
    parser.add_argument("--cpu-time", action="store_true", help="processor time, where others use the cores, too")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each arm; 0: count and compare only")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the numbers as JSON")
    arguments = parser.parse_args()
    arguments.device = arguments.device or ("cuda" if arguments.full_shape else "cpu")
    gpu = arguments.device.startswith("cuda")
    arguments.dtype = arguments.dtype or ("bfloat16" if gpu else "float32")
    if gpu and not torch.cuda.is_available():
        parser.error(
            f"--device {arguments.device}: PyTorch sees no GPU here. Leave --full-shape out, or use --device cpu."
        )
    return arguments


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        print(f"train_step.py: {error}", file=sys.stderr)
        sys.exit(2)

"""Attention metrics through the tap against eager `output_attentions`, and the lens against materialising all logits.

    python bench/measure.py                       # LLaVA-1.5-7B's shape, scaled to a laptop: about a minute
    python bench/measure.py --device cuda --full-shape      # the true shape with random bfloat16 weights, on a GPU
    python bench/measure.py --json results.json   # and write what was measured

All contenders use one model and one prompt, and their numbers are compared first. Ratios are from one run. On the CPU
each memory peak is measured in a process of its own, which holds nothing else.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from bench.swapping.measure import CHILD_ENVIRONMENT, median_seconds, peak_bytes
from bench.swapping.model import FULL_SHAPE, Shape, build, task
from vfl.engine.attention_tap import tapped
from vfl.engine.states import between_layers, forward, is_image_token
from vfl.io.atomic import replacing
from vfl.metrics.concentration import concentration_of
from vfl.metrics.logit_lens import lens_of
from vfl.models.encode import Encoded
from vfl.models.vlm import VLM

TAP, EAGER, LENS, ALL = "tap", "eager output_attentions", "lens", "all logits"
PAIRS = {TAP: EAGER, LENS: ALL}  # ours, and what it is measured against
TOP = 5
TOLERANCE = {"float32": 2e-4, "bfloat16": 0.05, "float64": 1e-9}
SEVEN = (32, 32, 2540)  # layers, heads, and tokens of a prompt with 2,500 vision tokens


@torch.no_grad()
def through_tap(vlm: VLM, encoded: Encoded) -> torch.Tensor:
    """(2, L, H) VAR and concentration of the last row: no attention matrix is ever made."""
    here = is_image_token(vlm, encoded)
    rows: list[torch.Tensor] = []
    with tapped(vlm, read=lambda layer, weights: rows.append(_values(weights[0, :, 0], here))):
        forward(vlm, encoded)
    return torch.stack(rows, dim=1)


@torch.no_grad()
def through_eager(vlm: VLM, encoded: Encoded) -> torch.Tensor:
    """The same from the (1, H, T, T) matrices of every layer, as is usual."""
    here = is_image_token(vlm, encoded)
    before = vlm.model.config._attn_implementation
    vlm.model.set_attn_implementation("eager")
    try:
        out = vlm.parts.body(**encoded.inputs, position_ids=encoded.positions, use_cache=False, output_attentions=True)
        return torch.stack([_values(matrix[0, :, -1].float(), here) for matrix in out.attentions], dim=1)
    finally:
        vlm.model.set_attn_implementation(before)


def through_lens(vlm: VLM, encoded: Encoded) -> torch.Tensor:
    """(L+1, V, 5) probabilities of the first choices, a chunk of tokens at a time."""
    return lens_of(vlm, encoded, k=TOP)[0]


@torch.no_grad()
def through_logits(vlm: VLM, encoded: Encoded) -> torch.Tensor:
    """The same from the logits of all states and tokens at once."""
    here = is_image_token(vlm, encoded)
    states: list[torch.Tensor] = []

    def visit(layer_idx: int, before: torch.Tensor, after: torch.Tensor) -> None:
        states.extend((before, after) if layer_idx == 0 else (after,))

    with between_layers(vlm.layers, visit):
        forward(vlm, encoded)
    logits = torch.stack([vlm.logits(state[0, here]) for state in states]).float()
    return logits.softmax(-1).topk(TOP, dim=-1).values.cpu()


RUNS: dict[str, Callable[[VLM, Encoded], torch.Tensor]] = {
    TAP: through_tap,
    EAGER: through_eager,
    LENS: through_lens,
    ALL: through_logits,
}


def main() -> None:
    """Measure, print, write."""
    arguments = parse()
    shape = (
        FULL_SHAPE
        if arguments.full_shape
        else Shape(
            layers=arguments.layers, width=arguments.width, heads=arguments.heads, vision_tokens=arguments.vision_tokens
        )
    )
    dtype = "bfloat16" if arguments.full_shape else "float32"
    vlm = build(shape, arguments.device, dtype)
    encoded = task(vlm, shape, 1).target
    runs = {name: (lambda run=run: run(vlm, encoded)) for name, run in RUNS.items()}
    if arguments.memory_of:
        print(json.dumps(peak_bytes(runs[arguments.memory_of], vlm.device)))
        return
    differences = {}
    for ours, theirs in PAIRS.items():
        differences[ours] = float((runs[ours]() - runs[theirs]()).abs().max())
        if not differences[ours] <= TOLERANCE[dtype]:
            sys.exit(f"{ours} and {theirs} differ by {differences[ours]:.2g}")
    seconds = median_seconds(runs, arguments.repeats, vlm.device)
    on_cpu = vlm.device.type == "cpu"
    peaks = {name: child_peak(name) if on_cpu else peak_bytes(runs[name], vlm.device) for name in RUNS}
    measured = {
        "shape": {**vars(shape), "dtype": dtype, "device": arguments.device, "vocabulary": shape.vocabulary},
        "largest_difference": differences,
        "seconds": seconds,
        "peak_bytes": peaks,
    }
    print(table(measured))
    if arguments.json:
        with replacing(arguments.json) as temporary:
            temporary.write_text(json.dumps(measured, indent=2) + "\n")


def table(measured: dict[str, Any]) -> str:
    """Seconds, memory and ratios, and what the attention of a large prompt takes by arithmetic."""
    lines = [f"{'':26}{'seconds':>9}{'peak MiB':>10}"]
    seconds, peaks = measured["seconds"], measured["peak_bytes"]
    for name in RUNS:
        peak = "-" if peaks[name] is None else f"{peaks[name] / 2**20:.1f}"
        lines.append(f"{name:26}{seconds[name]:9.3f}{peak:>10}")
    for ours, theirs in PAIRS.items():
        memory = "-" if None in (peaks[ours], peaks[theirs]) else f"{peaks[theirs] / max(1, peaks[ours]):.1f} times"
        lines.append(f"{theirs} / {ours}: time {seconds[theirs] / seconds[ours]:.2f} times, memory {memory} "
                     f"(largest difference {measured['largest_difference'][ours]:.1g})")  # fmt: skip
    layers, heads, tokens = SEVEN
    matrices, row = layers * heads * tokens**2 * 2 / 2**30, heads * tokens * 4 / 2**20
    lines.append(
        f"By arithmetic, 7B's shape and 2,500 vision tokens: all matrices {matrices:.1f} GiB in bfloat16, the tap's "
        f"rows {row:.2f} MiB in float32, one layer at a time"
    )
    return "\n".join(lines)


def child_peak(name: str) -> int | None:
    """Peak memory of a run in a process of its own."""
    command = [sys.executable, __file__, *sys.argv[1:], "--memory-of", name]
    done = subprocess.run(command, env={**os.environ, **CHILD_ENVIRONMENT}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"Measuring the memory of {name} failed:\n{done.stderr}")
    peak: int | None = json.loads(done.stdout.splitlines()[-1])
    return peak


def parse() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--width", type=int, default=256, help="of the decoder; the rest follows as in LLaVA-1.5-7B")
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--vision-tokens", type=int, default=576, help="a square number")
    parser.add_argument("--full-shape", action="store_true", help="32 layers of width 4096 in bfloat16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--memory-of", choices=RUNS, help=argparse.SUPPRESS)
    return parser.parse_args()


def _values(rows: torch.Tensor, here: torch.Tensor) -> torch.Tensor:
    """(2, H) VAR and concentration of (H, K) attention rows."""
    on_image = rows[:, : len(here)][:, here.to(rows.device)]
    return torch.stack([on_image.sum(-1), concentration_of(on_image)]).cpu()


if __name__ == "__main__":
    main()

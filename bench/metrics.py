"""CPU seconds of `vfl measure embedded --metrics all`, metric by metric, and against another checkout.

    OMP_NUM_THREADS=1 python bench/metrics.py                      # this checkout alone: some minutes
    git worktree add ../before 7e428d2
    OMP_NUM_THREADS=1 python bench/metrics.py --against ../before  # both, and whether their numbers are equal
    python bench/metrics.py --pairs 2 --metrics knockout,drop      # fewer pairs a function, some metrics
    python bench/metrics.py --json results.json                    # and write what was measured

Each checkout runs in a process of its own, one after the other, on the same generated probes (seed 0). Counted is what
the process used, the model's loading and the report included; seconds of the clock would count what else runs.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parents[1]
TOLERANCE = 1e-5
WIDTH = 160  # characters of a line
TOTAL = "all, with the report"
# Seconds of a clock: the only numbers that differ from run to run.
CLOCKED = ("recommended/scalars/speedup",)


def main() -> None:
    """Measure, print, write."""
    arguments = parse()
    if arguments.child:
        child(arguments)
        return
    with tempfile.TemporaryDirectory() as folder:
        before = None if arguments.against is None else measured(arguments.against, Path(folder) / "before", arguments)
        now = measured(HERE, Path(folder) / "now", arguments)
    print(table(before, now))
    if arguments.json:
        seconds = {"before": before and before["seconds"], "now": now["seconds"]}
        arguments.json.write_text(json.dumps(seconds, indent=2) + "\n")


def measured(root: Path, out: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds of each metric and the results, of one checkout."""
    command = [sys.executable, __file__, "--child", str(out), "--root", str(root), "--metrics", arguments.metrics]
    if arguments.pairs:
        command += ["--pairs", str(arguments.pairs)]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(root)}, check=True)
    return {
        "seconds": json.loads((out / "seconds.json").read_text()),
        "metrics": json.loads((out / "metrics.json").read_text())["metrics"],
    }


def child(arguments: argparse.Namespace) -> None:
    """Measure with the package of `--root`, and note what each metric takes."""
    sys.path.insert(0, str(arguments.root))
    from vfl.measure import run

    seconds: dict[str, float] = {}
    plain: Any = vars(run)["measure_named"]

    def timed(vlm: Any, names: list[str], *args: Any, **kwargs: Any) -> Any:
        start = time.process_time()
        result = plain(vlm, names, *args, **kwargs)
        seconds[names[0]] = time.process_time() - start
        return result

    vars(run)["measure_named"] = timed
    metrics: Any = arguments.metrics if arguments.metrics == "all" else arguments.metrics.split(",")
    pairs = {"pairs": arguments.pairs} if arguments.pairs else {}
    start = time.process_time()
    run.measure("embedded", out=arguments.child, metrics=metrics, seed=0, progress=False, **pairs)
    seconds[TOTAL] = time.process_time() - start
    (arguments.child / "seconds.json").write_text(json.dumps(seconds))


def table(before: dict[str, Any] | None, now: dict[str, Any]) -> str:
    """Seconds by metric, the longest first, ratios, and how far the numbers are apart."""
    seconds, others = now["seconds"], (before or now)["seconds"]
    names = sorted(seconds, key=lambda name: -others[name])
    if before is None:
        return "\n".join([f"{'CPU seconds':24}", *(f"{name:24}{seconds[name]:8.1f}" for name in names)])
    lines = [f"{'CPU seconds':24}{'before':>8}{'now':>8}{'times':>8}{'largest difference':>20}"]
    changed = []
    for name in names:
        apart = ""
        if name != TOTAL:
            try:
                apart = f"{difference(before['metrics'].get(name), now['metrics'].get(name), name):.1g}"
            except ValueError as error:  # the seconds took minutes, and are worth knowing all the same
                apart = "another result"
                changed.append(str(error)[:WIDTH])
        ratio = others[name] / seconds[name]
        lines.append(f"{name:24}{others[name]:8.1f}{seconds[name]:8.1f}{ratio:8.1f}{apart:>20}")
    return "\n".join([*lines, *changed])


def difference(before: Any, now: Any, name: str) -> float:
    """The largest difference of two results' numbers.

    Raises:
        ValueError: where more than rounding differs: a count, a list, a name.
    """
    worst = 0.0
    for path, first, second in both(before, now, name):
        if path.startswith(CLOCKED):
            continue
        apart = abs(first - second) if isinstance(first, float) and isinstance(second, float) else math.inf
        if first != second and apart > TOLERANCE:
            raise ValueError(f"{path} is {first!r} before and {second!r} now")
        worst = max(worst, 0.0 if first == second else apart)
    return worst


def both(before: Any, now: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """Pairs of what stands at the same place of two results."""
    if isinstance(before, dict) and isinstance(now, dict) and list(before) == list(now):
        for key in before:
            yield from both(before[key], now[key], f"{path}/{key}")
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for at, (first, second) in enumerate(zip(before, now, strict=True)):
            yield from both(first, second, f"{path}/{at}")
    else:
        yield path, before, now


def parse() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="a checkout of another commit")
    parser.add_argument("--pairs", type=int, help="a function; default: 12")
    parser.add_argument("--metrics", default="all", help="names, with commas between")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""What was measured, as text."""

from typing import Any

from bench.scoring.contenders import ENGINE, HOOKS, PLAIN

Found = dict[str, Any]


def table(run: Found, most: float, least: float) -> str:
    """The settings, a line a contender and the verdicts; `most` plain forwards, `least` times faster than hooks."""
    settings, contenders = run["settings"], run["contenders"]
    versions = ", ".join(f"{name} {number}" for name, number in settings["versions"].items())
    ablations = ", ".join(f"{name} {_range(layers)}" for name, layers in run["ablations"].items())
    lines = [
        f"LLaVA-1.5 with random weights: {settings['layers']} layers, width {settings['width']}, "
        f"{settings['heads']} heads; {settings['rows']} conversations of {settings['vision_tokens']} vision, "
        f"{settings['text_tokens']} prompt and {settings['answer_tokens']} answer tokens",
        f"{settings['dtype']} on {settings['device']}; {versions}; median of {settings['repeats']} runs, "
        f"{settings['clock']} time",
        f"Ablations: {ablations}",
        "",
        f"{'':18}{'GFLOP':>10}{'ratio':>8}{'seconds':>10}{'ratio':>8}{'samples/s':>11}{'peak MB':>10}{'ratio':>8}",
        *(_row(name, numbers, contenders[PLAIN], settings["rows"]) for name, numbers in contenders.items()),
        "",
        f"Ratios are to one plain forward of this run. Least operations: {run['floor']:.2f} (the plain forward, and "
        "for each ablation what follows the image, from its first layer on).",
        f"Equal before timing: log-probabilities to {run['max_difference']:.1g}; an ablation changes them by "
        f"{run['median_effect']:.2g} (median).",
    ]
    if contenders[ENGINE]["seconds"] is not None:
        seconds = {name: numbers["seconds"] for name, numbers in contenders.items()}
        lines.append(
            _verdict(seconds[ENGINE] / seconds[PLAIN], "plain forwards", "at most", most)
            + "; "
            + _verdict(seconds[HOOKS] / seconds[ENGINE], "times faster than hooks", "at least", least)
        )
    return "\n".join([*lines, "", *_by_length(run)])


def _by_length(run: Found) -> list[str]:
    """Ratios to one plain forward of the same length, a line a length."""
    names = [name for name in run["contenders"] if name != PLAIN]
    what = ["operations", "time"] if run["contenders"][PLAIN]["seconds"] is not None else ["operations"]
    lines = ["In plain forwards, by the tokens that are not vision:", f"{'':8}" + "".join(f"{n:>22}" for n in names)]
    lines.append(f"{'tokens':8}" + f"{' / '.join(what):>22}" * len(names))
    for length, contenders in run["lengths"].items():
        cells = []
        for name in names:
            keys = [key for key in ("flops", "seconds") if contenders[PLAIN][key] is not None]
            cells.append(" / ".join(f"{contenders[name][key] / contenders[PLAIN][key]:.2f}" for key in keys))
        lines.append(f"{length:<8}" + "".join(f"{cell:>22}" for cell in cells))
    return lines


def _verdict(value: float, what: str, bound: str, target: float) -> str:
    reached = value <= target if bound == "at most" else value >= target
    return f"{value:.2f} {what} (target {bound} {target:g}: {'reached' if reached else 'MISSED'})"


def _row(name: str, numbers: Found, plain: Found, rows: int) -> str:
    cells = [f"{numbers['flops'] / 1e9:>10.1f}{numbers['flops'] / plain['flops']:>8.2f}"]
    if numbers["seconds"] is not None:
        seconds = numbers["seconds"]
        cells.append(f"{seconds:>10.2f}{seconds / plain['seconds']:>8.2f}{rows / seconds:>11.2f}")
    if numbers["peak_bytes"] is not None:
        cells.append(f"{numbers['peak_bytes'] / 1e6:>10.0f}{numbers['peak_bytes'] / max(plain['peak_bytes'], 1):>8.2f}")
    return f"{name:18}" + "".join(cells)


def _range(layers: list[int]) -> str:
    return f"{layers[0]}-{layers[-1]}"

"""What was measured, as text."""

from typing import Any

from bench.swapping.contenders import ENGINE, HOOKS

Found = dict[str, Any]


def table(measured: Found, target: float) -> str:
    """The settings, one table per answer length, and what stands behind the numbers."""
    parts = [_settings(measured["settings"])]
    parts += [_one_length(measured, result, target) for result in measured["results"]]
    parts.append(
        "Ratios are hooks / contender, of this run. A forward is one plain pass over the prompt without the vision\n"
        "tower, which every contender runs once per image; launches are operators that start a kernel. Peak memory is\n"
        "on top of the weights: hooks hold one row at a time, the others a batch of rows (the engine's --rows N makes\n"
        "it smaller; the operations stay)."
    )
    return "\n\n".join(parts)


def _settings(settings: Found) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in settings["versions"].items())
    return (
        f"LLaVA-1.5 with random weights: {settings['layers']} layers, width {settings['width']}, "
        f"{settings['heads']} heads, {settings['vision_tokens']} vision and {settings['text_tokens']} text tokens\n"
        f"{settings['dtype']} on {settings['device']}; {versions}; median of {settings['repeats']} runs"
    )


def _one_length(measured: Found, result: Found, target: float) -> str:
    length, contenders = result["answer_tokens"], result["contenders"]
    hooks = contenders[HOOKS]
    floor = {"forwards": result["floor_flops"] / result["forward_flops"], "flops": result["floor_flops"]}
    lines = [
        f"{length}-token answers ({result['rows']} rows)",
        f"{'':17}" + "".join(f"{head:>10}{'ratio':>8}" for head in ("forwards", "launches", "seconds", "peak MB")),
        _row("floor", floor, hooks),
        *(_row(name, contender, hooks) for name, contender in contenders.items()),
        *(f"{name:17}  not installed: skipped" for name, number in measured["libraries"].items() if number is None),
    ]
    ratio = hooks["flops"] / contenders[ENGINE]["flops"]
    verdict = "reached" if ratio >= target else "MISSED"
    lines += [
        f"{ratio:.1f} times fewer operations than hooks (target {target:g}: {verdict}); "
        f"{100 * result['above_floor']:.1f} % above the floor.",
        f"Vision tower: 2 x {result['tower_flops'] / result['forward_flops']:.3f} forwards in every line.",
        "Equal before timing: largest difference in logits "
        + ", ".join(f"{value:.1g} ({name})" for name, value in result["max_logit_difference"].items())
        + f"; a swap changes them by {result['median_effect_of_a_swap']:.2g}.",
        "Equal answers: " + ", ".join(f"{count} of {result['rows']} ({name})" for name, count in _others(result)) + ".",
    ]
    return "\n".join(lines)


def _others(result: Found) -> list[tuple[str, int]]:
    return [(name, count) for name, count in result["equal_answers"].items() if name != HOOKS]


def _row(name: str, contender: Found, hooks: Found) -> str:
    cells = [
        _pair(contender["forwards"], hooks["flops"] / contender["flops"]),
        _measured(contender, hooks, "launches", 1.0),
        _measured(contender, hooks, "seconds", 1.0),
        _measured(contender, hooks, "peak_bytes", 1e6),
    ]
    return f"{name:17}" + "".join(cells).rstrip()


def _measured(contender: Found, hooks: Found, key: str, unit: float) -> str:
    if contender.get(key) is None:  # the floor has no clock, and some systems no peak
        return f"{'-':>10}{'-':>8}"
    return _pair(contender[key] / unit, hooks[key] / max(contender[key], 1e-9))


def _pair(value: float, ratio: float) -> str:
    return f"{value:>10.{2 if value < 100 else 0}f}{ratio:>8.{1 if ratio >= 1 else 2}f}"

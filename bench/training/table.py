"""What was measured, as Markdown."""

from typing import Any

from bench.training.arms import REFERENCE

Found = dict[str, Any]

# Largest share of the operations of the reference, with and without checkpointing.
TARGETS = {"here, 10-17,20-23": (0.70, 0.55), "here, 20-23": (0.50, 0.45)}
NO_CHECKPOINTING = ", no checkpointing"


def table(run: Found) -> str:
    """The settings, one line an arm with its ratios to TRL's full-LoRA, and the verdicts."""
    settings, arms = run["settings"], run["arms"]
    reference = arms[REFERENCE.name]
    head = (
        f"Qwen2.5-VL with random weights: {settings['layers']} layers of width {settings['width']}, a tower of "
        f"{settings['tower_layers']} of width {settings['tower_width']}, LoRA of rank {settings['rank']}; a batch of "
        f"{settings['batch']} x {settings['tokens']} tokens ({settings['vision_tokens']} vision, {settings['in_loss']} "
        f"in the loss); {settings['dtype']} on {settings['device']}; "
        + ", ".join(f"{name} {number}" for name, number in settings["versions"].items())
        + f"; {settings['repeats']} timed runs."
    )
    lines = [
        "| arm | trained parameters | GFLOP | ratio | seconds | ratio | peak MB | ratio |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
        *(_line(name, arm, reference) for name, arm in arms.items()),
    ]
    return "\n\n".join(
        [
            head,
            "\n".join(lines),
            *([packing_table(run["packing"])] if "packing" in run else []),
            "\n".join(verdicts(run)),
            "Ratios are to the first line, of this run. Operations are matrix products, convolutions and attentions of "
            "the forward pass, the\nbackward pass and what is recomputed, counted; seconds are medians of whole "
            f"training steps without the optimizer, {settings['clock']};\npeak memory comes on top of the weights "
            f"({run['memory']}). The loss is TRL's in every line.\nEqual before timing: the gradients of the lines "
            f"with the same layers differ by {run['largest_difference']:.1g} of their norm at most.",
        ]
    )


def verdicts(run: Found) -> list[str]:
    """Each target of the share of operations, and whether it was reached."""
    lines = []
    arms = run["arms"]
    whole = arms[REFERENCE.name]["flops"]
    for name, targets in TARGETS.items():
        for full, target in zip((name, name + NO_CHECKPOINTING), targets, strict=True):
            share = arms[full]["flops"] / whole
            verdict = "reached" if share <= target else "MISSED"
            lines.append(f"- {full}: {share:.3f} of the operations (target {target:.2f}: {verdict})")
    off = {name: arms[name]["flops"] for name in arms if name.endswith(NO_CHECKPOINTING)}
    pairs = [(flops, off[name.replace("here", "TRL", 1)]) for name, flops in off.items() if name.startswith("here")]
    equal = "as many" if all(ours == theirs for ours, theirs in pairs) else "NOT as many"
    lines.append(f"- without checkpointing: {equal} operations here as by TRL, with the same layers")
    return lines


def packing_table(ways: Found) -> str:
    """Tokens of training rows that a second takes, as ratios to padded batches."""
    padded = next(way for name, way in ways.items() if "padded" in name)
    lines = [
        "| short rows | batches | operations a token, ratio | tokens a second, ratio |",
        "|---|---:|---:|---:|",
    ]
    for name, way in ways.items():
        pace = "-" if way["seconds"] is None else f"{padded['seconds'] / way['seconds']:.3f}"
        lines.append(f"| {name} | {way['batches']} | {way['flops'] / padded['flops']:.3f} | {pace} |")
    return "\n".join(lines)


def _line(name: str, arm: Found, reference: Found) -> str:
    cells = [name, f"{arm['parameters']:,}"]
    for key, unit in (("flops", 1e9), ("seconds", 1.0), ("peak_bytes", 1e6)):
        value = arm[key]
        if value is None:
            cells += ["-", "-"]
        else:
            size = value / unit
            cells += [f"{size:,.0f}" if size >= 100 else f"{size:.2f}", f"{value / reference[key]:.3f}"]
    return f"| {' | '.join(cells)} |"

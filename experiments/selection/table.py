"""What runs came to, as tables: accuracies, and differences from random with intervals."""

import json
from pathlib import Path
from typing import Any

import numpy as np

ALL, RANDOM, DEFAULT = "all rows", "random", "balanced"
ORACLE, WRONG_KEPT, NO_JUNK = TOLD = ("oracle", "oracle, wrong answers kept", "random, no junk")
"""Policies that are told what rows are."""
LONGER = ", steps of all"
"""What policies are called whose rows are trained on for as many steps as all rows take."""
AGAIN = ", second round"
"""What policies are called that choose by the scores of a model that has learned from a first choice."""
RESAMPLES = 2_000
Interval = tuple[float, float, float]


def write_tables(out: Path, results: list[dict[str, Any]], settings: list[str], policies: list[str]) -> None:
    """Write select.md and select.json of the results that are there, and print the former."""
    cells = [
        cell
        for setting in settings
        for budget in sorted({one["budget"] for one in results if one["setting"] == setting}, reverse=True)
        for policy in (ALL, *policies)
        if (cell := cell_of(results, setting, policy, budget)) is not None
    ]
    (out / "select.json").write_text(json.dumps(cells, indent=1) + "\n", encoding="utf-8")
    text = overview(cells, settings) + markdown(cells, settings)
    (out / "select.md").write_text(text, encoding="utf-8")
    print(text)


def cell_of(results: list[dict[str, Any]], setting: str, policy: str, budget: float) -> dict[str, Any] | None:
    """One line of a table; None where there is no run."""
    own = _runs(results, setting, policy, budget)
    if not own:
        return None
    full = _runs(results, setting, ALL, 1.0)
    cell: dict[str, Any] = {
        "setting": setting,
        "policy": policy,
        "budget": budget,
        "seeds": sorted(own),
        "rows": next(iter(own.values()))["rows"],
        "base": next(iter(own.values()))["base"],
        "accuracy": float(np.mean([_right(one).mean() for one in own.values()])),
        "functions": _functions(list(own.values())),
    }
    steps = LONGER if policy.endswith(LONGER) else ""
    for key, name in (("against_random", RANDOM + steps), ("against_balanced", DEFAULT + steps)):
        other = _runs(results, setting, name, budget)
        paired = sorted(own.keys() & other.keys())
        if paired and policy != name:
            cell[key] = difference(*(np.array([_right(runs[n]) for n in paired]) for runs in (own, other)))
    if full:
        whole = float(np.mean([_right(one).mean() for one in full.values()]))
        cell["of_all"] = cell["accuracy"] / whole if whole else None
        free = policy in (RANDOM, RANDOM + LONGER, ALL, *TOLD)
        if not policy.endswith(AGAIN):  # a first round's seconds are not among a run's
            cell["cost"] = _cost(own, full, whole / max(cell["accuracy"], 1e-9), scored=not free)
    return cell


def difference(own: np.ndarray, other: np.ndarray) -> Interval:
    """Mean difference of two (seeds, questions) and its 95 % interval.

    Seeds are drawn in pairs and questions together: both tables ask the same, and a seed orders and starts both.
    """
    rng = np.random.default_rng(0)
    parted = own.astype(float) - other
    means = np.empty(RESAMPLES)
    seeds, questions = parted.shape
    for n in range(RESAMPLES):
        means[n] = parted[rng.integers(seeds, size=seeds)][:, rng.integers(questions, size=questions)].mean()
    low, high = np.quantile(means, (0.025, 0.975))
    return float(parted.mean()), float(low), float(high)


def markdown(cells: list[dict[str, Any]], settings: list[str]) -> str:
    """A table for each setting and budget."""
    lines: list[str] = []
    for setting in settings:
        own = [cell for cell in cells if cell["setting"] == setting]
        for budget in sorted({cell["budget"] for cell in own if cell["policy"] != ALL}, key=lambda one: abs(one - 0.2)):
            shown = [cell for cell in own if cell["budget"] == budget or cell["policy"] == ALL]
            lines += [f"**{setting}, {budget:.0%}** (base {100 * shown[0]['base']:.1f} %)", ""]
            names = list(shown[0]["functions"])
            heads = ["policy", "rows", "seeds", "accuracy", "of all rows'", "against random", "against balanced"]
            lines += [_line([*heads, *names, "C"])]
            lines += [_line(["---"] * (8 + len(names)))]
            lines += [_line(_cells(cell, names)) for cell in shown]
            lines += [""]
    return "\n".join(lines)


def overview(cells: list[dict[str, Any]], settings: list[str]) -> str:
    """The default against random, a line a setting and a column a budget; bold where its interval leaves out zero."""
    defaults = {(cell["setting"], cell["budget"]): cell for cell in cells if cell["policy"] == DEFAULT}
    budgets = sorted({budget for _, budget in defaults})
    lines = [_line(["setting", "base", *(f"{budget:.0%}" for budget in budgets)]), _line(["---"] * (2 + len(budgets)))]
    for setting in settings:
        own = [defaults.get((setting, budget)) for budget in budgets]
        there = [cell for cell in own if cell is not None]
        if there:
            lines.append(_line([setting, f"{100 * there[0]['base']:.0f} %", *map(_against, own)]))
    return "\n".join([*lines, "", ""])


def _against(cell: dict[str, Any] | None) -> str:
    if cell is None or "against_random" not in cell:
        return ""
    _, low, high = cell["against_random"]
    shown = _points(cell["against_random"])
    shown = f"**{shown}**" if low > 0 or high < 0 else shown
    whole = "" if cell.get("of_all") is None else f", {100 * cell['of_all']:.0f} % of all rows'"
    return f"{100 * cell['accuracy']:.1f}: {shown}{whole}"


def _cells(cell: dict[str, Any], names: list[str]) -> list[str]:
    ratio, cost = cell.get("of_all"), cell.get("cost")
    return [
        cell["policy"],
        str(cell["rows"]),
        str(len(cell["seeds"])),
        f"{100 * cell['accuracy']:.1f}",
        "" if ratio is None else f"{100 * ratio:.0f} %",
        *(_points(cell.get(key)) for key in ("against_random", "against_balanced")),
        *(f"{100 * cell['functions'][name]:.0f}" for name in names),
        "" if cost is None else f"{cost:.2f}",
    ]


def _points(interval: Interval | None) -> str:
    return "" if interval is None else "{:+.1f} ({:+.1f} to {:+.1f})".format(*(100 * one for one in interval))


def _cost(own: dict[int, Any], full: dict[int, Any], lost: float, *, scored: bool) -> float:
    """PRISM's C: (full / subset performance) * (selection + training time) / full training time; 1: it paid nothing."""
    seconds = [one["seconds"] for one in own.values()]
    spent = np.mean([one["train"] + (one["score"] + one["select"] if scored else 0.0) for one in seconds])
    return float(lost * spent / np.mean([one["seconds"]["train"] for one in full.values()]))


def _runs(results: list[dict[str, Any]], setting: str, policy: str, budget: float) -> dict[int, dict[str, Any]]:
    key = (setting, policy, budget)
    return {one["seed"]: one for one in results if (one["setting"], one["policy"], one["budget"]) == key}


def _right(run: dict[str, Any]) -> np.ndarray:
    return np.array([int(one) for one in run["right"]])


def _functions(runs: list[dict[str, Any]]) -> dict[str, float]:
    names = np.array(runs[0]["functions"])
    right = np.mean([_right(run) for run in runs], axis=0)
    return {name: float(right[names == name].mean()) for name in dict.fromkeys(names.tolist())}


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"

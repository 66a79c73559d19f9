"""What becomes of each command of the README on a machine without a GPU and without the hub.

A command of which nothing is said here is run as it stands, so that none is left out unsaid.
"""

from dataclasses import dataclass

from bench.newcoming.readme import Command

NOT_HERE = {
    "torchrun --nproc-per-node 8": "needs eight GPUs",
    "pip install .": "make demo has installed it, and tests/test_packaging.py installs the wheel",
}
"""Beginnings of commands that are never run, and why."""

LONG = {
    "make test": "half an hour; CI has it as a job of its own",
    "make smol": "installs more, and trains for minutes",
    "make arms": "20 minutes",
    "make select-experiment": "hours",
    "python bench/": "minutes",
    "python -m experiments": "hours",
}
"""Beginnings of commands that are run only if asked for (`--long`), and how long they take."""

INSTEAD = {
    "Qwen/Qwen2.5-VL-3B-Instruct": "embedded",
    "Qwen/Qwen2.5-VL-7B-Instruct": "embedded",
    "recipes/qwen2.5-vl-7b/sft.yaml": "recipes/micro/sft.yaml",
    "YOUR.jsonl": "data.json",
    "=IMAGES": "=images",
    "measure MODEL": "measure embedded",
}
"""What a reader puts in, or downloads, and what stands in its place."""

SHORTER = {
    "vfl locate embedded": "--pairs 12 --functions counting",
    "vfl train recipes/micro/sft.yaml": "trainer.max_steps=2 evaluation.pairs=4 evaluation.data={}",
    "vfl measure": "--pairs 2",
}
"""Arguments that make a command short, by its beginning."""

FULLY = ("make docs",)
"""Commands named in the text that are run nevertheless; of the others it is checked that they are there."""

PREPARED = (
    "vfl probes make images --style micro --functions counting,ocr,recognition --pairs 4",
    "python bench/newcoming/rows.py images data.json",
    "cp images/images/counting-0000.png a.png && cp images/images/counting-0000.source.png b.png",
    "cp recipes/micro/map.json map.json",
)
"""What the README takes for granted: a data set, two pictures, a map. Made behind `make demo`."""


@dataclass(frozen=True)
class Verdict:
    """What is run for a command; None where nothing is, and then `says` has the reason."""

    command: Command
    runs: str | None
    says: str = ""


def verdict_of(command: Command, *, long: bool = False) -> Verdict:
    """What becomes of a command."""
    for beginning, reason in NOT_HERE.items():
        if command.text.startswith(beginning):
            return Verdict(command, None, reason)
    for beginning, takes in LONG.items():
        if command.text.startswith(beginning) and not long:
            dry = command.text.replace("make ", "make --dry-run ", 1) if command.text.startswith("make ") else None
            return Verdict(command, dry, f"{takes}: --long runs it")
    if command.kind == "named" and not command.text.startswith(FULLY):
        program, *words = command.text.split()
        if program == "make":
            return Verdict(command, f"make --dry-run {' '.join(words)}", "named: whether there is one")
        if not any(word.startswith("-") for word in words):
            return Verdict(command, f"{command.text} --help", "named: whether there is one")
    runs = command.text
    for written, here in INSTEAD.items():
        runs = runs.replace(written, here)
    runs += "".join(f" {more}" for beginning, more in SHORTER.items() if runs.startswith(beginning))
    return Verdict(command, runs, "" if runs == command.text else "with what is at hand")


def used(commands: list[Command]) -> dict[str, bool]:
    """Everything that is said above of commands, and whether the README has such a command."""
    texts = [command.text for command in commands]
    here = [verdict.runs for command in commands if (verdict := verdict_of(command)).runs]
    said = {beginning: any(text.startswith(beginning) for text in texts) for beginning in (*NOT_HERE, *LONG, *FULLY)}
    said |= {written: any(written in text for text in texts) for written in INSTEAD}
    return said | {beginning: any(text.startswith(beginning) for text in here) for beginning in SHORTER}

"""What a newcomer meets: the commands of the README, one by one, in a fresh clone in a fresh environment, each timed.

    python bench/newcomer.py [--environment .venv] [--long] [--skip 'make demo'] [--list]

A clone is made of what is committed. The first `make` sets up its environment, which installs PyTorch; `--environment`
names one that has all that already, and is left as it is. Commands that need a GPU, the hub or hours are run with what
is at hand, or not: the table says which (bench/newcoming/verdicts.py). No package is needed. The exit code is 1 if a
command failed.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.newcoming.readme import Command, commands_of
from bench.newcoming.running import OUTPUT_SHOWN, Tried, clone_of, shown, table, try_all
from bench.newcoming.verdicts import PREPARED, Verdict, verdict_of

ROOT = Path(__file__).resolve().parents[1]


def verdicts_of(text: str, *, long: bool = False, skip: Sequence[str] = ()) -> list[Verdict]:
    """What becomes of each command of a README, once each: blocks first, since they install what the text names.

    Args:
        text: the README.
        long: also what takes minutes or hours.
        skip: beginnings of commands that are left out this time; the table says so.
    """
    commands = commands_of(text)
    written = [command for command in commands if command.kind != "named"]
    in_blocks = {command.text for command in written}
    named = {command.text: command for command in reversed(commands) if command.text not in in_blocks}
    ordered = [*written, *sorted(named.values(), key=lambda command: command.line)]
    verdicts = [
        Verdict(command, None, "skipped") if command.text.startswith(tuple(skip)) else verdict_of(command, long=long)
        for command in ordered
    ]
    prepared = [Verdict(Command(text, "shell", 0), text, "what the README takes for granted") for text in PREPARED]
    return [*verdicts[:1], *prepared, *verdicts[1:]]


def main() -> int:
    """Run them; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--environment", type=Path, help="a virtual environment that has all; default: a new one")
    parser.add_argument("--long", action="store_true", help="also run what takes minutes or hours")
    parser.add_argument("--skip", action="append", default=[], help="leave out commands that begin so; may be repeated")
    parser.add_argument("--list", action="store_true", help="only say what would be run")
    options = parser.parse_args()
    if options.environment is not None and not (options.environment / "bin" / "vfl").is_file():
        parser.error(f"{options.environment} has no bin/vfl: name a virtual environment that `make` made")
    verdicts = verdicts_of((ROOT / "README.md").read_text(encoding="utf-8"), long=options.long, skip=options.skip)
    if options.list:
        print(table([Tried(verdict, None, 0.0) for verdict in verdicts]))
        return 0
    tried = []
    with tempfile.TemporaryDirectory(prefix="newcomer-") as folder:
        clone, environment = clone_of(ROOT, Path(folder), options.environment)
        for attempt in try_all(verdicts, clone, environment):
            tried.append(attempt)
            if attempt.code is not None:
                print(f"{attempt.came_to}, {attempt.seconds:.1f} s: {shown(attempt.verdict)}", flush=True)
            if attempt.code:
                print(attempt.output[-OUTPUT_SHOWN:], flush=True)
    failed = [attempt for attempt in tried if attempt.code]
    print(f"\n{table(tried)}\n\n{len(tried)} commands, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

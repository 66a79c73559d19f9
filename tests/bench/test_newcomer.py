"""The commands of the README as a newcomer runs them: all are found, none is left out unsaid, and each is timed."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from bench.newcomer import verdicts_of
from bench.newcoming.readme import PROGRAMS, Command, commands_of
from bench.newcoming.running import clone_of, table, try_all
from bench.newcoming.verdicts import PREPARED, Verdict, used, verdict_of

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGE = """
Text with `vfl locate` and `python -m
a.module --flag`, `map.json`, `vfl`.

    make demo    # a comment; `make test` is named in it
    python -m a.module \\
        --flag value   # once

Prompts:

    $ vfl one && cd folder
     a table   of output
    $ vfl two "a # b"

```python
import vfl
print("`make nothing`")
```

```bash
vfl three
```
"""


def test_blocks_prompts_spans_and_comments_are_read():
    named, shell = ([c.text for c in commands_of(PAGE) if c.kind == kind] for kind in ("named", "shell"))
    assert named == ["vfl locate", "python -m a.module --flag", "vfl", "make test"]
    assert shell[:3] == ["make demo", "python -m a.module --flag value", "vfl one && cd folder"]
    assert shell[3:] == ['vfl two "a # b"', "vfl three"]
    (script,) = (c for c in commands_of(PAGE) if c.kind == "python")
    assert script.text == 'import vfl\nprint("`make nothing`")'
    lines = PAGE.splitlines()
    assert all(c.text.split()[0] in lines[c.line - 1] for c in commands_of(PAGE))
    one, two = (next(c for c in commands_of(PAGE) if c.text.startswith(f"vfl {name}")) for name in ("one", "two"))
    assert one.block == two.block != script.block


def test_nothing_of_the_readme_that_is_a_command_is_missed():
    """By simpler means: every code span that begins with a program, and every line of a block that has no prompts."""
    found = {command.text for command in commands_of(README)}
    prose, *fenced = re.split(r"^```.*$", README, flags=re.MULTILINE)
    prose += "".join(fenced[1::2])
    spans = {" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)}
    assert {span for span in spans if span.split() and span.split()[0] in PROGRAMS} <= found
    blocks = re.findall(r"(?:^    .*\n)+", prose, re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines() if "    $ " not in block or "    $ " in line]
    written = {line.removeprefix("    ").removeprefix("$ ").partition("  #")[0].strip() for line in lines}
    assert written <= found
    assert {script.removeprefix("\n").removesuffix("\n") for script in fenced[::2]} <= found
    assert len(found) == len(written | {span for span in spans if span in found}) + len(fenced[::2])


def test_every_command_of_the_readme_is_run_or_has_a_reason():
    verdicts = verdicts_of(README)
    assert {verdict.command.text for verdict in verdicts} == {c.text for c in commands_of(README)} | set(PREPARED)
    assert len({verdict.command.text for verdict in verdicts}) == len(verdicts)
    assert all(verdict.says for verdict in verdicts if verdict.runs != verdict.command.text)
    assert sum(verdict.runs is not None for verdict in verdicts) > len(verdicts) / 2
    assert verdicts[0].runs == "make demo", "it installs what the others need"


def test_what_is_said_of_commands_is_said_of_some_that_there_are():
    assert [beginning for beginning, there in used(commands_of(README)).items() if not there] == []


def test_what_is_skipped_stays_in_the_table():
    skipped, *others = verdicts_of(README, skip=["make demo"])
    assert (skipped.command.text, skipped.runs, skipped.says) == ("make demo", None, "skipped")
    assert others == verdicts_of(README)[1:]


def test_what_is_unknown_is_run_as_it_stands():
    command = Command("vfl brand-new --option", "shell", 1, 1)
    assert verdict_of(command) == Verdict(command, command.text)


def test_a_block_is_one_shell_and_a_failure_is_told(tmp_path):
    def shell(text, block):
        return Verdict(Command(text, "shell", block, block), text)

    unable = Verdict(Command("fly", "shell", 9, 9), None, "no wings")
    steps = [shell("mkdir deep && cd deep", 1), shell("pwd", 1), shell("pwd", 2), shell("echo why >&2; exit 3", 2)]
    made, deep, top, failed, not_run = try_all([*steps, unable], tmp_path, dict(os.environ))
    assert (made.came_to, deep.output.strip(), top.output.strip()) == ("ok", str(tmp_path / "deep"), str(tmp_path))
    assert (failed.came_to, failed.output.strip(), not_run.came_to) == ("FAILED (3)", "why", "not run")
    assert all(attempt.seconds > 0 for attempt in (made, deep, top, failed))
    rows = table([made, deep, top, failed, not_run]).splitlines()[1:]
    assert len(rows) == 5
    assert rows[-1].endswith("fly   (no wings)")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep"], "nothing is left behind"


@pytest.mark.parametrize("fresh", [False, True])
def test_an_environment_is_used_and_not_changed(fresh, tmp_path):
    repository, installed = tmp_path / "repository", tmp_path / "installed"
    (installed / "bin").mkdir(parents=True)
    (installed / "bin" / "vfl").touch()
    (installed / ".installed").touch()
    repository.mkdir()
    (repository / "file").write_text("committed")
    for arguments in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a"],
    ):
        subprocess.run(["git", *arguments], cwd=repository, check=True)
    (repository / "other").write_text("not committed")
    clone, environment = clone_of(repository, tmp_path, None if fresh else installed)
    assert (clone / "file").read_text() == "committed"
    assert not (clone / "other").exists()
    assert environment["PATH"].startswith(str(clone / ".venv" / "bin"))
    assert (clone / ".venv").exists() == (not fresh)
    if not fresh:
        assert (clone / ".venv" / "bin" / "vfl").exists()
        assert not (clone / ".venv" / ".installed").is_symlink()
        assert (environment["PYTHONPATH"], environment["INSTALL"]) == (str(clone), "true")
    assert sorted(path.name for path in installed.iterdir()) == [".installed", "bin"]

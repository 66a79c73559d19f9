"""The tutorials: their commands and their Python are run, block by block, in one folder a page.

Blocks of the languages bash and python are run as they stand; what needs a large model is marked console or text.
Bash itself runs those that hold more than plain commands of vfl.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import warm
from pages import DOCS, ROOT, blocks_of

pytestmark = pytest.mark.long

PAGES = [
    "tutorials/find",
    "how-to/pairs",
    pytest.param("tutorials/train", marks=pytest.mark.slow),
    pytest.param("tutorials/select", marks=pytest.mark.slow),
    pytest.param("tutorials/measure", marks=pytest.mark.slow),
]


def environment(tools: Path) -> dict[str, str]:
    """With `vfl` and `python` that are this interpreter's, and the repository's library."""
    tools.mkdir()
    for name, call in (("python", ""), ("vfl", '-c "from vfl.commands.main import run; run()" ')):
        (tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {call}"$@"\n')
        (tools / name).chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


def plain_commands(text: str) -> list[list[str]]:
    """The arguments of each `vfl` of a block that holds nothing else; none where a shell has more to do."""
    lines = text.replace("\\\n", " ").splitlines()
    if set(text) & set("|&;<>()$`*?[]#~!{}") or not all(line.startswith("vfl ") for line in lines):
        return []
    return [shlex.split(line)[1:] for line in lines]


def run_bash(text: str, env: dict[str, str], work: Path) -> "subprocess.CompletedProcess[str]":
    """Run a block, up to the first command that fails."""
    for arguments in (commands := plain_commands(text)):
        done = warm.finished(["-c", "from vfl.commands.main import run; run()", *arguments], env, cwd=work)
        if done.returncode or arguments is commands[-1]:
            return done
    command = ["bash", "-euo", "pipefail", "-c", text]
    return subprocess.run(command, cwd=work, env=env, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", PAGES)
def test_every_block_runs(name, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    env = environment(tmp_path / "bin")
    run = 0
    for block in blocks_of(DOCS / f"{name}.md"):
        if block.title or block.language not in ("bash", "python"):
            continue
        if block.language == "python":
            done = warm.finished(["-c", block.text], env, cwd=work)
        else:
            done = run_bash(block.text, env, work)
        assert done.returncode == 0, f"{block.text}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        run += 1
    assert run >= 2


def test_no_block_is_left_out_by_a_slip():
    """Every block of a tutorial has a language that says whether it is run."""
    known = {"bash", "python", "console", "text", "yaml"}
    for page in sorted((DOCS / "tutorials").glob("*.md")):
        assert {block.language for block in blocks_of(page)} <= known
        assert page.read_text(encoding="utf-8").count("```") == 2 * len(blocks_of(page)), page

"""The how-tos that add something: all they say is done to one copy of the library, and their checks are run on it."""

import os
import shutil

import pytest
import warm
from pages import DOCS, ROOT, blocks_of

PAGES = ("function", "family", "metric", "policy", "data-format", "command")
CHECK = "check"
RUN = """
import os, sys, traceback
failed = []
for page in sys.argv[1:]:
    os.makedirs(page, exist_ok=True)
    os.chdir(page)
    try:
        exec(compile(open("check.py").read(), page, "exec"), {"__name__": "check"})
    except BaseException:
        failed.append(page)
        traceback.print_exc()
    os.chdir("..")
print("failed:", *failed)
"""


def changed(text: str, diff: str) -> str:
    """A file's text with a how-to's diff applied; what the diff shows of the file must stand there once."""
    for part in diff.split("@@\n"):
        lines = part.splitlines()
        before = "".join(f"{line[1:]}\n" for line in lines if line[:1] in (" ", "-"))
        after = "".join(f"{line[1:]}\n" for line in lines if line[:1] in (" ", "+"))
        assert text.count(before) == 1, f"{text.count(before)} places for\n{before}"
        text = text.replace(before, after)
    return text


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """The process that ran the checks; its last line names the pages whose check failed."""
    work = tmp_path_factory.mktemp("how-tos")
    for folder in ("vfl", "tests"):
        shutil.copytree(ROOT / folder, work / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for page in PAGES:
        checks = []
        for block in blocks_of(DOCS / "how-to" / f"{page}.md"):
            if block.title == CHECK:
                checks.append(block.text)
            elif block.title and block.language == "diff":
                file = work / block.title
                file.write_text(changed(file.read_text(encoding="utf-8"), block.text), encoding="utf-8")
            elif block.title:
                assert not (work / block.title).exists(), block.title
                (work / block.title).write_text(block.text, encoding="utf-8")
        (work / page).mkdir()
        (work / page / "check.py").write_text("\n".join(checks), encoding="utf-8")
        assert checks, page
    return warm.finished(
        ["-c", RUN, *PAGES],
        {**os.environ, "PYTHONPATH": f"{work}:{work / 'tests'}", "REPOSITORY": str(ROOT), "OMP_NUM_THREADS": "1"},
        cwd=work,
    )


@pytest.mark.parametrize("page", PAGES)
def test_what_it_adds_works(outcome, page):
    assert outcome.returncode == 0, outcome.stderr
    assert page not in outcome.stdout.splitlines()[-1].split(), outcome.stderr

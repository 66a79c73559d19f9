"""`make` from a checkout whose path has spaces, with stand-ins for Python and its tools that note what was called."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = ("python", "vfl", "ruff", "mypy", "lint-imports")
PIP = "python -m pip install --quiet"
UV = "uv pip install --quiet --python .venv/bin/python"
# Notes its name and arguments in the checkout; as `-m venv`, it makes an environment of its like.
STAND_IN = f"""#!/bin/sh
echo "$(basename "$0") $*" >> calls.txt
if [ "$1 $2" = "-m pip" ] && [ -e broken ]; then exit 1; fi
if [ "$1 $2" = "-m venv" ]; then
    mkdir -p .venv/bin
    for tool in {" ".join(TOOLS)}; do cp "$0" ".venv/bin/$tool"; done
fi
"""

pytestmark = [
    pytest.mark.tool,
    pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed"),
]


class Checkout:
    """A folder with the Makefile and what it depends on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "my check out"
        self.folder.mkdir()
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            shutil.copyfile(ROOT / name, self.folder / name)
            os.utime(self.folder / name, (1_000_000_000, 1_000_000_000))
        tools = folder / "some tools"
        tools.mkdir()
        for name in ("python3", "uv"):
            (tools / name).write_text(STAND_IN, encoding="utf-8")
            (tools / name).chmod(0o755)
        self.path = f"{tools}{os.pathsep}{os.environ['PATH']}"

    def make(self, target: str, *, uv: bool = False) -> tuple[int, list[str]]:
        """The exit code, and the calls that the target made, with or without uv."""
        calls = self.folder / "calls.txt"
        calls.unlink(missing_ok=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        done = subprocess.run(
            ["make", target, *([] if uv else ["UV="])],
            cwd=self.folder,
            env={**environment, "PATH": self.path},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, calls.read_text(encoding="utf-8").splitlines() if calls.exists() else []


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


def installs(calls):
    return any(call.startswith("python -m pip install") and "--editable" in call for call in calls)


@pytest.mark.parametrize(
    ("target", "call"),
    [
        ("test", "python -m pytest"),
        ("test-slow", "python -m pytest"),
        ("quality", "lint-imports"),
        ("style", "ruff format"),
        ("bench", "python bench/locate.py"),
        ("demo", "vfl locate"),
        ("arms", "vfl arms"),
    ],
)
def test_every_target_sets_up_its_environment_and_runs(checkout, target, call):
    code, calls = checkout.make(target)
    assert code == 0, calls
    assert installs(calls)
    assert any(line.startswith(call) for line in calls)


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_the_environment_is_set_up_once_and_when_its_dependencies_change(checkout, name):
    assert installs(checkout.make("quality")[1])
    assert not installs(checkout.make("quality")[1])
    later = (checkout.folder / ".venv" / ".installed").stat().st_mtime + 10
    os.utime(checkout.folder / name, (later, later))
    assert installs(checkout.make("quality")[1])


def test_uv_installs_the_same_where_there_is_one(checkout):
    by_uv = [call for call in checkout.make("quality", uv=True)[1] if call.startswith((UV, "python -m pip"))]
    shutil.rmtree(checkout.folder / ".venv")
    by_pip = [call for call in checkout.make("quality")[1] if call.startswith(("uv", "python -m pip"))]
    assert by_pip == ["python -m pip install --quiet --upgrade pip", *(call.replace(UV, PIP) for call in by_uv)]


def test_an_installation_that_failed_is_tried_again(checkout):
    (checkout.folder / "broken").touch()
    code, calls = checkout.make("test")
    assert code != 0
    assert not any("pytest" in call for call in calls)
    (checkout.folder / "broken").unlink()
    code, calls = checkout.make("test")
    assert code == 0
    assert installs(calls)


def test_clean_leaves_the_sources(checkout):
    (checkout.folder / "build").mkdir()
    (checkout.folder / "vfl.egg-info").mkdir()
    assert checkout.make("clean") == (0, [])
    assert sorted(path.name for path in checkout.folder.iterdir()) == ["Makefile", "constraints.txt", "pyproject.toml"]

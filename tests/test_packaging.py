"""What a user installs: a wheel and an sdist that hold every file of the library and run outside of the repository."""

import email
import email.message
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
import warm
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[1]
NOT_SOURCE = shutil.ignore_patterns(
    *(".git", ".venv*", "__pycache__", "*.egg-info", ".*_cache", "build", "dist", "demo", "runs", "site")
)
BUILD = "import sys, setuptools.build_meta as backend; print(getattr(backend, sys.argv[1])(sys.argv[2]))"
# Kinds of files that are read while the library runs.
READ = {".jinja", ".css", ".js", ".json", ".safetensors", ".txt", ".png"}


def build(kind: str, source: Path, out: Path) -> Path:
    """The wheel or sdist of a source folder, by the build backend's own hook: what `python -m build` calls."""
    out.mkdir(parents=True, exist_ok=True)
    done = _python("-c", BUILD, f"build_{kind}", str(out), cwd=source)
    return out / done.stdout.splitlines()[-1]


def _python(*arguments: str, cwd: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    """The sdist of a copy of the working tree: the build writes into its source."""
    folder = tmp_path_factory.mktemp("sdist")
    shutil.copytree(ROOT, folder / "source", ignore=NOT_SOURCE)
    return build("sdist", folder / "source", folder / "dist")


@pytest.fixture(scope="module")
def unpacked(sdist, tmp_path_factory) -> Path:
    """What the sdist holds."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (top,) = folder.iterdir()
    return top


@pytest.fixture(scope="module")
def wheel(unpacked, tmp_path_factory) -> Path:
    """The wheel that is built from the sdist."""
    return build("wheel", unpacked, tmp_path_factory.mktemp("wheel"))


def library(root: Path) -> set[str]:
    """The files below `vfl`, without what Python compiled."""
    paths = (root / "vfl").rglob("*")
    return {path.relative_to(root).as_posix() for path in paths if path.is_file() and "__pycache__" not in path.parts}


def test_both_hold_every_file_of_the_library(unpacked, wheel):
    expected = library(ROOT)
    assert {Path(name).suffix for name in expected} >= READ | {".py"}
    assert "vfl/py.typed" in expected
    assert library(unpacked) == expected
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in names if name.startswith("vfl/")} == expected


def test_the_wheel_holds_nothing_else(wheel):
    """Folders of the repository would land beside the library, for everybody's `import train`."""
    tops = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"vfl"}


def test_the_sdist_can_be_worked_on(unpacked):
    for name in ("Makefile", "constraints.txt", "README.md", "LICENSE", "tests/conftest.py", "tests/tiny/build.py"):
        assert (unpacked / name).is_file(), name
    for folder in ("recipes", "docs", "bench", "train", "select"):
        assert any((unpacked / folder).iterdir()), folder


def metadata(wheel: Path) -> tuple[email.message.Message, str]:
    """What the wheel says of itself, and its entry points."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name.partition("/")[2]: name for name in archive.namelist() if ".dist-info/" in name}
        said = email.message_from_bytes(archive.read(names["METADATA"]))
        assert any(name.startswith("licenses/") for name in names)
        return said, archive.read(names["entry_points.txt"]).decode()


def test_the_wheel_says_what_it_is(wheel):
    import vfl

    said, entry_points = metadata(wheel)
    assert (said["Name"], said["Version"]) == ("vfl", vfl.__version__)
    assert said["License-Expression"] == "Apache-2.0"
    assert set(said.get_all("Provides-Extra", [])) == {
        "train",
        "deepspeed",
        "select",
        "ray",
        "quantized",
        "smol",
        "app",
    }
    always = [line for line in said.get_all("Requires-Dist") if "extra ==" not in line]
    assert not any(line.startswith(("deepspeed", "trl", "pytest")) for line in always)
    assert "vfl = vfl.commands.main:run" in entry_points
    assert "vfl = vfl.lmms_eval.manifest:manifest" in entry_points.partition("[lmms_eval.models]")[2]
    assert "function layers" in said.get_payload().lower() or "function layer" in said["Description"].lower()


def test_what_is_needed_is_pinned_to_a_version_that_is_allowed():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project, groups = pyproject["project"], pyproject["dependency-groups"]
    extras = [line for extra in project["optional-dependencies"].values() for line in extra]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    pinned = {canonicalize_name(pin.name): pin for pin in pins if pin.marker is None or pin.marker.evaluate()}
    for needed in map(Requirement, [*project["dependencies"], *extras, *groups["dev"], *groups["docs"]]):
        (pin,) = pinned[canonicalize_name(needed.name)].specifier
        assert pin.operator == "=="
        assert needed.specifier.contains(pin.version, prereleases=True), f"{needed}, pinned {pin}: make lock"


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder that holds the installed wheel; what it depends on is the environment's."""
    folder = tmp_path_factory.mktemp("installed")
    _python(
        *("-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile", "--target", str(folder)),
        str(wheel),
        cwd=folder,
    )
    return folder


@pytest.fixture
def vfl_installed(installed, tmp_path) -> Iterator:
    """Run the installed `vfl` in a folder that is not the repository: what it prints."""

    def call(*arguments: str) -> str:
        script = str(installed / "bin" / "vfl")
        return _python(script, *arguments, cwd=tmp_path, PYTHONPATH=str(installed)).stdout

    return call


def test_the_installed_command_is_the_installed_library(installed, vfl_installed, tmp_path):
    where = _python("-c", "import vfl; print(vfl.__file__)", cwd=tmp_path, PYTHONPATH=str(installed)).stdout
    assert Path(where.strip()).is_relative_to(installed)
    assert vfl_installed("--version").startswith("vfl ")


@pytest.mark.slow
def test_the_installed_commands_locate_select_and_check(vfl_installed, tmp_path):
    """On the embedded model, whose weights, words and pictures come with the wheel."""
    vfl_installed("locate", "--out", "map", "--pairs", "12", "--functions", "counting,ocr")
    fmap = json.loads((tmp_path / "map" / "map.json").read_text())
    assert set(fmap["functions"]) == {"counting", "ocr"}
    assert "<style>" in (tmp_path / "map" / "report.html").read_text()

    rows = []
    for number in range(6):
        tiny.picture(seed=number, size=(96, 96)).save(tmp_path / f"{number}.png")
        turns = [("user", "<image>How many?"), ("assistant", str(number))]
        messages = [{"role": role, "content": text} for role, text in turns]
        rows.append(json.dumps({"messages": messages, "images": [f"{number}.png"]}) + "\n")
    (tmp_path / "data.jsonl").write_text("".join(rows))
    vfl_installed("select", "score", "data.jsonl", "--map", "map/map.json", "--out", "scores")
    vfl_installed("select", "filter", "scores", "--budget", "50%", "--policy", "random", "--out", "subset")
    assert len((tmp_path / "subset" / "data" / "data.jsonl").read_text().splitlines()) == 3

    recipe = {
        "out": "run",
        "data": {"train": "subset/data/data.jsonl", "images": "."},
        "layers": {"functions": ["counting"], "map": "map/map.json"},
        "deepspeed": "zero2",
        "trainer": {"max_steps": 1},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    vfl_installed("train", "recipe.yaml", "--check")
    assert json.loads((tmp_path / "run" / "preflight.json").read_text())["launch"]["zero"]["stage"] == 2


def test_a_clone_without_symbolic_links_installs_and_its_tests_are_found(tmp_path):
    """As on Windows: git writes a link as a small text file, and what lies behind it is not there."""
    clone = tmp_path / "clone"
    subprocess.run(
        ["git", "clone", "--quiet", "--no-hardlinks", "-c", "core.symlinks=false", str(ROOT), str(clone)],
        capture_output=True,
        text=True,
        check=True,
    )
    names = zipfile.ZipFile(build("wheel", clone, tmp_path / "dist")).namelist()
    assert {"vfl/train/run.py", "vfl/select/__init__.py"} <= set(names)
    options = ("--collect-only", "-q", "-p", "no:cacheprovider", "--assert=plain")
    arguments = ("-m", "pytest", *options, "tests/train/test_run.py", "tests/select/test_choosing.py")
    collected = warm.finished(arguments, {**os.environ, "PYTHONPATH": str(clone)}, cwd=clone)
    assert collected.returncode == 0, collected.stdout[-3000:] + collected.stderr[-3000:]
    assert "tests/train/test_run.py::" in collected.stdout
    assert "tests/select/test_choosing.py::" in collected.stdout

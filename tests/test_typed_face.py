"""What editors and type checkers see of `vfl`: every public name, with its types."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import vfl

ROOT = Path(__file__).parents[1]
# A user's file, and what mypy is to say of its lines.
USER = """
import vfl

vlm = vfl.load("a")
reveal_type(vlm)
reveal_type(vlm.num_layers)
vfl.locate(out=3)
vfl.sweep("no model")
vfl.train()
vfl.Plan.swop([1])
vfl.lokate("a")
"""
SAYS = [
    'Revealed type is "vfl.models.vlm.VLM"',
    'Revealed type is "int"',
    'Argument "out" to "locate" has incompatible type "int"',
    'Argument 1 to "sweep" has incompatible type "str"',
    'Missing positional argument "recipe" in call to "train"',
    '"type[Plan]" has no attribute "swop"',
    'Module has no attribute "lokate"',
]


def _checked_imports() -> set[str]:
    """The names that `vfl/__init__.py` imports for type checkers alone."""
    tree = ast.parse((ROOT / "vfl" / "__init__.py").read_text(encoding="utf-8"))
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    named = {alias.asname or alias.name for node in imports for alias in node.names}
    renamed = {ast.unparse(node.targets[0]) for block in blocks for node in block.body if isinstance(node, ast.Assign)}
    return {name for name in named if not name.startswith("_")} | renamed


def test_checkers_and_python_know_the_same_names():
    assert _checked_imports() | {"__version__"} == set(vfl.__all__)


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> str:
    """What mypy says of the user's file, and of all public names in a second one."""
    folder = tmp_path_factory.mktemp("typed")
    (folder / "user.py").write_text(USER, encoding="utf-8")
    names = "".join(f"reveal_type(vfl.{name})\n" for name in vfl.__all__)
    (folder / "names.py").write_text(f"import vfl\n{names}", encoding="utf-8")
    # In mypy's own cache, which `make quality` fills: from nothing it takes half a minute.
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *map(str, sorted(folder.glob("*.py")))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("says", SAYS)
def test_a_wrong_use_is_an_error_where_it_is_written(output, says):
    assert any(says in line for line in output.splitlines() if "user.py" in line), output


def test_no_public_name_is_untyped(output):
    revealed = [line for line in output.splitlines() if "names.py" in line]
    assert len(revealed) == len(vfl.__all__), output
    assert [line for line in revealed if "Revealed type is" not in line or '"Any"' in line] == []
    # The chosen rows come back as the kind of data that was given, which `datasets` has no types for.
    returns_any = {vfl.__all__[place] for place, line in enumerate(revealed) if '-> Any"' in line}
    assert returns_any <= {"filter"}

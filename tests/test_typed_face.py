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
from vfl.metrics import drop, var

vlm = vfl.load("a")
reveal_type(vlm)
reveal_type(vlm.num_layers)
vfl.locate(out=3)
vfl.sweep("no model")
vfl.train()
vfl.Plan.swop([1])
vfl.lokate("a")
reveal_type(drop)
var(3)


class Rows:
    column_names = ["id"]

    def select(self, indices: object) -> "Rows":
        return self


reveal_type(vfl.filter("scores", ["a.json"], budget=3, out="subset"))
reveal_type(vfl.filter("scores", Rows(), budget="20%", policy="random"))
vfl.filter("scores", "a.json", budget=3)
vfl.filter("scores", 3, budget=3, out="subset")
"""
SAYS = [
    'Revealed type is "vfl.models.vlm.VLM"',
    'Revealed type is "int"',
    'Argument "out" to "locate" has incompatible type "int"',
    'Argument 1 to "sweep" has incompatible type "str"',
    'Missing positional argument "recipe" in call to "train"',
    '"type[Plan]" has no attribute "swop"',
    'Module has no attribute "lokate"',
    'Revealed type is "def (vlm: vfl.models.vlm.VLM, pairs:',
    'to "var" has incompatible type "int"',
    'user.py:24: note: Revealed type is "vfl.select.subset.result.Subset"',
    'user.py:25: note: Revealed type is "user.Rows"',
    'user.py:26: error: No overload variant matches argument types "str", "str", "int"',
    'user.py:27: error: No overload variant matches argument types "str", "int", "int", "str"',
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
    untyped = ('"Any"', '-> Any"')
    assert [line for line in revealed if "Revealed type is" not in line or any(text in line for text in untyped)] == []

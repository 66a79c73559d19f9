"""`vfl models`: the supported families.

vfl models
"""

from importlib.metadata import version

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table


def command() -> None:
    """List the supported families of models.

    Shows what is particular about each, and the library versions that they were tested with.
    """
    from vfl.models.families import FAMILIES, REFUSED, TESTED

    table = Table(title="Supported model families", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("family", "model_type", "boxes"):
        table.add_column(heading, no_wrap=True)
    table.add_column("note")
    for family in FAMILIES:
        table.add_row(family.name, "\n".join(family.model_types), family.boxes.name, family.note)
    console = Console()
    console.print(table)
    console.print(f"Refused: {', '.join(REFUSED)} (no vision tokens among their keys and values).", markup=False)
    console.print(
        "Others are tried by discovery and checked at load. Every family is tested with "
        + ", ".join(f"{name} {tested} (installed: {version(name)})" for name, tested in TESTED.items())
        + ".",
        markup=False,
        highlight=False,
    )

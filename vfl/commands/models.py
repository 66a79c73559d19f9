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
    from vfl.models.families import FAMILIES, REFUSED, REFUSED_LAYERS, TESTED

    console = Console()
    for tested, title in (("throughout", "Tested throughout"), ("sweep", "Tested: loading, sweeps, full passes")):
        table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        for heading in ("family", "model_type", "boxes"):
            table.add_column(heading, no_wrap=True)
        table.add_column("note")
        for family in FAMILIES:
            if family.tested == tested:
                boxes = family.boxes.name if family.known else "not known"
                table.add_row(family.name, "\n".join(family.model_types), boxes, family.note)
        console.print(table)
    lines = (
        f"Refused: {', '.join(REFUSED)} (no vision tokens among their keys and values); {REFUSED_LAYERS}.",
        "Others are tried by discovery and checked at load. Tests run small random models of the real classes with "
        + ", ".join(f"{name} {tested} (installed: {version(name)})" for name, tested in TESTED.items())
        + "; where boxes are not known, --boxes says how they are written.",
    )
    for line in lines:
        console.print(line, markup=False, highlight=False)

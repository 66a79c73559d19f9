"""`vfl models`: the supported families."""

from importlib.metadata import version

from rich.console import Console
from rich.table import Table


def command() -> None:
    """Print the families of models, what holds for each, and the versions they were tested with."""
    from vfl.models.families import FAMILIES, REFUSED, TESTED

    table = Table(title="Supported model families")
    for heading in ("family", "model_type", "sweeps", "boxes", "note"):
        table.add_column(heading)
    for family in FAMILIES:
        sweeps = "full passes" if family.prefix_lm else "shared prefix"
        table.add_row(family.name, ", ".join(family.model_types), sweeps, family.boxes.name, family.note)
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

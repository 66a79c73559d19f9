"""The picture of the house: rooms by floor as the import contract has them, and who imports whom as the code does."""

import ast
import tomllib
from dataclasses import dataclass, field
from html import escape

from pages_from_code.sources import ROOT, cell, modules, summary

WIDTH, FLOOR, GAP, SIDE = 920, 62, 12, 8


@dataclass
class Room:
    """A folder or file right below `vfl`."""

    name: str
    says: str = ""
    files: int = 0
    lines: int = 0
    imports: set[str] = field(default_factory=set)


def rooms() -> dict[str, Room]:
    """All rooms; imports are those that run, not those for a type checker alone."""
    made: dict[str, Room] = {}
    for name, tree in modules():
        parts = name.split(".")
        if len(parts) < 2:
            continue
        room = made.setdefault(parts[1], Room(parts[1]))
        room.files += 1
        room.lines += max((node.end_lineno or 0 for node in tree.body), default=0)
        if len(parts) == 2:
            room.says = summary(tree)
        room.imports |= {target for target in imported(tree) if target != room.name}
    for room in made.values():
        room.imports &= made.keys()
    return made


def imported(tree: ast.Module) -> set[str]:
    """Rooms that a module names in imports that run."""
    unread = {
        part
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for part in ast.walk(statement)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if node in unread:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} if node.module != "vfl" else {f"vfl.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("vfl.")}


def floors() -> list[list[str]]:
    """Names of rooms by floor, the top one first, from the contract that `make quality` checks."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    return [[name.strip() for name in floor.split("|")] for floor in layers]


def picture() -> str:
    """The house as SVG: one row a floor, imports run downwards."""
    made, stacked = rooms(), floors()
    height = len(stacked) * (FLOOR + GAP) + GAP
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'aria-label="Rooms of the library by floor" font-family="sans-serif" font-size="11" fill="#334">'
        "<style>.name {font-size: 16px; font-weight: bold; fill: #1b2a4a}</style>"
    ]
    for number, names in enumerate(stacked):
        top = GAP + number * (FLOOR + GAP)
        wide = (WIDTH - SIDE * (len(names) + 1)) / len(names)
        for place, name in enumerate(names):
            left, room = SIDE + place * (wide + SIDE), made[name]
            below = ", ".join(other for floor in stacked[number:] for other in floor if other in room.imports)
            size = f"{room.files} files, {room.lines:,} lines"
            drawn.append(
                f'<g><title>{escape(room.says)}</title><rect x="{left:.0f}" y="{top}" width="{wide:.0f}" '
                f'height="{FLOOR}" rx="6" fill="#eef2fb" stroke="#5b76b8"/>'
                f'<text x="{left + 12:.0f}" y="{top + 25}" class="name">{name}</text>'
                f'<text x="{left + wide - 12:.0f}" y="{top + 25}" text-anchor="end">{size}</text>'
                f'<text x="{left + 12:.0f}" y="{top + 46}">{escape(wrapped(below, wide))}</text></g>'
            )
    return "\n".join([*drawn, "</svg>"])


def wrapped(below: str, wide: float) -> str:
    """What a room imports, cut to its box."""
    text = f"imports {below}" if below else "imports nothing of the house"
    most = int((wide - 20) / 5.4)
    return text if len(text) <= most else text[: most - 1].rstrip(", ") + " …"


def table() -> str:
    """Rooms, what each is for, and what it imports, from the bottom up."""
    made, stacked = rooms(), floors()
    rows = ["| room | what it holds | imports |", "|---|---|---|"]
    for floor in reversed(stacked):
        for name in floor:
            below = ", ".join(f"`{other}`" for other in sorted(made[name].imports)) or "-"
            rows.append(f"| `vfl/{name}` | {cell(made[name].says)} | {below} |")
    return "\n".join(rows)

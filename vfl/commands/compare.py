"""`vfl compare A B ...`: maps of several models, or measurements, side by side.

vfl compare runs/qwen2.5-vl-3b runs/qwen2.5-vl-7b --out runs/compare
vfl compare runs/measure-before runs/measure-after --out measured.md
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vfl.commands.options import Out


def command(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUNS", help="Two or more map.json or metrics.json files, or the folders that hold them."
        ),
    ],
    out: Out = None,
) -> None:
    """Set maps or measurements side by side.

    For maps, it shows each function's layers at their relative depth, and how well the models agree on the functions'
    order; --out writes that as a figure (.png), a page (.html), or both into a folder. For measurements, it shows the
    scalars, and for tables of heads the distance (EMD) and correlation (Pearson) of the values; --out writes a Markdown
    file (.md), or a figure of these distances and correlations (.png).
    """
    if any(path.name == "metrics.json" or (path / "metrics.json").is_file() for path in runs):
        _measurements(runs, out)
    else:
        _maps(runs, out)


def _measurements(runs: list[Path], out: Path | None) -> None:
    from vfl.errors import InputError
    from vfl.io.atomic import replacing
    from vfl.measure.compare import as_markdown, compare_measurements

    if out is not None and out.suffix not in (".md", ".png"):
        raise InputError(f"--out {out} can't hold a comparison of measurements; give a file that ends in .md or .png.")
    compared = compare_measurements(runs)
    text = as_markdown(compared)
    if out is not None and out.suffix == ".png":
        from vfl.measure.compare_figure import save_matrices

        save_matrices(compared, out)
    elif out is not None:
        with replacing(out) as temporary:
            temporary.write_text(text, encoding="utf-8")
    Console().print(text, markup=False, highlight=False, soft_wrap=True)


def _maps(runs: list[Path], out: Path | None) -> None:
    from vfl.locate.report.compare import compare_maps
    from vfl.locate.report.write import write_comparison
    from vfl.report.words import layer_list

    compared = compare_maps(runs)
    written = write_comparison(compared, out) if out is not None else []
    console = Console()
    # Text, not str: names come from files, and rich would read [brackets] in them as markup.
    table = Table(title="Layers, and the peak's relative depth (0 first layer, 1 last)", title_justify="left")
    table.add_column("function")
    for label, fmap in zip(compared.labels, compared.maps, strict=True):
        table.add_column(Text(f"{label}\n{fmap.model.num_layers} layers"))
    for name in compared.functions:
        cells = []
        for fmap, peaks in zip(compared.maps, compared.peaks, strict=True):
            layers = layer_list(fmap.functions[name].layers) if name in fmap.functions else "–"
            cells.append(Text(f"{layers} ({peaks[name]:.2f})" if name in peaks else layers))
        table.add_row(Text(name), *cells)
    console.print(table)

    order = Table(title="Agreement of the functions' order (Kendall's tau-b)", title_justify="left")
    for heading in ("maps", "shared functions", "tau"):
        order.add_column(heading, justify="left" if heading == "maps" else "right")
    for pair in compared.agreements:
        order.add_row(Text(f"{pair.first} / {pair.second}"), str(pair.shared), pair.tau_text)
    console.print(order)
    for path in written:
        console.print(str(path), markup=False, highlight=False, soft_wrap=True)

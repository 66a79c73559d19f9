"""Reports as files, each whole or not at all."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from vfl.errors import InputError
from vfl.functionmap import FunctionMap
from vfl.io.atomic import replacing
from vfl.locate.records import read_records
from vfl.locate.report.compare import Comparison
from vfl.locate.report.examples import examples
from vfl.locate.report.figures import depth_figure
from vfl.locate.report.page import render_comparison, render_report
from vfl.probes.pair import Pair
from vfl.report.map_figure import curves_figure


def write_report(
    out_dir: Path,
    fmap: FunctionMap,
    records: pa.Table | Path,
    pairs: Sequence[Pair] = (),
    *,
    planted: Mapping[str, Sequence[int]] | None = None,
    note: str = "",
    examples_per_function: int = 2,
) -> tuple[Path, Path]:
    """Write report.html and curves.png into `out_dir`, each whole or not at all, and return their paths.

    Args:
        records: the sweep's rows, or the path of pairs.parquet; example answers come from them.
        pairs: the suite; without it the examples have no pictures.
        planted: the true layers of a model whose layers are known; drawn beside the recovered ones.
        note: a sentence about the model under the title, such as that it is a test bed.
    """
    for layers in (planted or {}).values():
        assert all(0 <= k < fmap.model.num_layers for k in layers), (
            f"planted {layers} of {fmap.model.num_layers} layers"
        )
    table = read_records(records) if isinstance(records, Path) else records
    page, picture = out_dir / "report.html", out_dir / "curves.png"
    shown = examples(fmap, table, pairs, examples_per_function)
    html = render_report(fmap, shown, planted=planted, note=note)
    with replacing(picture) as temporary:
        curves_figure(fmap, planted=planted).savefig(temporary, format="png", dpi=300)
    with replacing(page) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return page, picture


def write_comparison(comparison: Comparison, out: Path) -> list[Path]:
    """Write compare.png and compare.html into a folder, or the one file that `out` names by its ending."""
    if out.suffix not in ("", ".png", ".html"):
        raise InputError(f"--out {out} ends in {out.suffix}; expected .png, .html, or a folder for both.")
    paths = [out] if out.suffix else [out / "compare.png", out / "compare.html"]
    for path in paths:
        with replacing(path) as temporary:
            if path.suffix == ".png":
                depth_figure(comparison).savefig(temporary, format="png", dpi=300)
            else:
                temporary.write_text(render_comparison(comparison), encoding="utf-8")
    return paths

"""report.html of a selection, from a scores folder and a subset: one page, offline, whose charts need no script."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vfl.data import read
from vfl.errors import InputError
from vfl.io.atomic import replacing
from vfl.io.config import validated
from vfl.io.disk import explained
from vfl.report.bars import Histogram
from vfl.report.charts import DARK, GREY, PALE, WARNING, Ink, inks
from vfl.report.page import environment, flat
from vfl.report.sheet import Sheet
from vfl.select.choose.agreement import Agreement, agreements
from vfl.select.choose.classes import create_view
from vfl.select.choose.counts import counts_of
from vfl.select.choose.filtering import ChoiceConfig, choose
from vfl.select.report.cards import Card, CardGroup, card_groups, cards
from vfl.select.report.histograms import histogram
from vfl.select.report.keeps import Again, chosen_again, kept, stages
from vfl.select.shards.data_files import changes
from vfl.select.shards.same_scores import check_subset
from vfl.select.shards.score_folder import MEMORY, NOT_FUNCTIONS, ScoreFolder, database, open_scores, text
from vfl.select.subset.result import Subset
from vfl.select.subset.write import READING, TABLE

TEMPLATES = Path(__file__).resolve().parent
MOST_ERRORS = 50
MOST_SOURCES = 40
NEXT, WRONG = "next in line: not chosen, and first with a larger budget", "probably wrong answers: taken last"
GREYS = {"none": GREY, "blind": DARK, "text": PALE, "unsolved": WARNING}


@dataclass(frozen=True)
class CountRow:
    """A class or source: rows in all and chosen, their shares in per cent, and the share that is kept."""

    name: str
    ink: Ink | None
    rows: int
    share: float
    unsolved: int
    chosen: int
    chosen_share: float
    kept: float
    tokens_share: float
    chosen_tokens_share: float


def write_selection_report(
    scores: str | Path,
    out: str | Path,
    *,
    subset: str | Path | None = None,
    data: Any = None,
    images: Path | None = None,
    memory: str = MEMORY,
) -> Path:
    """Write the page and return its path.

    Args:
        scores: a folder of scores.
        subset: a folder that `vfl select filter` wrote from them; without one, the default policy's 20 % is compared
            with the baselines, and nothing is said of a subset.
        data: the data that was scored; default: where it was then. Cards have no text where it is not there.
        images: folder of the images that rows name.

    Raises:
        InputError: there are no scores, or the subset is none of theirs.
    """
    folder = open_scores(scores)
    manifest = Subset.load(subset).manifest if subset is not None else {}
    check_subset(folder.manifest, manifest, folder.path)
    settings = {
        name: value for name, value in manifest.get("settings", {}).items() if name in ChoiceConfig.model_fields
    }
    config = validated(ChoiceConfig, {"budget": "20%", **settings, "memory": memory}, source=str(subset))
    path = Path(out)
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file, such as {path / 'report.html'}.")
    with (
        explained(path, full="Nothing was written there: make room, or give another --out."),
        database(memory) as connection,
        replacing(path) as temporary,
    ):
        again = None
        if subset is None:
            notes = _choose_default(connection, folder, config)
        else:
            notes = list(manifest.get("notes", []))
            again = chosen_again(connection, folder, config)
            _take_subset(connection, folder, config, Path(subset) / TABLE)
        more = {NEXT: again.next_in_line, WRONG: again.suspects} if again else {}
        groups = card_groups(
            connection,
            folder.functions,
            subset=subset is not None,
            more={title: rows for title, rows in more.items() if rows},
        )
        drawn, unread = _cards(folder, manifest, groups, data, images)
        temporary.write_text(
            _render(connection, folder, config, manifest, groups, drawn, notes + unread, again), encoding="utf-8"
        )
    return path


def _choose_default(connection: Any, folder: ScoreFolder, config: ChoiceConfig) -> list[str]:
    """Choose what the baselines are compared with, where no subset was given; what a person should know."""
    try:
        return choose(connection, folder, config).notes
    except InputError as error:  # nothing to choose from is no reason for no report
        create_view(connection, folder, config.classes)
        connection.execute("CREATE OR REPLACE TABLE chosen (position BIGINT)")
        return [f"Policies are not compared: {error}"]


def _take_subset(connection: Any, folder: ScoreFolder, config: ChoiceConfig, table: Path) -> None:
    create_view(connection, folder, config.classes)
    connection.execute(f"CREATE OR REPLACE TABLE chosen AS SELECT position, uid FROM read_parquet({text(str(table))})")
    (lost,) = connection.execute("SELECT count(*) FROM chosen ANTI JOIN classed USING (position, uid)").fetchone()
    if lost:
        raise InputError(f"{table} holds {lost:,} rows that are not in {folder.path}: the subset is of other scores.")


def _cards(
    folder: ScoreFolder, manifest: Mapping[str, Any], groups: list[CardGroup], data: Any, images: Path | None
) -> tuple[dict[str, Card], list[str]]:
    """The cards, and why there are none where the data can't be read."""
    scored = folder.manifest.get("settings", {})
    reading = {name: value for name in READING if (value := (manifest.get("reading") or scored).get(name)) is not None}
    source = data if data is not None else manifest.get("data") or scored.get("data")
    if images is not None:
        reading["images"] = images
    if source is None:
        return {}, ["The samples' texts and images are not shown: the scores don't tell where the data is."]
    try:
        differing = changes(folder.manifest, source, reading.get("split"))
    except InputError as error:
        return {}, [f"The samples' texts and images are not shown: {error}"]
    if differing:  # or cards would show one row's text beside another's scores
        raise InputError(
            f"The data is not what was scored: {'; '.join(differing)}. Give the data that was scored (--data), or score"
            " this data anew."
        )
    try:
        return cards(groups, read(source, **reading)), []
    except InputError as error:
        return {}, [f"The samples' texts and images are not shown: {error}"]


def _render(
    connection: Any,
    folder: ScoreFolder,
    config: ChoiceConfig,
    manifest: Mapping[str, Any],
    groups: list[CardGroup],
    drawn: Mapping[str, Card],
    notes: list[str],
    again: Again | None,
) -> str:
    chosen = bool(manifest)
    ink = inks(folder.functions) | {name: Ink(colour, "") for name, colour in GREYS.items()}
    counts = counts_of(connection)
    classes = _count_rows(counts["class"], ink)
    classes.sort(key=lambda row: (*folder.functions, *NOT_FUNCTIONS).index(row.name))
    sources = _count_rows(counts["source"], {})[:MOST_SOURCES]
    drops = [
        (
            title,
            [
                spread
                for name in folder.functions
                if (spread := histogram(connection, prefix + name, name, ink[name], subset=chosen))
            ],
        )
        for prefix, title in (("logprob_drop_", "Drop in log-probability"), ("drop_", "Drop in token accuracy"))
    ]
    others: list[Histogram] = [
        spread
        for name, title in (
            ("margin", "Margin of the class"),
            ("no_image_logprob_drop", "No-image gap"),
            ("loss", "Loss"),
            ("answer_tokens", "Answer tokens"),
        )
        if (spread := histogram(connection, name, title, Ink(GREY, ""), subset=chosen))
    ]
    errors, reasons = _errors(connection, folder)
    (passes, rows) = connection.execute(
        "SELECT coalesce(sum((full_passes > 0)::INT), 0), count(*) FROM classed"
    ).fetchone()
    kept_rows = kept(connection)
    agreed: list[Agreement] = agreements(connection, folder, config)  # last: it chooses other rows
    model = folder.manifest.get("model") or {}
    return (
        environment(TEMPLATES)
        .get_template("selection.html.jinja")
        .render(
            title=f"Selection with {model.get('id', 'a model')}" if isinstance(model, dict) else "Selection",
            manifest=manifest,
            chosen=chosen,
            rows=rows,
            classes=classes,
            class_sheet=_sheet("classes", classes),
            source_sheet=_sheet("sources", sources),
            kept=kept_rows,
            openings=[(row.name, kept_rows.openings[row.name]) for row in classes if row.name in kept_rows.openings],
            stages=stages(folder, manifest, again),
            again=again,
            sources=sources,
            more_sources=max(len(counts["source"]) - MOST_SOURCES, 0),
            drops=drops,
            others=others,
            groups=groups,
            cards=drawn,
            ink=ink,
            agreements=agreed,
            errors=errors,
            reasons=reasons,
            more_errors=sum(count for _, count in reasons) - len(errors),
            full_passes=int(passes),
            notes=notes,
            policy=config.policy,
            settings=flat(config.model_dump(mode="json")),
            provenance=_provenance(folder, manifest),
        )
    )


def _count_rows(counts: Mapping[str, Mapping[str, int]], ink: Mapping[str, Ink]) -> list[CountRow]:
    def total(name: str) -> int:
        return max(sum(count[name] for count in counts.values()), 1)

    sums = {name: total(name) for name in ("rows", "tokens", "chosen_rows", "chosen_tokens")}
    return [
        CountRow(
            name=name,
            ink=ink.get(name),
            rows=count["rows"],
            share=100 * count["rows"] / sums["rows"],
            unsolved=count["unsolved"],
            chosen=count["chosen_rows"],
            chosen_share=100 * count["chosen_rows"] / sums["chosen_rows"],
            kept=100 * count["chosen_rows"] / max(count["rows"], 1),
            tokens_share=100 * count["tokens"] / sums["tokens"],
            chosen_tokens_share=100 * count["chosen_tokens"] / sums["chosen_tokens"],
        )
        for name, count in counts.items()
    ]


def _sheet(title: str, rows: Sequence[CountRow]) -> Sheet:
    headings = ["name", "rows", "rows (%)", "chosen rows", "chosen rows (%)"]
    return Sheet(title, headings, [[row.name, row.rows, row.share, row.chosen, row.chosen_share] for row in rows])


def _errors(connection: Any, folder: ScoreFolder) -> tuple[list[tuple[str, str, str]], list[tuple[str, int]]]:
    """The first rows that couldn't be scored, and how many there are of each kind of reason."""
    if folder.errors is None:
        return [], []
    table = f"read_parquet({text(str(folder.errors))})"
    rows = connection.execute(
        f'SELECT uid, "where", reason FROM {table} ORDER BY "where", uid LIMIT {MOST_ERRORS}'
    ).fetchall()
    # names, numbers and paths differ from row to row; what is left is the kind
    kind = "trim(regexp_replace(regexp_replace(reason, '''[^'']*''|\"[^\"]*\"|/\\S+', '…', 'g'), '[0-9]+', 'N', 'g'))"
    kinds = connection.execute(
        f"SELECT {kind} AS kind, count(*) AS n FROM {table} GROUP BY kind ORDER BY n DESC, kind LIMIT 20"
    )
    return rows, [(reason, int(count)) for reason, count in kinds.fetchall()]


def _provenance(folder: ScoreFolder, manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    kept = {key: folder.manifest.get(key) for key in ("model", "map", "functions", "sources", "ablation", "versions")}
    shown = {key: value for key, value in kept.items() if value}
    return flat({"scores": shown} | ({"subset": {"versions": manifest["versions"]}} if "versions" in manifest else {}))

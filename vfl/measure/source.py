"""What is measured on: generated probes, a probe suite, or the questions and answers of a data set."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Literal

from vfl.data import BadRow, Sample, read
from vfl.errors import InputError
from vfl.evaluate.sources import suite_of
from vfl.loading.beds import probe_style
from vfl.loading.load import resolve
from vfl.measure.config import MeasureConfig
from vfl.measure.question_pairs import AskedPair, question
from vfl.measure.row_objects import NONE
from vfl.metrics.result import by_function
from vfl.models.medium import Modality
from vfl.probes.pair import PROBES_FILE, Pair
from vfl.probes.style import STYLES

GENERATED = 12  # pairs a function: all metrics of the embedded model in a minute or two on a laptop
IMAGES = "images"

Kind = Literal["probes", "questions"]


@dataclass(frozen=True)
class Source:
    """Pairs to measure on, why rows were left out, and how boxes were read."""

    kind: Kind
    name: str
    pairs: list[Pair]
    left_out: list[str]
    notes: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, int]:
        """Pairs of each function."""
        return dict(Counter(pair.function for pair in self.pairs))

    def sha256(self) -> str:
        """Hash over the pairs in their order and the bytes of their images; where the files lie does not matter."""
        digest = sha256(self.kind.encode())
        images: dict[Path, bytes] = {}  # of one image, several questions may be asked
        for pair in self.pairs:
            digest.update(sha256(pair.line().encode()).digest())
            for which in pair.images:
                path = pair.path(which)
                if path not in images:
                    images[path] = sha256(path.read_bytes()).digest()
                digest.update(images[path])
        return digest.hexdigest()


def source_of(config: MeasureConfig, medium: Modality = "image") -> Source:
    """The pairs that a configuration names; generated ones, and images that rows hold, are written below `out`.

    Args:
        config: what it says of data.
        medium: what the model's span holds: rows of images, or of sounds.

    Raises:
        InputError: for data that can't be read, functions that it lacks, or settings that say nothing about it.
    """
    data = config.data or probe_style(resolve(config.model)[0])
    suite = data in STYLES or (Path(data) / PROBES_FILE).is_file()
    _refuse_idle(config, data, suite)
    if not suite:
        return _questions(config, data, medium)
    pairs = suite_of(
        data,
        config.out / "probes",
        functions=config.functions,
        pairs=config.pairs or GENERATED,
        seed=config.seed,
        size=config.size,
    )
    if data not in STYLES:
        pairs = _first(pairs, config.pairs)
    return Source("probes", data, pairs, [])


def _questions(config: MeasureConfig, data: str, medium: Modality) -> Source:
    path = Path(data)
    if not path.exists():
        raise InputError(
            f"There is no data at {data}. Give a file or folder of questions and answers, the folder of a probe suite, "
            f"or one of {', '.join(STYLES)}."
        )
    pairs: list[AskedPair] = []
    left_out: list[str] = []
    taken: Counter[str] = Counter()
    rows = read(
        path,
        images=config.images,
        format=config.format,
        image_column=config.image_column,
        keep_rows=True,
        medium=medium,
    )
    for row in rows:
        try:
            asked = _asked(row, config, path.stem, medium)
        except InputError as error:
            if config.on_bad_row == "error":
                raise InputError(f"{error} (on_bad_row: skip, or --on-bad-row skip, leaves such rows out.)") from error
            left_out.append(str(error))
            continue
        if config.functions is not None and asked.function not in config.functions:
            continue
        if config.pairs is None or taken[asked.function] < config.pairs:
            taken[asked.function] += 1
            pairs.append(asked)
    if missing := [name for name in config.functions or () if name not in taken]:
        raise InputError(f"{data} has no rows of {', '.join(missing)}; groups are the values of --column.")
    if not pairs:
        raise InputError(f"{data} has no row that can be asked ({len(left_out)} left out).")
    read_as = Counter(pair.boxes_read_as for pair in pairs if pair.boxes_read_as)
    if config.box_column not in (None, NONE) and not read_as:
        raise InputError(f"box_column names {config.box_column!r}, where no row of {data} that is asked has a box.")
    if "label_column" in config.model_fields_set and not any(pair.label for pair in pairs):
        raise InputError(
            f"label_column names {config.label_column!r}, where no row of {data} that is asked has a text."
        )
    notes = [f"Boxes of {count} rows were read from {how}." for how, count in read_as.items()]
    return Source("questions", data, list(pairs), left_out, notes)


def _asked(row: Sample | BadRow, config: MeasureConfig, name: str, medium: Modality) -> AskedPair:
    if isinstance(row, BadRow):
        raise InputError(f"{row.where}: {row.reason}")
    return question(
        row,
        config.out / IMAGES,
        columns=config.object_columns,
        medium=medium,
        name=name,
        column=config.column,
        match=config.match,
        choices=config.choices,
    )


def _first(pairs: Sequence[Pair], most: int | None) -> list[Pair]:
    """The first so many of each function."""
    rows = by_function([pair.function for pair in pairs])
    kept = {row for own in rows.values() for row in own[:most]}
    return [pair for row, pair in enumerate(pairs) if row in kept]


def _refuse_idle(config: MeasureConfig, data: str, suite: bool) -> None:
    """Settings that say nothing about this kind of data are a mistake that would go unnoticed."""
    of_rows = (
        "images",
        "format",
        "column",
        "match",
        "choices",
        "on_bad_row",
        "box_column",
        "box_format",
        "label_column",
    )
    of_generated = ("size", "seed")
    idle: tuple[str, ...] = of_rows if suite else of_generated
    if suite and data not in STYLES:
        idle += of_generated
    what = "questions and answers" if not suite else "generated probes" if data in STYLES else "a probe suite"
    if idle_named := [name for name in idle if name in config.model_fields_set]:
        raise InputError(
            f"{', '.join(idle_named)} was given, but {data} is {what}, where that says nothing. Leave it out."
        )

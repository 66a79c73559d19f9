"""From data files to the training set: every row read, opened and encoded once before the first step.

What can't be used is known by then, with its row: nothing fails halfway through a run. What was found lies in a cache,
so that a resumed run, other runs on the same data and the other ranks don't do it again.
"""

import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from vfl.data import BadRow
from vfl.data.token_weights import TOKEN_WEIGHTS
from vfl.errors import InputError
from vfl.io.atomic import replacing
from vfl.io.hub import is_address
from vfl.models.conversation import ConversationEncoder
from vfl.train.data_config import DataConfig
from vfl.train.preflight.facts import DataFacts, SetFacts
from vfl.train.rows.mixture import rows_of_epoch
from vfl.train.rows.prepared import Prepared, joined
from vfl.train.rows.set_on_disk import SetOnDisk, set_on_disk

logger = logging.getLogger(__name__)

SHOWN = 5  # bad rows in a message; all are in errors.jsonl


def check_paths(config: DataConfig) -> None:
    """Say what is not there before a large model is read.

    Raises:
        InputError: names the key and the path.
    """
    for source in config.sets:
        for path in source.path:
            if not (is_address(path) or path.exists()):
                raise InputError(
                    f"There is no data at {path} (data.train). Check the path; it is taken from {Path.cwd()}."
                )
        if source.images is not None and not source.images.is_dir():
            raise InputError(
                f"There is no folder {source.images} (data.images, or images of a set). Give the folder that the "
                "images lie in."
            )
    if config.token_weights is not None and not config.token_weights.is_file():
        raise InputError(
            f"There is no file {config.token_weights} (data.token_weights); `vfl select filter --token-weights` writes"
            f" {TOKEN_WEIGHTS} into the subset."
        )


def prepare(
    config: DataConfig,
    encoder: ConversationEncoder,
    *,
    method: str,
    seed: int = 0,
    errors: Path | None = None,
    progress: bool = True,
    verify: bool = True,
) -> Prepared:
    """Read, check and measure all rows of all sets, and choose those of an epoch.

    Args:
        config: the recipe's `data`.
        encoder: of the model; its tokens are the lengths.
        method: of training; rows of preference pairs are for "dpo" alone.
        seed: draws rows of weighed sets.
        errors: file for the rows that are left out; None for none.
        progress: show bars.
        verify: look whether images have changed since the rows were checked.

    Raises:
        InputError: for unusable rows unless the recipe skips them, and when none of a set is left.
    """
    sets = [
        set_on_disk(source, config, encoder, method=method, progress=progress, verify=verify) for source in config.sets
    ]
    for each in sets:  # no row of this data would do
        if (number := each.checked.other_tokens) is not None:
            row = each.rows[number]
            raise InputError(f"{row['where']} ({row['uid']}): {each.checked.refused[number]}.")
    total = sum(each.checked.read for each in sets)
    bad = [_bad_rows(each) for each in sets]
    long = [_long_rows(each, config.max_length) for each in sets]
    all_bad, all_long = ([row for rows in several for row in rows] for several in (bad, long))
    if errors is not None:
        _record(errors, [*all_bad, *all_long])
    _refuse("can't be used", all_bad, total, config.on_bad_row, "on_bad_row", errors)
    _refuse("are too long", all_long, total, config.on_long_row, "on_long_row", errors)
    parts = [_usable(each, config, len(bad[n]), len(long[n]), errors) for n, each in enumerate(sets)]
    return _mixed(config, parts, seed)


def _mixed(config: DataConfig, parts: list[Prepared], seed: int) -> Prepared:
    """The rows of an epoch."""
    if len(parts) == 1:
        return parts[0]
    weights = [source.weight for source in config.train if source.weight is not None]
    chosen = rows_of_epoch([len(part.rows) for part in parts], weights or None, seed, config.stopping_strategy)
    facts = [part.facts for part in parts]
    weighed = None
    if config.token_weights is not None:
        weighed = _share([row for part in parts for row in part.rows["weights"]])
    together = DataFacts(
        rows=sum(each.rows for each in facts),
        used=sum(each.used for each in facts),
        bad=sum(each.bad for each in facts),
        too_long=sum(each.too_long for each in facts),
        text_only=sum(each.text_only for each in facts),
        multi_turn=sum(each.multi_turn for each in facts),
        multi_image=sum(each.multi_image for each in facts),
        system_prompt=config.system_prompt,
        system_added=sum(each.system_added for each in facts),
        system_replaced=sum(each.system_replaced for each in facts),
        weighed=weighed,
        desirable=_desirable(parts),
        matches=dict(sum((Counter(each.matches) for each in facts), Counter())),
        files={name: digest for each in facts for name, digest in each.files.items()},
        sets=tuple(
            SetFacts(name=", ".join(part.facts.files), used=len(part.rows), drawn=len(rows))
            for part, rows in zip(parts, chosen, strict=True)
        ),
    )
    return joined(list(zip(parts, chosen, strict=True)), together)


def _desirable(parts: list[Prepared]) -> int | None:
    counts = [part.facts.desirable for part in parts]
    return None if None in counts else sum(count for count in counts if count is not None)


def _usable(each: SetOnDisk, config: DataConfig, bad: int, too_long: int, errors: Path | None) -> Prepared:
    """The rows of a set that can be trained on, with how many can't be."""
    checked, limit = each.checked, config.max_length
    lengths = [text + image for text, image in zip(checked.text, checked.image, strict=True)]
    kept = [n for n, length in enumerate(lengths) if n not in checked.refused and not (limit and length > limit)]
    if not kept:
        where = "" if errors is None else f" The reasons are in {errors}."
        raise InputError(f"No row of {', '.join(each.files)} can be trained on.{where}")
    rows = each.rows.select(kept)
    facts = DataFacts(
        rows=checked.read,
        used=len(kept),
        bad=bad,
        too_long=too_long,
        text_only=checked.text_only,
        multi_turn=checked.multi_turn,
        multi_image=checked.multi_image,
        system_prompt=config.system_prompt,
        system_added=checked.system_added,
        system_replaced=checked.system_replaced,
        weighed=None if config.token_weights is None else _share(rows["weights"]),
        desirable=sum(rows["label"]) if rows["label"][0] is not None else None,
        matches=dict(Counter(kind for kind in rows["match"] if kind is not None)),
        files=each.files,
    )
    text, image = [checked.text[n] for n in kept], [checked.image[n] for n in kept]
    return Prepared(rows.add_column("length", [lengths[n] for n in kept]), text, image, facts)


def _bad_rows(each: SetOnDisk) -> list[BadRow]:
    refused = [BadRow(each.rows[n]["where"], each.rows[n]["uid"], reason) for n, reason in each.checked.refused.items()]
    return [BadRow(*row) for row in each.checked.unread] + refused


def _long_rows(each: SetOnDisk, limit: int | None) -> list[BadRow]:
    if limit is None:
        return []
    lengths = [text + image for text, image in zip(each.checked.text, each.checked.image, strict=True)]
    return [
        BadRow(each.rows[n]["where"], each.rows[n]["uid"], f"{length} tokens, data.max_length is {limit}")
        for n, length in enumerate(lengths)
        if length > limit
    ]


def _share(weights: Sequence[bytes]) -> float:
    """Of all tokens, those with weight 1."""
    return sum(map(sum, weights)) / sum(map(len, weights))


def _refuse(what: str, rows: list[BadRow], total: int, policy: str, key: str, errors: Path | None) -> None:
    if not rows:
        return
    some = "; ".join(f"{row.where} ({row.uid}): {row.reason}" for row in rows[:SHOWN])
    more = f"; and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    if policy == "error":
        where = "" if errors is None else f" All are in {errors}."
        raise InputError(
            f"{len(rows)} of {total} rows {what}: {some}{more}.{where} Mend them, or leave them out with "
            f"data.{key}=skip."
        )
    logger.warning("%d of %d rows %s and are left out: %s%s", len(rows), total, what, some, more)


def _record(path: Path, rows: Sequence[BadRow]) -> None:
    if not rows:
        path.unlink(missing_ok=True)
        return
    with replacing(path) as temporary:
        facts = [{"where": row.where, "uid": row.uid, "reason": row.reason} for row in rows]
        lines = [json.dumps(bad, ensure_ascii=False) + "\n" for bad in facts]
        temporary.write_text("".join(lines), encoding="utf-8")

"""README.md of an adapter: what was trained on what, what came of it, how to load and merge it."""

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vfl.io.atomic import replacing
from vfl.io.layers import layer_list
from vfl.io.sizes import size_text
from vfl.report.page import flat
from vfl.train.preflight.facts import Preflight
from vfl.train.preflight.tables import arm_sentence, data_text, reward_text, sampling_text, system_text
from vfl.train.report.before_after import Change, Rate, gained, points

TEMPLATES = Path(__file__).resolve().parent
MARKS = re.compile(r"([\\`*_{}\[\]<>#|~&$!])")


def write_card(
    folder: Path, flight: Preflight, lora: Mapping[str, Any], changes: Sequence[Change] = (), command: str = ""
) -> Path:
    """Write README.md into the adapter's folder, whole or not at all, in place of PEFT's.

    Args:
        lora: LoRA options as they were used (module names may be left out: adapter_config.json has them).
        changes: accuracy before and after.
        command: how the run was started.
    """
    path = folder / "README.md"
    with replacing(path) as temporary:
        temporary.write_text(card(flight, lora, changes, command).content, encoding="utf-8")
    return path


def card(flight: Preflight, lora: Mapping[str, Any], changes: Sequence[Change] = (), command: str = "") -> ModelCard:
    """The card with the hub's metadata; a base model or data set that is not on the hub stays out of that."""
    data = ModelCardData(
        model_name=f"LoRA of {flight.model.id if flight.model.on_hub else Path(flight.model.id).name}",
        eval_results=[_result(change, change.after) for change in changes if change.after is not None] or None,
        base_model=flight.model.id if flight.model.on_hub else None,
        datasets=list(flight.data.hub) or None,
        library_name="peft",
        pipeline_tag="image-text-to-text",
        tags=["lora", "peft", "trl", "vfl", flight.method],
    )
    body = (
        environment()
        .get_template("card.md.jinja")
        .render(flight=flight, base=base_code(flight), lora=flat(lora), changes=changes, command=command)
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}")


def _result(change: Change, after: Rate) -> EvalResult:
    """The accuracy of a group of questions after training, as the hub lists results."""
    return EvalResult(
        task_type="image-text-to-text",
        dataset_type=change.group,
        dataset_name=f"{change.group} ({change.n} questions)",
        metric_type="accuracy",
        metric_value=after.value,
    )


def base_code(flight: Preflight) -> str:
    """A Python expression for the base model's place."""
    return f'str(bed_folders()["{flight.model.id}"])' if flight.model.test_bed else literal(flight.model.id)


@cache
def environment() -> Environment:
    """Markdown is not HTML: the template escapes by `plain` and `code`."""
    env = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    env.filters.update(
        plain=plain,
        code=code,
        literal=literal,
        arm=arm_sentence,
        layers=layer_list,
        size=size_text,
        points=points,
        gained=gained,
        data=data_text,
        sampling=sampling_text,
        system=system_text,
        reward=reward_text,
    )
    return env


def literal(text: str) -> str:
    """A Python string in double quotes (a JSON string is one)."""
    return json.dumps(text)


def plain(text: object) -> str:
    """Any text as one line of Markdown without markup."""
    return MARKS.sub(r"\\\1", " ".join(str(text).split()))


def code(text: object) -> str:
    """Any text as inline code, in a table too."""
    line = " ".join(str(text).split()).replace("|", "\\|")
    longest = max(map(len, re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    space = " " if line.startswith("`") or line.endswith("`") or not line else ""
    return f"{fence}{space}{line}{space}{fence}"

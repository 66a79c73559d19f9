"""A system prompt of the user's in place of a conversation's own, where the chat template has a place for it."""

from collections.abc import Sequence
from typing import Any

from vfl.errors import InputError
from vfl.models.encode import Message

_PROBE, _QUESTION = "a system prompt", "a question"


def with_system(messages: Sequence[Message], prompt: str) -> tuple[dict[str, Any], ...]:
    """The turns under a system prompt, which takes the place of their own system turn or comes before them."""
    own = has_system(messages)
    system = {"role": "system", "content": [{"type": "text", "text": prompt}]}
    return system, *(dict(message) for message in messages[own:])


def has_system(messages: Sequence[Message]) -> bool:
    """Whether the first turn is the system's."""
    return bool(messages) and messages[0]["role"] == "system"


def check_system(processor: Any, template: str | None = None) -> None:
    """Raise InputError unless the chat template writes a system turn, and as no user's.

    Args:
        processor: whose template is asked.
        template: replaces it.
    """
    template = template or processor.chat_template
    if template is None:
        raise InputError("system_prompt needs a chat template, and this model has none: give one with chat_template.")
    user = _turn("user", _QUESTION)
    try:
        written = _rendered(processor, template, [_turn("system", _PROBE), user])
        as_user = _rendered(processor, template, [_turn("user", _PROBE), user])
    # What a template raises (roles that it refuses, errors of its own) is Jinja's affair.
    except Exception as error:
        lines = str(error).strip().splitlines()
        raise InputError(
            f"The chat template has no system role ({lines[-1] if lines else type(error).__name__}): leave "
            "system_prompt out, put it into the questions, or give a template with chat_template."
        ) from error
    if _PROBE not in written or written == as_user:
        what = "leaves a system turn out" if _PROBE not in written else "writes a system turn as it writes a user's"
        raise InputError(
            f"The chat template has no system role: it {what}. Leave system_prompt out, put it into the questions, or "
            "give a template with chat_template."
        )


def _turn(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def _rendered(processor: Any, template: str, messages: list[dict[str, Any]]) -> str:
    text: str = processor.apply_chat_template(
        messages, chat_template=template, tokenize=False, add_generation_prompt=True
    )
    return text

"""The kinds of rows: which columns hold the conversation, and how it is taken from them.

Each function takes a row to a Conversation whose turns may still carry their images; one function per kind.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vfl.data.sample import Message
from vfl.data.turns import read_turns, text_turn
from vfl.errors import InputError

Kind = Literal["messages", "prompt_completion", "preference", "llava", "sharegpt"]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Conversation:
    """`prompt` are the turns before the answer where a row separates them, `rejected` the other answer's turns."""

    turns: list[Message]
    prompt: int = 0
    rejected: list[Message] | None = None


def messages(row: Row) -> Conversation:
    """TRL: {"messages": [{"role", "content"}]}"""
    return Conversation(read_turns(row.get("messages"), "messages"))


def prompt_completion(row: Row) -> Conversation:
    """TRL: {"prompt": text or turns, "completion": text or turns}"""
    prompt = _side(row, "prompt", "user")
    return Conversation([*prompt, *_side(row, "completion", "assistant")], prompt=len(prompt))


def preference(row: Row) -> Conversation:
    """TRL: {"prompt", "chosen", "rejected"}, text or turns each.

    Where chosen and rejected are whole conversations, the turns they begin with in common are the prompt.
    """
    chosen, rejected = _side(row, "chosen", "assistant"), _side(row, "rejected", "assistant")
    if chosen[0]["role"] == "assistant" and rejected[0]["role"] == "assistant":
        prompt = _side(row, "prompt", "user")
        return Conversation([*prompt, *chosen], len(prompt), [*prompt, *rejected])
    shared = next((i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), None)
    if shared is None:
        raise InputError("chosen and rejected do not differ; expected two answers to one prompt")
    if shared == 0 or chosen[shared]["role"] != "assistant":
        raise InputError("chosen and rejected share no prompt; expected the same turns before the two answers")
    return Conversation(chosen, shared, rejected)


def llava(row: Row) -> Conversation:
    """LLaVA: {"id", "image", "conversations": [{"from": "human"|"gpt", "value"}]}"""
    return Conversation(_with_system(row, "conversations"))


def sharegpt(row: Row) -> Conversation:
    """ShareGPT: `conversations` or `messages`, `images`, and at times the system's turn in a column of its own."""
    return Conversation(_with_system(row, "messages" if row.get("conversations") is None else "conversations"))


KINDS: dict[Kind, tuple[tuple[str, ...], Callable[[Row], Conversation]]] = {
    "messages": (("messages",), messages),
    "prompt_completion": (("prompt", "completion"), prompt_completion),
    "preference": (("prompt", "chosen", "rejected"), preference),
    "llava": (("conversations", "system"), llava),
    "sharegpt": (("conversations", "messages", "system"), sharegpt),
}
"""For each kind: the columns it reads besides the images', and how."""


def _with_system(row: Row, name: str) -> list[Message]:
    turns = read_turns(row.get(name), name)
    if row.get("system") and turns[0]["role"] != "system":
        return [text_turn("system", row["system"], "system"), *turns]
    return turns


def _side(row: Row, name: str, role: Literal["user", "assistant"]) -> list[Message]:
    value = row.get(name)
    if isinstance(value, str):
        return [text_turn(role, value, name)]
    return read_turns(value, name)

"""The kinds of rows: which columns hold the conversation, and how it is taken from them.

Each function takes a row to a Conversation whose turns may still carry their images; one function per kind.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vfl.data.sample import Message
from vfl.data.turns import read_turns, rows_of_columns, text_turn
from vfl.errors import InputError

Kind = Literal[
    "messages",
    "prompt_completion",
    "preference",
    "llava",
    "sharegpt",
    "alpaca",
    "query_response",
    "question_answer",
    "texts",
    "verl",
]
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
    """A prompt with a chosen and a rejected answer, text or turns each.

    The prompt stands in `prompt` (TRL), `instruction` and `input` (LLaMA-Factory), `question`, `query`, or is the turns
    of `conversations` or `messages`. Where chosen and rejected are whole conversations, the turns they begin with in
    common are the prompt. ms-swift: the last answer of `messages`, or `response`, stands against `rejected_response`,
    and `messages` against `rejected_messages`.
    """
    if row.get("rejected_response") is not None:
        return _rejected_response(row)
    whole = row.get("rejected_messages") is not None
    names = ("messages", "rejected_messages") if whole else ("chosen", "rejected")
    chosen, rejected = (_side(row, name, "assistant") for name in names)
    if chosen[0]["role"] == "assistant" and rejected[0]["role"] == "assistant":
        prompt = _prompt(row)
        return Conversation([*prompt, *chosen], len(prompt), [*prompt, *rejected])
    shared = next((i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), None)
    if shared is None:
        raise InputError("chosen and rejected do not differ; expected two answers to one prompt")
    if shared == 0 or chosen[shared]["role"] != "assistant":
        raise InputError("chosen and rejected share no prompt; expected the same turns before the two answers")
    return Conversation(chosen, shared, rejected)


def _prompt(row: Row) -> list[Message]:
    for name in ("conversations", "messages"):
        if row.get("prompt") is None and row.get(name) is not None:
            return _with_system(row, name)
    name = next(
        (name for name in ("prompt", "instruction", "question", "query") if row.get(name) is not None), "prompt"
    )
    if isinstance(row.get(name), str):
        return _asked(row, name)
    return _side(row, name, "user")


def _rejected_response(row: Row) -> Conversation:
    if row.get("messages") is not None:
        turns = _with_system(row, "messages")
    else:
        turns = [*_asked(row, "query"), text_turn("assistant", row.get("response"), "response")]
    rejected = text_turn("assistant", row["rejected_response"], "rejected_response")
    return Conversation(turns, len(turns) - 1, [*turns[:-1], rejected])


def llava(row: Row) -> Conversation:
    """LLaVA: {"id", "image", "conversations": [{"from": "human"|"gpt", "value"}]}"""
    return Conversation(_with_system(row, "conversations"))


def sharegpt(row: Row) -> Conversation:
    """ShareGPT: `conversations` or `messages`, `images`, and at times the system's turn in a column of its own."""
    return Conversation(_with_system(row, "messages" if row.get("conversations") is None else "conversations"))


def alpaca(row: Row) -> Conversation:
    """Alpaca, LLaMA-Factory: {"instruction", "input", "output", "system", "history": [[question, answer], ...]}"""
    return _pair(row, "instruction", "output")


def query_response(row: Row) -> Conversation:
    """ms-swift: {"query", "response", "system", "history": [[question, answer], ...]}"""
    return _pair(row, "query", "response")


def question_answer(row: Row) -> Conversation:
    """Plain columns: {"question", "answer", "image"}"""
    return _pair(row, "question", "answer")


def texts(row: Row) -> Conversation:
    """The Cauldron: {"images", "texts": [{"user", "assistant", "source"}, ...]}"""
    pairs = rows_of_columns(row.get("texts"), "texts")
    if not all(isinstance(pair, dict) for pair in pairs) or not pairs:
        raise InputError("texts holds no objects; expected a list of objects with user and assistant")
    turns: list[Message] = []
    for number, pair in enumerate(pairs, start=1):
        for role in ("user", "assistant"):
            turns.append(text_turn(role, pair.get(role), f"texts, entry {number}, {role}"))
    return Conversation(turns)


def verl(row: Row) -> Conversation:
    """verl: {"prompt": turns, "reward_model": {"ground_truth": the right answer}, "data_source"}"""
    prompt = _side(row, "prompt", "user")
    reward = row.get("reward_model")
    if not isinstance(reward, Mapping):
        raise InputError("reward_model is no object; expected the right answer in its ground_truth")
    answer = text_turn("assistant", reward.get("ground_truth"), "reward_model's ground_truth")
    return Conversation([*prompt, answer], prompt=len(prompt))


KINDS: dict[Kind, tuple[tuple[str, ...], Callable[[Row], Conversation]]] = {
    "messages": (("messages",), messages),
    "prompt_completion": (("prompt", "completion"), prompt_completion),
    "preference": (
        (
            "prompt",
            "chosen",
            "rejected",
            "instruction",
            "input",
            "question",
            "query",
            "response",
            "rejected_response",
            "rejected_messages",
            "conversations",
            "messages",
            "system",
            "history",
        ),
        preference,
    ),
    "llava": (("conversations", "system"), llava),
    "sharegpt": (("conversations", "messages", "system"), sharegpt),
    "alpaca": (("instruction", "input", "output", "system", "history"), alpaca),
    "query_response": (("query", "response", "system", "history"), query_response),
    "question_answer": (("question", "answer", "system"), question_answer),
    "texts": (("texts",), texts),
    "verl": (("prompt", "reward_model"), verl),
}
"""For each kind: the columns it reads besides the images', and how."""


def kinds_of_row(row: Row) -> list[Kind]:
    """The kinds that a row can be, by the columns in which it has something."""
    has = {name for name, value in row.items() if value is not None}
    if {"chosen", "rejected"} <= has or {"messages", "rejected_messages"} <= has:
        return ["preference"]
    if has & {"messages", "query"} and "rejected_response" in has:
        return ["preference"]
    kinds: list[Kind] = []
    if {"prompt", "completion"} <= has:
        kinds.append("prompt_completion")
    if "conversations" in has:
        kinds.append("sharegpt" if "images" in row else "llava")
    if "messages" in has:
        kinds.append("sharegpt" if "system" in row else "messages")
    # data sets keep the columns they were made from: those count where there are no turns
    return kinds or [kind for kind, columns in _BY_COLUMNS.items() if columns <= has]


_BY_COLUMNS: dict[Kind, set[str]] = {
    "texts": {"texts"},
    "verl": {"prompt", "reward_model"},
    "alpaca": {"instruction", "output"},
    "query_response": {"query", "response"},
    "question_answer": {"question", "answer"},
}


def _with_system(row: Row, name: str) -> list[Message]:
    turns = read_turns(row.get(name), name)
    # LLaVA's data has conversations that begin with an answer; its trainer leaves that turn out
    if name == "conversations" and turns[0]["role"] == "assistant" and len(turns) > 1:
        turns = turns[1:]
    if row.get("system") and turns[0]["role"] != "system":
        return [text_turn("system", row["system"], "system"), *turns]
    return turns


def _pair(row: Row, question: str, answer: str) -> Conversation:
    return Conversation([*_asked(row, question), text_turn("assistant", row.get(answer), answer)])


def _asked(row: Row, name: str) -> list[Message]:
    """The turns up to a question: the column `system`, earlier pairs in `history`, the question with its `input`."""
    turns = [text_turn("system", row["system"], "system")] if row.get("system") else []
    for number, pair in enumerate(row.get("history") or (), start=1):
        if not isinstance(pair, list) or len(pair) != 2:
            raise InputError(f"history, entry {number}, is no pair; expected a list of [question, answer]")
        turns += [text_turn("user", pair[0], "history"), text_turn("assistant", pair[1], "history")]
    asked, more = row.get(name), row.get("input")
    if name == "instruction" and isinstance(more, str) and more:
        asked = f"{asked}\n{more}" if asked else more
    return [*turns, text_turn("user", asked, name)]


def _side(row: Row, name: str, role: Literal["user", "assistant"]) -> list[Message]:
    value = row.get(name)
    if isinstance(value, str):
        return [text_turn(role, value, name)]
    # one turn alone, and not a list of turns as columns
    if isinstance(value, dict) and any(isinstance(value.get(key), str) for key in ("role", "from")):
        value = [value]
    return read_turns(value, name)

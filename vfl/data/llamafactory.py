"""The entry of dataset_info.json that lets LLaMA-Factory read data as it is, where it can.

Its formats are described in its data/README.md: `sharegpt` (turns) and `alpaca` (prompt and response).
"""

from collections.abc import Mapping
from typing import Any

from vfl.data.conversation import IMAGE_COLUMNS
from vfl.data.imagefolder import is_blank
from vfl.data.kinds import Kind

ASKED = ("prompt", "instruction", "question", "query")
MESSAGE_TAGS = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}


def entry(kind: Kind, row: Mapping[str, Any], file_name: str) -> dict[str, Any] | None:
    """What dataset_info.json says of a file with rows like `row`; None where LLaMA-Factory cannot read them.

    It reads text turns with image marks, and neither turns that are lists of typed entries nor preferences as turns
    on both sides. Images go by name through its `media_dir`.
    """
    filled = [name for name in IMAGE_COLUMNS if not is_blank(row.get(name))]
    images = {"images": filled[0]} if filled else {}
    if kind in ("llava", "sharegpt", "messages"):
        name = "messages" if row.get("conversations") is None else "conversations"
        turns = row.get(name)
        if not isinstance(turns, list) or not all(_is_text(turn) for turn in turns):
            return None
        system = {"system": "system"} if isinstance(row.get("system"), str) else {}
        tags = {"tags": MESSAGE_TAGS | {"system_tag": "system"}} if "role" in turns[0] else {}
        columns = {"messages": name, **images, **system}
        return {"file_name": file_name, "formatting": "sharegpt", "columns": columns, **tags}
    if kind == "prompt_completion" and _texts(row, "prompt", "completion"):
        columns = {"prompt": "prompt", "response": "completion", **images}
        return {"file_name": file_name, "formatting": "alpaca", "columns": columns}
    pair = {"alpaca": ("instruction", "output"), "query_response": ("query", "response")}
    asked, answered = pair.get(kind, ("question", "answer"))
    if (kind in pair or kind == "question_answer") and _texts(row, asked, answered):
        more = {"query": "input"} if kind == "alpaca" and "input" in row else {}
        others = {name: name for name in ("system", "history") if row.get(name)}
        columns = {"prompt": asked, **more, "response": answered, **others, **images}
        return {"file_name": file_name, "formatting": "alpaca", "columns": columns}
    return _ranking(row, file_name, images) if kind == "preference" else None


def _ranking(row: Mapping[str, Any], file_name: str, images: dict[str, str]) -> dict[str, Any] | None:
    answers = {"chosen": "chosen", "rejected": "rejected"}
    asked = next((name for name in ASKED if row.get(name) is not None), None)
    if asked is not None and _texts(row, asked, *answers):
        more = {"query": "input"} if asked == "instruction" and "input" in row else {}
        others = {name: name for name in ("system", "history") if row.get(name)}
        columns = {"prompt": asked, **more, **answers, **others, **images}
        return {"file_name": file_name, "formatting": "alpaca", "ranking": True, "columns": columns}
    turns = row.get("conversations")
    if isinstance(turns, list) and all(_is_text(turn) for turn in (*turns, *map(row.get, answers))):
        columns = {"messages": "conversations", **answers, **images}
        return {"file_name": file_name, "formatting": "sharegpt", "ranking": True, "columns": columns}
    return None


def _is_text(turn: Any) -> bool:
    return isinstance(turn, dict) and any(isinstance(turn.get(key), str) for key in ("content", "value"))


def _texts(row: Mapping[str, Any], *names: str) -> bool:
    return all(isinstance(row.get(name), str) for name in names)

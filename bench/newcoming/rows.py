"""Rows in LLaVA's format from a folder of pairs: python bench/newcoming/rows.py PAIRS data.json"""

import json
import sys
from pathlib import Path

from vfl.probes.pair import Pair, read_suite


def row_of(pair: Pair) -> dict[str, object]:
    """The pair's question about its image, as a row to train on."""
    turns = [("human", f"<image>\n{pair.question}"), ("gpt", pair.answer)]
    conversations = [{"from": who, "value": text} for who, text in turns]
    return {"id": pair.id, "image": pair.image, "source": pair.function, "conversations": conversations}


if __name__ == "__main__":
    pairs, data = map(Path, sys.argv[1:])
    data.write_text(json.dumps([row_of(pair) for pair in read_suite(pairs)]), encoding="utf-8")

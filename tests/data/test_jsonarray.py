"""A JSON array read in pieces of any size gives what `json.loads` gives, and says where it is broken."""

import json
import random

import pytest

from vfl.data import jsonarray
from vfl.errors import InputError


def values(path):
    return [raw.row if raw.row is not None else raw.stored for raw in jsonarray.rows(path)]


def junk(rng, depth=0):
    """A random JSON value, with what could confuse a reader that looks for the ends of rows."""
    kind = rng.randrange(7 if depth < 4 else 5)
    if kind == 0:
        return rng.choice([None, True, False])
    if kind == 1:
        return rng.choice([0, -1, 12345678901234567890, 1.5, -2e300, 1e-7])
    if kind < 5:
        return "".join(rng.choice(['"', "\\", "[", "]", "{", "}", ",", " ", "\n", "é", "😀", "a"]) for _ in range(9))
    if kind == 5:
        return [junk(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {junk(rng, 9) if rng.random() < 0.1 else f"k{i}": junk(rng, depth + 1) for i in range(rng.randrange(4))}


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64, 2**18])
def test_any_array_in_pieces_of_any_size(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(jsonarray, "CHUNK", chunk)
    rng = random.Random(chunk)
    path = tmp_path / "data.json"
    for indent in (None, 1):
        for ascii_only in (True, False):
            for length in (0, 1, 2, 30):
                array = json.loads(json.dumps([junk(rng) for _ in range(length)]))
                path.write_text(json.dumps(array, indent=indent, ensure_ascii=ascii_only), encoding="utf-8")
                assert values(path) == array
                bom = "\ufeff \n" + path.read_text(encoding="utf-8") + "\n\n"
                path.write_text(bom, encoding="utf-8")
                assert values(path) == array


@pytest.mark.parametrize("chunk", [1, 5, 2**18])
@pytest.mark.parametrize(
    ("text", "row", "why"),
    [
        (b"", 1, "does not begin"),
        (b"7", 1, "does not begin"),
        (b'{"data": [{}], "more": 1}', 1, "no other keys"),
        (b'{"data": [{}]', 1, "expected }"),
        (b'{"a": 1}\n{"a": ', 2, "Expecting value"),
        (b"[", 1, "Expecting value"),
        (b"[{}", 1, "ends inside the array"),
        (b"[{},", 2, "Expecting value"),
        (b"[{},]", 2, "comma after the last row"),
        (b"[{} {}]", 1, "expected , or ]"),
        (b"[{}]]", 1, "something follows"),
        (b"[{}]\n{}", 1, "something follows"),
        (b"[{}, {'a': 1}]", 2, "Expecting property name"),
        (b'[{}, {"a": 1, }, {}]', 2, "property name|trailing comma"),
        (b'[{}, {"a": "cut', 2, "Unterminated string"),
        (b'[{}, {"a": "\xff"}]', None, "not UTF-8"),
        (b'[{}, {"a": "\xe2\x82', None, "UTF-8|Unterminated"),
        (b"[" + b"[" * 100_000, 1, "recursion"),
        (b"[" + b"9" * 5_000 + b"]", 1, "not usable JSON"),
        (b'[{"a": "tab\there"}]', 1, "Invalid control character"),
    ],
)
def test_broken_arrays_name_the_row(tmp_path, monkeypatch, chunk, text, row, why):
    monkeypatch.setattr(jsonarray, "CHUNK", chunk)
    path = tmp_path / "data.json"
    path.write_bytes(text)
    with pytest.raises(InputError) as caught:
        values(path)
    message = str(caught.value)
    assert str(path) in message
    assert row is None or f"at row {row}:" in message
    assert any(part in message for part in why.split("|")), message


def test_a_row_that_never_ends_is_not_read_to_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(jsonarray, "CHUNK", 64)
    monkeypatch.setattr(jsonarray, "MAX_ROW", 1_000)
    path = tmp_path / "data.json"
    path.write_text('[{"a": "' + "x" * 100_000)
    with pytest.raises(InputError, match="a row of more than 1000 characters"):
        values(path)

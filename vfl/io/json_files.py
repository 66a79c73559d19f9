"""Results as JSON: written whole or not at all, and read back with one line that says why a file is none.

A versioned file has its schema's number under `schema` at its top level.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from vfl.errors import InputError
from vfl.io.atomic import replacing

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Versioned:
    """A kind of versioned file.

    Attributes:
        file: its name in a folder, such as map.json.
        what: what it holds, as in "No function map at ...".
        schema: the number that is read.
        key: a key that every such file has beside `schema`.
        command: what writes it.
    """

    file: str
    what: str
    schema: int
    key: str
    command: str

    def path_of(self, path: str | Path) -> Path:
        """The file itself, from its path or its folder's."""
        path = Path(path)
        return path / self.file if path.is_dir() else path

    def read(self, kind: type[M], path: str | Path) -> M:
        """The file's content as a `kind`.

        Args:
            kind: pydantic model of the file, with `schema` among its keys.
            path: of the file, or of the folder that holds it.

        Raises:
            InputError: says in one line why there is none.
        """
        path = self.path_of(path)
        content = self._content(path)
        try:
            return kind.model_validate(content)
        except ValidationError as error:
            first, *more = error.errors(include_url=False)
            where = ".".join(map(str, first["loc"])) or self.what
            rest = f" (and {len(more)} more)" if more else ""
            raise InputError(f"{path} is no valid {self.what}: {where}: {first['msg']}{rest}.") from None

    def _content(self, path: Path) -> dict[str, Any]:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"No {self.what} at {path}. Write one with `{self.command} --out DIR`.") from None
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}.") from None
        except ValueError as error:  # covers JSONDecodeError and UnicodeDecodeError
            raise InputError(
                f"{path} is not JSON ({error}); expected the {self.file} that `{self.command}` writes."
            ) from None
        if not isinstance(content, dict) or self.key not in content or "schema" not in content:
            raise InputError(f"{path} is no {self.what}: it has no 'schema' and {self.key!r} at its top level.")
        if content["schema"] != self.schema:
            raise InputError(
                f"{path} has schema {content['schema']!r}, this version of vfl reads {self.schema}. Write it again "
                f"with this version of `{self.command}`, or install the version that wrote it."
            )
        return content


def write_json(path: Path, content: Any, *, indent: int | None = 2) -> None:
    """Write JSON, whole or not at all. NaN is not JSON and raises ValueError."""
    write_text(path, json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")

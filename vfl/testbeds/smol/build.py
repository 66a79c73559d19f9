"""Builds the model `smol` into the cache, for `vfl locate smol` and every other command:

    python -m vfl.testbeds.smol.build [--parts FILE] [--lm FOLDER_OR_ID] [--out FOLDER]

Fetches the language model once (93 MB), merges the trained parts into it, and writes the model with its processor.
"""

import argparse
import logging
import sys
from pathlib import Path

from vfl.errors import InputError
from vfl.io.disk import explained
from vfl.loading.beds import smol_folder
from vfl.testbeds.smol.language import language_model
from vfl.testbeds.smol.parts import write_model

PARTS = Path(__file__).parent / "parts.safetensors"
"""The trained parts that come with the library."""


def build(parts: Path = PARTS, language: str | None = None, folder: Path | None = None) -> Path:
    """Write the model and return its folder; by default the one that the name smol stands for.

    Raises:
        InputError: the language model can't be fetched, the parts are not there, or the folder can't be written.
    """
    folder = folder or smol_folder()
    if folder.exists() and not (folder / "config.json").is_file():
        raise InputError(f"{folder} exists and holds no model; name a new folder with --out, or remove it")
    with explained(folder, full="Make room there (540 MB), or name another folder with --out.", barred="Name another."):
        folder.parent.mkdir(parents=True, exist_ok=True)
        write_model(parts, language_model(language), folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m vfl.testbeds.smol.build",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--parts", type=Path, default=PARTS, help="what training wrote; default: the library's own")
    parser.add_argument("--lm", help="folder or hub id of the language model; default: the package's")
    parser.add_argument("--out", type=Path, help="default: in the cache, where the name smol finds it")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        print(build(options.parts, options.lm, options.out))
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

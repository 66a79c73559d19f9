"""Fixtures that several test folders share."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# Before transformers is imported: a test that reaches for the hub is wrong, and should fail rather than wait.
os.environ["HF_HUB_OFFLINE"] = "1"
# `tiny` is imported from here. At the end of the path, so that no folder of tests shadows a module.
sys.path.append(str(Path(__file__).parent))


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The checkpoint folder of a tiny family (a key of `tiny.ALL`), built once a session; read it, do not write."""
    import tiny

    folders: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in folders:
            folders[family] = tiny.build(family, tmp_path_factory.mktemp(family))
        return folders[family]

    return folder

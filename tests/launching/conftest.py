"""What the scripts are run on."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def qwen(tiny_folder) -> Path:
    """A checkpoint of four decoder layers."""
    return tiny_folder("qwen2_5_vl")

"""The small models of known making, called by a name: what that stands for, and which probes they can see."""

from pathlib import Path

from vfl.io.cache import cache_home

EMBEDDED_ID = "embedded"
"""What the embedded test model is called, wherever a model is named."""
EMBEDDED = Path(__file__).parents[1] / "testbeds" / "micro" / "weights"
SMOL_ID = "smol"
"""What the small model around a pretrained language model is called; it is built on the user's machine."""


def smol_folder() -> Path:
    """Where `python -m vfl.testbeds.smol.build` puts the model, which may not exist yet."""
    return cache_home() / "smol" / "model"


def bed_folders() -> dict[str, Path]:
    """The folder of each name."""
    return {EMBEDDED_ID: EMBEDDED, SMOL_ID: smol_folder()}


def bed_of(folder: str | Path) -> str | None:
    """The name of the test bed in a folder; None for other models."""
    return next((name for name, place in bed_folders().items() if Path(folder) == place), None)


def probe_style(folder: str | Path) -> str:
    """The generated probes that a model can see: the test beds were trained on small pictures of their own."""
    return "standard" if bed_of(folder) is None else "micro"

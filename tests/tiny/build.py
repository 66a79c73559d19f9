"""One table of what can be built."""

from collections.abc import Callable
from pathlib import Path

from tiny.audio import qwen2_audio
from tiny.gemma import gemma3, paligemma
from tiny.idefics import idefics3, smolvlm
from tiny.internvl import internvl
from tiny.llava import llava, llava_next, llava_onevision
from tiny.others import llama_text, llava_plain, mllama, paligemma_plain
from tiny.qwen import qwen2_5_vl, qwen2_vl, qwen3_vl

# The families whose text attends to vision tokens in its own sequence.
FAMILIES: dict[str, Callable[[Path], Path]] = {
    "qwen2_vl": qwen2_vl,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen3_vl": qwen3_vl,
    "llava": llava,
    "llava_next": llava_next,
    "llava_onevision": llava_onevision,
    "internvl": internvl,
    "idefics3": idefics3,
    "smolvlm": smolvlm,
    "gemma3": gemma3,
    "paligemma": paligemma,
}
# Those whose text attends to sounds in the same way.
AUDIO: dict[str, Callable[[Path], Path]] = {"qwen2_audio": qwen2_audio}
# And those that a user may give and that need an answer of their own.
ALL: dict[str, Callable[[Path], Path]] = (
    FAMILIES
    | AUDIO
    | {
        "mllama": mllama,
        "llama_text": llama_text,
        "llava_plain": llava_plain,
        "paligemma_plain": paligemma_plain,
    }
)


def build(family: str, folder: Path) -> Path:
    """Write the tiny checkpoint `family` (a key of ALL) into `folder` and return the folder."""
    return ALL[family](Path(folder))

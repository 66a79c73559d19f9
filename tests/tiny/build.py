"""One table of what can be built."""

from collections.abc import Callable
from pathlib import Path

from tiny.audio import qwen2_audio
from tiny.cohere import aya_vision, cohere2_vision
from tiny.gemma import gemma3, gemma4, gemma4_shared, paligemma
from tiny.glm import glm4v, glm4v_moe
from tiny.idefics import idefics3, smolvlm
from tiny.internvl import internvl
from tiny.janus import deepseek_vl, janus
from tiny.llama4 import llama4
from tiny.llava import llava, llava_next, llava_onevision
from tiny.mistral import mistral3
from tiny.others import llama_text, llava_plain, mllama, paligemma_plain
from tiny.ovis import ovis2
from tiny.qwen import qwen2_5_vl, qwen2_vl, qwen3_vl, qwen3_vl_moe
from tiny.video_llava import video_llava

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
# Further ones of the same kind, on which the sweep alone is tested.
FURTHER: dict[str, Callable[[Path], Path]] = {
    "qwen3_vl_moe": qwen3_vl_moe,
    "glm4v": glm4v,
    "glm4v_moe": glm4v_moe,
    "gemma4": gemma4,
    "llama4": llama4,
    "mistral3": mistral3,
    "aya_vision": aya_vision,
    "cohere2_vision": cohere2_vision,
    "ovis2": ovis2,
    "deepseek_vl": deepseek_vl,
    "janus": janus,
    "video_llava": video_llava,
}
# Those whose text attends to sounds in the same way.
AUDIO: dict[str, Callable[[Path], Path]] = {"qwen2_audio": qwen2_audio}
# And those that a user may give and that need an answer of their own.
ALL: dict[str, Callable[[Path], Path]] = (
    FAMILIES
    | AUDIO
    | {
        "mllama": mllama,
        "gemma4_shared": gemma4_shared,
        "llama_text": llama_text,
        "llava_plain": llava_plain,
        "paligemma_plain": paligemma_plain,
    }
)


def build(family: str, folder: Path) -> Path:
    """Write the tiny checkpoint `family` (a key of ALL or FURTHER) into `folder` and return the folder."""
    return (ALL | FURTHER)[family](Path(folder))

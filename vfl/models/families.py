"""The table of model families: one row each, found by the config's `model_type`. Adding a family is adding a row.

Everything else about a model (decoder layers, positions, masks, where the vision tokens stand) is discovered on the
loaded model and checked there, so a row only holds what no config or module says.
"""

from dataclasses import dataclass
from typing import Literal

from vfl.errors import InputError
from vfl.models import boxes
from vfl.models.boxes import BoxConvention
from vfl.models.medium import Modality


@dataclass(frozen=True)
class Family:
    """What holds for one family of vision-language models.

    Attributes:
        name: the family's usual name.
        model_types: `config.model_type` values.
        boxes: how the family writes boxes and points.
        prefix_lm: the prompt attends to itself in both directions, so vision states depend on the question: every
            experiment uses full passes.
        bare_prompt: trained on plain text after the image, without a chat template.
        modality: what its span holds; boxes mean nothing for sounds.
        note: what a user of this family should know.
        known: whether its boxes are: a family of which no table tells is taken for one that writes fractions.
        tested: how far tests on small models of its real classes go: `throughout`, or `sweep`, which is loading,
            encoding and plans against full passes.
    """

    name: str
    model_types: tuple[str, ...]
    boxes: BoxConvention
    prefix_lm: bool = False
    bare_prompt: bool = False
    modality: Modality = "image"
    note: str = ""
    known: bool = True
    tested: Literal["throughout", "sweep"] = "throughout"


FAMILIES: tuple[Family, ...] = (
    Family("Qwen2-VL", ("qwen2_vl",), boxes.QWEN2, note="M-RoPE; any grid, pairs need equal image sizes"),
    Family("Qwen2.5-VL", ("qwen2_5_vl",), boxes.PIXEL, note="M-RoPE; boxes are pixels of the resized image"),
    Family("Qwen3-VL", ("qwen3_vl",), boxes.THOUSANDTHS_JSON, note="M-RoPE and DeepStack"),
    Family("LLaVA-1.5", ("llava",), boxes.UNIT, note="576 vision tokens at 336 px"),
    Family("LLaVA-NeXT", ("llava_next",), boxes.UNIT, note="tiles; the newline embeddings belong to the span"),
    Family(
        "LLaVA-OneVision", ("llava_onevision",), boxes.UNIT, note="tiles; the newline embeddings belong to the span"
    ),
    Family("InternVL", ("internvl",), boxes.INTERNVL, note="the Transformers port (repositories ending in -hf)"),
    Family("Idefics3", ("idefics3",), boxes.UNIT, note="tiles; the marker text between them belongs to the span"),
    Family("SmolVLM", ("smolvlm",), boxes.UNIT, note="tiles; the marker text between them belongs to the span"),
    Family("Gemma 3", ("gemma3",), boxes.GEMINI, note="vision tokens see each other both ways; sliding-window layers"),
    Family(
        "PaliGemma",
        ("paligemma",),
        boxes.PALIGEMMA,
        prefix_lm=True,
        bare_prompt=True,
        note="prefix-LM: vision states depend on the question, so sweeps use exact full passes",
    ),
    Family(
        "Qwen2-Audio",
        ("qwen2_audio",),
        boxes.UNIT,
        modality="audio",
        note="the span is sound; pairs need equally long WAV files; to measure, not to train",
    ),
    Family("Qwen3-VL-MoE", ("qwen3_vl_moe",), boxes.THOUSANDTHS_JSON, tested="sweep", note="experts; else as Qwen3-VL"),
    Family("GLM-4V", ("glm4v",), boxes.GLM, tested="sweep", note="M-RoPE; any grid, pairs need equal image sizes"),
    Family("GLM-4.5V", ("glm4v_moe",), boxes.GLM, tested="sweep", note="experts; else as GLM-4V"),
    Family(
        "Gemma 4",
        ("gemma4",),
        boxes.GEMINI,
        tested="sweep",
        note="boxes as Gemma 3's; models whose layers share keys and values are refused",
    ),
    Family("Llama 4", ("llama4",), boxes.UNIT, known=False, tested="sweep", note="tiles; experts; attention in chunks"),
    Family(
        "Mistral 3",
        ("mistral3",),
        boxes.UNIT,
        known=False,
        tested="sweep",
        note="any grid; the break tokens behind its rows belong to the span",
    ),
    Family(
        "Aya Vision",
        ("aya_vision",),
        boxes.UNIT,
        known=False,
        tested="sweep",
        note="tiles; the marker text between them belongs to the span; sliding-window layers",
    ),
    Family(
        "Command A Vision",
        ("cohere2_vision",),
        boxes.UNIT,
        known=False,
        tested="sweep",
        note="tiles with break tokens; sliding-window layers",
    ),
    Family(
        "Ovis2",
        ("ovis2",),
        boxes.UNIT,
        known=False,
        tested="sweep",
        note="the image's end token is part of its picture, so sweeps use exact full passes",
    ),
    Family("DeepSeek-VL", ("deepseek_vl",), boxes.UNIT, known=False, tested="sweep", note="a fixed number of tokens"),
    Family("Janus", ("janus",), boxes.UNIT, known=False, tested="sweep", note="understanding only, no pictures made"),
    Family("Video-LLaVA", ("video_llava",), boxes.UNIT, known=False, tested="sweep", note="images only, no videos"),
)

# How families write boxes that are not in the table and found by discovery. GLM's and Molmo2's forms are those that
# code which uses these models reads; Gemma 4 is assumed to write as Gemma 3 does (y first, thousandths).
BOXES_OF_OTHERS = {
    "gemma4_unified": boxes.GEMINI,
    "molmo2": boxes.MOLMO2,
}

# Versions that the tests of all families ran with (constraints.txt).
TESTED = {"transformers": "5.23.0", "torch": "2.15.0"}

REFUSED_LAYERS = (
    "models with hybrid linear attention (Qwen3.5, LFM2-VL, Nemotron-H and others), and those whose layers use the "
    "keys and values of other layers (Gemma 3n, some of Gemma 4)"
)
_CROSS_ATTENTION = "it reads the image through cross-attention: there are no vision tokens among its keys and values"
REFUSED = {
    "mllama": _CROSS_ATTENTION,
    "idefics": _CROSS_ATTENTION,
    "blip-2": "it feeds a fixed set of query embeddings to an encoder-decoder and has no vision span to swap",
    "florence2": "it is an encoder-decoder: the answer reads the image through cross-attention",
}


def family_of(model_type: str) -> Family:
    """The row for a model type; an unknown type gets a generic row, to be confirmed by what is found on the model.

    Raises:
        InputError: for model types that can't be swept, with the reason.
    """
    if model_type in REFUSED:
        raise InputError(
            f"Models of type {model_type!r} can't be used here: {REFUSED[model_type]}. "
            "`vfl models` lists the supported families."
        )
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    return Family(
        f"generic ({model_type})",
        (model_type,),
        BOXES_OF_OTHERS.get(model_type, boxes.UNIT),
        note="not in the table; found by discovery",
        known=model_type in BOXES_OF_OTHERS,
    )

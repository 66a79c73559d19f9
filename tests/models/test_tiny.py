"""The tiny checkpoints are what they claim, and the families behave as FACTS.md in tests/tiny says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    DynamicCache,
    PreTrainedModel,
)

Folder = Callable[[str], Path]

NUM_IMAGE_TOKENS = {
    "qwen2_vl": 12, "qwen2_5_vl": 12, "qwen3_vl": 12, "llava": 16, "llava_next": 24, "llava_onevision": 24,
    "internvl": 20, "idefics3": 20, "smolvlm": 20, "gemma3": 16, "paligemma": 16, "mllama": 1,
}  # fmt: skip
SEQUENCE_KEYS = {"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"}
SHARING = [family for family in tiny.FAMILIES if family != "paligemma"]

families = pytest.mark.parametrize("family", tiny.FAMILIES)
sharing_families = pytest.mark.parametrize("family", SHARING)


@pytest.fixture(autouse=True)
def _without_gradients() -> Any:
    with torch.no_grad():
        yield


def load(folder: Path) -> PreTrainedModel:
    return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float64)


def prompt(folder: Path, seed: int = 0, size: tuple[int, int] = tiny.SIZE, **options: Any) -> dict[str, torch.Tensor]:
    inputs = AutoProcessor.from_pretrained(folder).apply_chat_template(
        tiny.messages(tiny.picture(seed, size)),
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        **options,
    )
    inputs.pop("labels", None)  # PaliGemma's: all masked, they would make a loss of nan
    return dict(inputs.to(torch.float64))


def image_positions(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    return (inputs["input_ids"][0] == model.config.image_token_id).nonzero().flatten()


def decoder_arguments(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> dict[str, Any]:
    """What the top-level model hands its decoder in a forward pass."""
    seen: dict[str, Any] = {}
    hook = model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: seen.update(kwargs), with_kwargs=True
    )
    try:
        model(**inputs)
    finally:
        hook.remove()
    return seen


def prefill(model: PreTrainedModel, inputs: dict[str, torch.Tensor], end: int) -> DynamicCache:
    """The keys and values of the first `end` tokens, which hold the whole image."""
    cut = {key: value[:, :end] if key in SEQUENCE_KEYS else value for key, value in inputs.items()}
    cache = DynamicCache()  # without a config: sliding layers keep all their keys, the mask does the window
    model(**cut, past_key_values=cache, use_cache=True)
    return cache


def answer_logits(model: PreTrainedModel, cache: DynamicCache, arguments: dict[str, Any], start: int) -> torch.Tensor:
    """Logits of the tokens from `start` on, (1, T - start, vocabulary), by the decoder alone behind `cache`."""
    embeddings = arguments["inputs_embeds"]
    positions = arguments.get("position_ids")
    if positions is None:
        positions = torch.arange(embeddings.shape[1])[None]
    states = model.get_decoder()(
        inputs_embeds=embeddings[:, start:], position_ids=positions[..., start:], past_key_values=cache, use_cache=True
    )
    return model.get_output_embeddings()(states.last_hidden_state)


@families
def test_checkpoint_is_complete(family: str, tiny_folder: Folder) -> None:
    _, report = AutoModelForImageTextToText.from_pretrained(tiny_folder(family), output_loading_info=True)
    assert not any(report.values())


@pytest.mark.parametrize("family", NUM_IMAGE_TOKENS)
def test_forward_takes_the_processors_image_tokens(family: str, tiny_folder: Folder) -> None:
    model, inputs = load(tiny_folder(family)), prompt(tiny_folder(family))
    assert len(image_positions(model, inputs)) == NUM_IMAGE_TOKENS[family]
    logits = model(**inputs).logits  # raises where tokens and features differ in number
    assert logits.dtype == torch.float64
    assert logits.isfinite().all()


@pytest.mark.parametrize("family", NUM_IMAGE_TOKENS)
def test_generates_greedily(family: str, tiny_folder: Folder) -> None:
    model, inputs = load(tiny_folder(family)), prompt(tiny_folder(family))
    length = inputs["input_ids"].shape[1]
    answer = model.generate(**inputs, max_new_tokens=3, min_new_tokens=3, do_sample=False)[0, length:]
    assert len(answer) == 3
    assert answer[0] == model(**inputs).logits[0, -1].argmax()


@families
def test_pictures_of_equal_size_differ_in_answer_alone(family: str, tiny_folder: Folder) -> None:
    model = load(tiny_folder(family))
    inputs = [prompt(tiny_folder(family), seed) for seed in range(4)]
    assert all(torch.equal(prompt["input_ids"], inputs[0]["input_ids"]) for prompt in inputs)
    logits = torch.stack([model(**prompt).logits[0, -1] for prompt in inputs])
    assert len(logits.argmax(dim=-1).unique()) > 1
    assert (logits - logits[0]).abs().amax(dim=-1)[1:].min() > logits.std() / 2


@pytest.mark.parametrize("family", tiny.ALL)
def test_second_build_is_equal_to_the_byte(family: str, tiny_folder: Folder, tmp_path: Path) -> None:
    first, second = tiny_folder(family), tiny.build(family, tmp_path)
    assert sorted(path.name for path in first.iterdir()) == sorted(path.name for path in second.iterdir())
    for path in second.iterdir():
        assert path.read_bytes() == (first / path.name).read_bytes(), path.name


@families
def test_decoder_layers(family: str, tiny_folder: Folder) -> None:
    """Layers return a tensor, and their attention gives the cache key, value and layer index by position."""
    model, inputs = load(tiny_folder(family)), prompt(tiny_folder(family))
    decoder = model.get_decoder()
    assert len(decoder.layers) == model.config.get_text_config().num_hidden_layers
    calls: list[tuple[Any, ...]] = []

    class Recorder(DynamicCache):
        def update(self, *args: Any) -> Any:
            calls.append(args)
            return super().update(*args)

    outputs: list[Any] = []
    hooks = [layer.register_forward_hook(lambda module, args, out: outputs.append(out)) for layer in decoder.layers]
    try:
        model(**inputs, past_key_values=Recorder(), use_cache=True)
    finally:
        for hook in hooks:
            hook.remove()
    assert all(isinstance(out, torch.Tensor) for out in outputs)
    assert [call[2] for call in calls] == list(range(len(decoder.layers)))


@sharing_families
def test_prefix_is_shared(family: str, tiny_folder: Folder) -> None:
    """Prefill up to the last image token, then the question by the decoder alone: the logits of the whole pass."""
    model, inputs = load(tiny_folder(family)), prompt(tiny_folder(family))
    end = int(image_positions(model, inputs)[-1]) + 1
    logits = answer_logits(model, prefill(model, inputs, end), decoder_arguments(model, inputs), end)
    torch.testing.assert_close(logits, model(**inputs).logits[:, end:], rtol=0, atol=1e-12)


@sharing_families
def test_image_states_ignore_the_question(family: str, tiny_folder: Folder) -> None:
    assert _change_of_image_keys(family, tiny_folder) == 0


def test_image_states_of_a_prefix_lm_depend_on_the_question(tiny_folder: Folder) -> None:
    assert _change_of_image_keys("paligemma", tiny_folder) > 0.1


def _change_of_image_keys(family: str, tiny_folder: Folder) -> float:
    """The largest change of any key of the image when the tokens of the question are put in another order."""
    model, inputs = load(tiny_folder(family)), prompt(tiny_folder(family))
    end = int(image_positions(model, inputs)[-1]) + 1
    ids = inputs["input_ids"].clone()
    ids[:, end + 2 :] = ids[:, end + 2 :].flip(1)
    assert not torch.equal(ids, inputs["input_ids"])
    caches = DynamicCache(), DynamicCache()
    model(**inputs, past_key_values=caches[0], use_cache=True)
    model(**inputs | {"input_ids": ids}, past_key_values=caches[1], use_cache=True)
    pairs = zip(caches[0].layers, caches[1].layers, strict=True)
    return max((first.keys - second.keys)[:, :, :end].abs().max().item() for first, second in pairs)


@sharing_families
def test_every_layer_reads_the_image(family: str, tiny_folder: Folder) -> None:
    """Another picture's keys and values in any one layer move the answer, so no swap is invisible to a test."""
    model = load(tiny_folder(family))
    inputs, others = prompt(tiny_folder(family), seed=0), prompt(tiny_folder(family), seed=1)
    positions = image_positions(model, inputs)
    end = int(positions[-1]) + 1
    arguments, baseline = decoder_arguments(model, inputs), model(**inputs).logits[:, end:]
    other = prefill(model, others, end)
    for index in range(len(model.get_decoder().layers)):
        cache = prefill(model, inputs, end)
        cache.layers[index].keys[:, :, positions] = other.layers[index].keys[:, :, positions]
        cache.layers[index].values[:, :, positions] = other.layers[index].values[:, :, positions]
        change = answer_logits(model, cache, arguments, end) - baseline
        assert change[:, -1].abs().max() > 1e-3, f"layer {index}"


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_qwen_positions_follow_the_grid(family: str, tiny_folder: Folder) -> None:
    """A picture of 4 x 3 tokens: height and width run over 3 and 4 positions, and text goes on behind the larger."""
    model, inputs = load(tiny_folder(family)), prompt(tiny_folder(family))
    positions = decoder_arguments(model, inputs)["position_ids"][:, 0]
    image = image_positions(model, inputs)
    start = positions[0, image[0]]
    assert (positions[:, image] - start).amax(dim=1).tolist() == [0, 2, 3]
    assert positions[:, image[-1] + 1].tolist() == [start + 4] * 3


def test_qwen3_has_deepstack_features(tiny_folder: Folder) -> None:
    model, inputs = load(tiny_folder("qwen3_vl")), prompt(tiny_folder("qwen3_vl"))
    assert len(decoder_arguments(model, inputs)["deepstack_visual_embeds"]) == 2


def test_paligemma_positions_start_at_one(tiny_folder: Folder) -> None:
    model, inputs = load(tiny_folder("paligemma")), prompt(tiny_folder("paligemma"))
    arguments = decoder_arguments(model, inputs)
    assert arguments["position_ids"][0, :2].tolist() == [1, 2]
    assert arguments["attention_mask"].all()


def test_gemma3_masks_by_layer_type(tiny_folder: Folder) -> None:
    """Both masks let an image token see the later ones; only the sliding one cuts the question off from it."""
    model, inputs = load(tiny_folder("gemma3")), prompt(tiny_folder("gemma3"))
    first, last = image_positions(model, inputs)[[0, -1]].tolist()
    masks = decoder_arguments(model, inputs)["attention_mask"]
    full, sliding = masks["full_attention"][0, 0], masks["sliding_attention"][0, 0]
    assert full[first, last]
    assert sliding[first, last]
    assert full[-1, first : last + 1].all()
    assert not sliding[-1, first : last + 1].any()
    assert not sliding[last, first]


def test_gemma3_pans_and_scans(tiny_folder: Folder) -> None:
    folder = tiny_folder("gemma3")
    options = {"images_kwargs": {"do_pan_and_scan": True, "pan_and_scan_min_crop_size": 16}}
    inputs = prompt(folder, size=(96, 32), processor_kwargs=options)
    model = load(folder)
    assert len(inputs["pixel_values"]) == 4
    assert len(image_positions(model, inputs)) == 4 * 16
    end = int(image_positions(model, inputs)[-1]) + 1
    logits = answer_logits(model, prefill(model, inputs, end), decoder_arguments(model, inputs), end)
    torch.testing.assert_close(logits, model(**inputs).logits[:, end:], rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", ["llava_next", "llava_onevision"])
def test_padding_of_wide_pictures_is_cut_off(family: str, tiny_folder: Folder) -> None:
    """4 features of the whole and a grid of 4 x 4 with 4 newlines, of which a wide picture fills 2 rows."""
    model = load(tiny_folder(family))
    counts = [len(image_positions(model, prompt(tiny_folder(family), size=size))) for size in [(64, 48), (64, 24)]]
    assert counts == [4 + 4 * 5, 4 + 2 * 5]
    model(**prompt(tiny_folder(family), size=(64, 24)))


@pytest.mark.parametrize("family", ["idefics3", "smolvlm"])
def test_marker_text_stands_between_tiles(family: str, tiny_folder: Folder) -> None:
    model, inputs = load(tiny_folder(family)), prompt(tiny_folder(family))
    positions = image_positions(model, inputs)
    assert len(positions) < int(positions[-1] - positions[0]) + 1


def test_mllama_attends_across(tiny_folder: Folder) -> None:
    layers = load(tiny_folder("mllama")).get_decoder().layers
    assert [hasattr(layer, "cross_attn") for layer in layers] == [False, True, False, True, False]


def test_text_model_has_no_image_processor(tiny_folder: Folder) -> None:
    folder = tiny_folder("llama_text")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = tokenizer.apply_chat_template(tiny.messages(None), add_generation_prompt=True, tokenize=False)
    assert AutoModelForCausalLM.from_pretrained(folder)(**tokenizer(text, return_tensors="pt")).logits.isfinite().all()
    assert not hasattr(AutoProcessor.from_pretrained(folder), "image_processor")
    with pytest.raises(ValueError, match="Unrecognized configuration class"):
        load(folder)


@pytest.mark.parametrize("family", ["llava_plain", "paligemma_plain"])
def test_plain_checkpoints_have_no_chat_template(family: str, tiny_folder: Folder) -> None:
    with pytest.raises(ValueError, match="chat template"):
        prompt(tiny_folder(family))

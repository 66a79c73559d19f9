"""The tap reads what eager attention computes, edits whatever the mask's form, and leaves nothing behind."""

import pytest
import tiny
import torch

from vfl.engine.attention_tap import NAME, BlockedEdges, row_weights, tapped
from vfl.engine.image_cache import prefill
from vfl.engine.masks import blocked
from vfl.engine.plan import Plan
from vfl.engine.states import forward, is_vision
from vfl.engine.sweep import sweep

FAMILIES = ["llava", "qwen2_5_vl", "smolvlm"]


def left_padded(vlm, questions):
    """A batch of prompts of different lengths, and its attention mask."""
    content = [tiny.messages(tiny.picture(seed), question) for seed, question in enumerate(questions)]
    batch = vlm.processor.apply_chat_template(
        content,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs={"padding": True, "padding_side": "left"},
    ).to(vlm.dtype)
    lengths = batch["attention_mask"].sum(1)
    assert lengths[0] < lengths[1]
    assert batch["attention_mask"][0, 0] == 0, "padded on the left"
    return dict(batch)


def eager_weights(vlm, inputs):
    """Per layer (B, H, T, T), from the model's own eager attention in the decoder."""
    weights = []
    config = vlm.parts.decoder.config
    handles = [layer.self_attn.register_forward_hook(lambda m, a, out: weights.append(out[1])) for layer in vlm.layers]
    before, config._attn_implementation = config._attn_implementation, "eager"
    try:
        with torch.no_grad():
            logits = vlm.model(**inputs, use_cache=False).logits
    finally:
        config._attn_implementation = before
        for handle in handles:
            handle.remove()
    return weights, logits


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rows", [(-1,), (-3, -1), None])
def test_tapped_weights_equal_eager_attention_on_left_padded_batches(loaded, family, rows):
    vlm = loaded(family)  # eager attention of a padding row is NaN in float64
    inputs = left_padded(vlm, ["cat", "is there a red cube or a blue ball in the image"])
    rows = range(inputs["input_ids"].shape[1]) if rows is None else rows
    expected, logits = eager_weights(vlm, inputs)
    read_weights = {}
    with tapped(vlm, read=lambda layer, weights: read_weights.update({layer: weights}), rows=rows), torch.no_grad():
        tapped_logits = vlm.model(**inputs, use_cache=False).logits
    real = inputs["attention_mask"].bool()
    assert list(read_weights) == list(range(vlm.num_layers))
    for layer, weights in read_weights.items():
        theirs = expected[layer][:, :, list(rows)]
        assert weights.shape == theirs.shape
        seen = real[:, list(rows)]
        close(weights.transpose(1, 2)[seen], theirs.transpose(1, 2)[seen], 1e-5)
        assert not weights.transpose(1, 2)[~seen].any(), "padding reads nothing"
    close(tapped_logits[real], logits[real], 1e-4)
    with torch.no_grad():
        plain = vlm.model(**inputs, use_cache=False).logits
    assert torch.equal(tapped_logits[real], plain[real]), "without edits the tap is sdpa"


def close(ours, theirs, atol=1e-9):
    torch.testing.assert_close(ours.double(), theirs.double(), rtol=0, atol=atol * max(1.0, float(theirs.abs().max())))


def logits_of(vlm, encoded, **tap):
    with torch.no_grad(), tapped(vlm, **tap):
        return vlm.model(**encoded.inputs, position_ids=encoded.positions, use_cache=False).logits[0]


def text_to_vision(encoded, layers):
    vision = is_vision(encoded)[None]
    return BlockedEdges(frozenset(layers), ~vision, vision)


def test_blocking_text_from_vision_is_hiding_the_image(vlm, prompts, untouched):
    for layers in ([1], range(vlm.num_layers)):
        logits = logits_of(vlm, prompts[0], blocks=[text_to_vision(prompts[0], layers)])[-1]
        close(logits, sweep(vlm, prompts[0], [Plan.hide(layers)]).logits[0])


def test_hiding_the_image_at_all_layers_is_a_prompt_without_it_at_the_same_positions(vlm, prompts, untouched):
    encoded = prompts[0]
    logits = logits_of(vlm, encoded, blocks=[text_to_vision(encoded, range(vlm.num_layers))])
    text = ~is_vision(encoded)
    with torch.no_grad():
        embeds, positions = vlm.embed(encoded.input_ids[:, text]), encoded.positions[..., text]
        # said outright: without a mask a gap in the positions would be taken for two packed sequences
        mask = torch.ones(1, 1, int(text.sum()), int(text.sum()), dtype=torch.bool).tril()
        alone = vlm.parts.decoder(
            inputs_embeds=embeds, position_ids=positions, attention_mask=mask, use_cache=False
        ).last_hidden_state
        close(logits[text], vlm.parts.head(alone)[0])


def test_mask_forms_give_the_same_knockout(vlm, prompts, untouched):
    encoded = prompts[0]
    length = encoded.length
    allowed = torch.ones(length, length, dtype=torch.bool).tril()[None, None]
    lowest = torch.finfo(torch.float64).min
    additive = torch.zeros(1, 1, length, length, dtype=torch.float64).masked_fill(~allowed, lowest)
    block = text_to_vision(encoded, [0, 2])
    embeds = vlm.embed(encoded.input_ids)
    outputs = []
    for mask in (None, allowed, additive):
        with torch.no_grad(), tapped(vlm, blocks=[block]):
            output = vlm.parts.decoder(
                inputs_embeds=embeds, position_ids=encoded.positions, attention_mask=mask, use_cache=False
            )
        outputs.append(output.last_hidden_state)
    with torch.no_grad():
        plain = vlm.parts.decoder(inputs_embeds=embeds, position_ids=encoded.positions, use_cache=False)
    close(outputs[1], outputs[0], 1e-12)
    close(outputs[2], outputs[0], 1e-12)
    assert (outputs[0] - plain.last_hidden_state).abs().max() > 1e-4, "a knockout that cuts nothing proves nothing"


@pytest.mark.parametrize("form", ["none", "bool", "additive", "minus infinity"])
def test_a_query_without_any_key_reads_nothing(form):
    query, key = torch.randn(1, 4, 3, 8), torch.randn(1, 2, 3, 8)
    allowed = torch.ones(3, 3, dtype=torch.bool).tril()[None, None]
    bias = torch.zeros(1, 1, 3, 3)
    masks = {
        "none": None,
        "bool": allowed,
        "additive": bias.masked_fill(~allowed, torch.finfo(torch.float32).min),
        "minus infinity": bias.masked_fill(~allowed, float("-inf")),
    }
    edges = torch.zeros(1, 1, 3, 3, dtype=torch.bool)
    edges[..., 1, :2] = True
    weights = row_weights(query, key, blocked(masks[form], edges), range(3), scaling=0.3)
    assert not weights[:, :, 1].any()
    assert torch.equal(weights[:, :, 0], torch.tensor([1.0, 0, 0]).expand(1, 4, 3))
    close(weights[:, :, 2].sum(-1), torch.ones(1, 4), 1e-6)


def test_row_weights_keep_a_real_bias_and_the_soft_cap():
    query, key, bias = torch.randn(2, 4, 3, 8), torch.randn(2, 2, 3, 8), torch.randn(2, 4, 3, 3)
    scores = query @ key.repeat_interleave(2, 1).transpose(-1, -2) * 0.3
    weights = row_weights(query, key, bias, range(3), scaling=0.3, softcap=2.0)
    close(weights, (2 * torch.tanh(scores / 2) + bias).softmax(-1), 1e-6)


def test_heads_scaled_by_one_are_a_no_op_and_all_zero_heads_remove_attention(vlm, prompts, untouched):
    encoded = prompts[0]
    heads = vlm.parts.decoder.config.num_attention_heads
    plain = logits_of(vlm, encoded)
    assert torch.equal(logits_of(vlm, encoded, head_scale={}), plain)
    assert torch.equal(logits_of(vlm, encoded, head_scale={1: torch.ones(heads)}), plain)
    outputs = []
    handle = vlm.layers[1].self_attn.o_proj.register_forward_hook(lambda m, args, out: outputs.append(args[0]))
    try:
        scale = torch.ones(heads)
        scale[2] = 0
        logits_of(vlm, encoded)
        edited = logits_of(vlm, encoded, head_scale={1: scale})
    finally:
        handle.remove()
    before, after = (out.unflatten(-1, (heads, -1)) for out in outputs)
    assert not after[:, :, 2].any()
    kept = [head for head in range(heads) if head != 2]
    assert torch.equal(after[:, :, kept], before[:, :, kept])
    assert (edited - plain).abs().max() > 1e-6


def test_a_block_reaches_generated_tokens_by_position(vlm, prompts, untouched):
    """Behind a cache the queries are the last positions of the keys."""
    encoded = prompts[0]
    vision = is_vision(encoded)[None]
    last = torch.zeros_like(vision)
    last[:, -1] = True
    block = BlockedEdges(frozenset(range(vlm.num_layers)), last, vision)
    whole = logits_of(vlm, encoded, blocks=[block])[-1]
    own = prefill(vlm, encoded)
    with tapped(vlm, blocks=[block]):  # the question runs behind the image's cached keys
        shared = sweep(vlm, encoded, [Plan.own()], own=own).logits[0]
    close(shared, whole)


def test_sweeps_run_under_a_tap(vlm, prompts, untouched):
    source = prefill(vlm, vlm.ask("how many cats are there", tiny.picture(seed=5)))
    plans = [Plan.own(), Plan.hide([1]), Plan.swap([2], source)]
    expected = sweep(vlm, prompts[0], plans, max_new_tokens=3)
    with tapped(vlm):
        swept = sweep(vlm, prompts[0], plans, max_new_tokens=3)
    close(swept.logits, expected.logits)
    assert swept.token_ids == expected.token_ids


@pytest.mark.usefixtures("failing_layer")
def test_the_implementation_is_back_after_an_exception(vlm, prompts):
    with pytest.raises(RuntimeError, match="a layer failed"), tapped(vlm):
        forward(vlm, prompts[0])
    assert vlm.parts.decoder.config._attn_implementation == "sdpa"


def test_a_model_has_one_tap_and_the_vision_tower_none(vlm, prompts, untouched):
    with tapped(vlm):
        assert vlm.model.config.vision_config._attn_implementation == "sdpa"
        with pytest.raises(RuntimeError, match="tapped already"), tapped(vlm):
            pass
        assert vlm.parts.decoder.config._attn_implementation == NAME


def test_eager_models_get_their_implementation_back(loaded):
    vlm = loaded("llava", dtype="float64", attn_implementation="eager")
    encoded = vlm.ask("how many", tiny.picture())
    with tapped(vlm):
        forward(vlm, encoded)
    assert vlm.parts.decoder.config._attn_implementation == "eager"
    close(logits_of(vlm, encoded)[-1], sweep(vlm, encoded, [Plan.own()]).logits[0], 1e-3)


@pytest.mark.parametrize("family", ["gemma3", "paligemma", "qwen3_vl", "internvl"])
def test_other_families_rows_add_up_to_one_and_logits_stay(loaded, family):
    """Sliding windows, bidirectional vision tokens, prefix-LM, DeepStack."""
    vlm = loaded(family, dtype="float64")
    encoded = vlm.ask("how many cats are there", tiny.picture())
    inputs = dict(encoded.inputs, position_ids=encoded.positions)
    expected, _ = eager_weights(vlm, inputs)
    weights_of = {}

    def read(layer, weights):
        weights_of[layer] = weights

    with torch.no_grad(), tapped(vlm, read=read, rows=range(encoded.length)):
        logits = vlm.model(**inputs, use_cache=False).logits
    for layer, weights in weights_of.items():
        close(weights, expected[layer], 1e-5)
        close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    with torch.no_grad():
        assert torch.equal(logits, vlm.model(**inputs, use_cache=False).logits)

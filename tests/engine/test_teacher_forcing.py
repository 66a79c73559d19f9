"""Teacher-forced scores equal separate full forwards with the same ablation, on every family and kind of row."""

import logging

import pytest
import tiny
import torch
from full_passes import Towers, tapped
from tiny.pictures import picture

from vfl.engine.ablated_rows import run_with_ablated
from vfl.engine.decoder_inputs import decoder_inputs, on_device, take_rows
from vfl.engine.shared_keys import PassingCache
from vfl.engine.teacher_forcing import teacher_forced
from vfl.engine.windows import find_all_spans
from vfl.errors import InputError
from vfl.models.conversation import encoder_of

ABLATIONS = {"late": [2, 3], "all": [0, 1, 2, 3], "none": [], "one": [1], "apart": [0, 3]}


@pytest.fixture(scope="module", params=sorted(tiny.FAMILIES))
def vlm(request, loaded):
    return loaded(request.param, dtype="float64")


def text(words):
    return {"type": "text", "text": words}


def image(seed, size=tiny.pictures.SIZE):
    return {"type": "image", "image": picture(seed, size)}


def turns(*contents):
    """User and assistant in turn."""
    roles = ("user", "assistant")
    return [
        {"role": roles[i % 2], "content": [text(content)] if isinstance(content, str) else list(content)}
        for i, content in enumerate(contents)
    ]


def conversations(vlm):
    """One image and one answer in two sizes, and what causal models take besides."""
    simple = [
        turns([image(0), text("How many cups are on the table?")], "three of them"),
        turns([image(1, (96, 48)), text("Colour?")], "blue"),
    ]
    if vlm.family.prefix_lm:
        return simple
    return [
        *simple,
        turns("What is two and two?", "four, of course"),
        turns([image(2), text("How many?")], "two", "And which colour?", "red and blue", "Sure?", "yes"),
        turns([image(3), text("and"), image(4, (48, 96)), text("differ in what?")], "the colour of the cup"),
        turns([image(5), text("Where?")], "left", [text("And here?"), image(6)], "right"),
        turns("Ready?", "yes", [image(7), image(8), text("The same?")], "no"),
    ]


class Reference:
    """One conversation alone, a full forward an ablation, edited query by query inside the attention function."""

    def __init__(self, vlm, messages, other=None):
        self.vlm = vlm
        self.batch = encoder_of(vlm).encode([messages])
        self.inputs = self.batch.inputs
        self.ids = self.inputs["input_ids"][0]
        (spans,) = find_all_spans(vlm, self.inputs["input_ids"])
        self.slots = torch.cat([torch.arange(s.start, s.end) for s in spans]) if spans else None
        self.source = None
        self.towers = Towers(vlm)
        if other is not None and spans:
            with tapped(vlm) as tap:
                other(self.inputs)
            self.source = {i: (k[:, :, self.slots], v[:, :, self.slots]) for i, (k, v) in tap.recorded.items()}

    @torch.no_grad()
    def logits(self, layers):
        """(M, vocabulary) logits that predict the answer tokens."""
        with tapped(self.vlm) as tap, self.towers.once():
            if self.slots is not None:
                tap.slots = self.slots
                tap.readers = torch.ones(len(self.ids), dtype=torch.bool)
                tap.readers[self.slots] = False
                tap.edits = {layer: None if self.source is None else self.source[layer] for layer in layers}
            logits = self.vlm.model(**self.inputs, use_cache=False).logits[0]
        return logits[self.batch.answers[0].nonzero()[:, 0] - 1]

    @property
    def tokens(self):
        return self.ids[self.batch.answers[0]]


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


def jensen_shannon(first, second):
    """By its definition, of log-probabilities: entropy of the mean less the mean of the entropies."""

    def entropy(probability):
        return -torch.xlogy(probability, probability).sum(-1)

    p, q = first.exp(), second.exp()
    return entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2


def check(vlm, rows, scores, others=None):
    """Scores of a batch of conversations against each conversation alone."""
    assert scores.names == ("own", *ABLATIONS)
    for row, messages in enumerate(rows):
        reference = Reference(vlm, messages, others)
        here = scores.row == row
        tokens = reference.tokens
        whole = reference.logits([])
        own = whole.log_softmax(-1)
        assert int(here.sum()) == len(tokens)
        for index, layers in enumerate([[], *ABLATIONS.values()]):
            logits = reference.logits(layers) if layers else whole
            logprobs = logits.log_softmax(-1)
            close(scores.logprobs[index, here], logprobs.gather(1, tokens[:, None])[:, 0])
            assert torch.equal(scores.top1[index, here], logits.argmax(-1) == tokens)
            close(scores.divergence[index, here], jensen_shannon(own, logprobs))
            if index == 0:
                wrong = logits.softmax(-1) - torch.nn.functional.one_hot(tokens, logits.shape[1])
                close(scores.error_l2[here], wrong.norm(dim=-1))


def test_scores_equal_full_forwards(vlm):
    rows = conversations(vlm)
    scores = teacher_forced(vlm, encoder_of(vlm).encode(rows), ABLATIONS)
    check(vlm, rows, scores)
    assert scores.full == (1 + 4 if vlm.family.prefix_lm else 1)
    assert scores.fitting == len(rows)
    moved = (scores.logprobs[1:] - scores.logprobs[0]).abs()
    assert moved[:, scores.row == 0].amax(1)[[0, 1, 3, 4]].min() > 1e-4, "the ablations must do something"
    assert moved[2].max() == 0


@pytest.mark.parametrize("ablation", ["blank", "mean"])
def test_other_images_can_stand_in(vlm, ablation):
    rows = conversations(vlm)
    batch = encoder_of(vlm).encode(rows)
    generator = torch.Generator().manual_seed(1)
    width = vlm.model.config.get_text_config(decoder=True).hidden_size
    mean = torch.randn(width, generator=generator, dtype=torch.float64) if ablation == "mean" else None

    def others(inputs):
        """A full forward that sees the other images."""
        if ablation == "blank":
            inputs = inputs | {
                name: 1e-4 * (value != 0).to(value) for name, value in inputs.items() if value.is_floating_point()
            }
        is_image = inputs["input_ids"] == vlm.parts.image_token_id

        def replace(module, args, kwargs):
            if mean is None:
                return None
            embeds = kwargs["inputs_embeds"].clone()
            embeds[is_image] = mean
            return args, kwargs | {"inputs_embeds": embeds}

        handle = vlm.parts.decoder.register_forward_pre_hook(replace, with_kwargs=True)
        try:
            with torch.no_grad():
                vlm.model(**inputs, use_cache=False)
        finally:
            handle.remove()

    scores = teacher_forced(vlm, batch, ABLATIONS, ablation=ablation, mean=mean)
    check(vlm, rows, scores, others)
    assert scores.full == (2 + 4 if vlm.family.prefix_lm else 2)
    hidden = teacher_forced(vlm, batch, ABLATIONS)
    assert (scores.logprobs[1] - hidden.logprobs[1]).abs().max() > 1e-4


def test_text_rows_alone_have_their_own_scores(vlm):
    if vlm.family.prefix_lm:
        pytest.skip("takes no conversation without an image")
    rows = [turns("What is two and two?", "four, of course"), turns("Colour of the sky?", "blue", "Sure?", "yes")]
    scores = teacher_forced(vlm, encoder_of(vlm).encode(rows), ABLATIONS)
    check(vlm, rows, scores)
    assert torch.equal(scores.logprobs, scores.logprobs[:1].expand_as(scores.logprobs))
    assert scores.full == 1


def test_spans_are_those_of_single_prompts(vlm):
    """Found in the tokens; `VLM.encode` asks the processor about each group of images."""
    prompts = [[image(0), text("How many?")], [text("Look:"), image(1, (96, 48)), text("How many?")]]
    # LLaVA's templates put all images first, and LLaVA-OneVision cuts a group of images otherwise than a single one.
    if not vlm.family.prefix_lm and not vlm.family.name.startswith("LLaVA"):
        prompts += [[image(2), image(3), text("Same?")], [image(4), text("and"), image(5), text("Same?")]]
    for content in prompts:
        asked = vlm.encode(turns(content))
        assert find_all_spans(vlm, asked.input_ids) == [asked.spans]


def test_crops_of_one_image_are_one_span(loaded):
    """Gemma 3's processor writes a sentence between an image and its crops."""
    vlm = loaded("gemma3", dtype="float64")
    wide = picture(0, (128, 48))
    crops = {"do_pan_and_scan": True, "pan_and_scan_min_crop_size": 16, "pan_and_scan_min_ratio_to_activate": 1.2}
    inputs = vlm.processor.apply_chat_template(
        turns([{"type": "image", "image": wide}, text("How many?")]),
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"images_kwargs": crops},
    )
    places = (inputs["input_ids"][0] == vlm.parts.image_token_id).nonzero()[:, 0]
    assert len(places) > 16, "there are crops"
    ((span,),) = find_all_spans(vlm, inputs["input_ids"])
    assert (span.start, span.end) == (int(places[0]), int(places[-1]) + 1)


@pytest.fixture(scope="module")
def deepstack(loaded):
    return loaded("qwen3_vl", dtype="float64")


def hooks(model):
    return [name for name, module in model.named_modules() if module._forward_hooks or module._forward_pre_hooks]


def test_tokens_know_their_conversation_and_turn(deepstack):
    rows = conversations(deepstack)
    batch = encoder_of(deepstack).encode(rows)
    scores = teacher_forced(deepstack, batch, {})
    assert scores.names == ("own",)
    assert len(scores.row) == int(batch.answers.sum())
    for row, messages in enumerate(rows):
        turns = scores.turn[scores.row == row]
        assert turns.unique().tolist() == list(range(sum(turn["role"] == "assistant" for turn in messages)))
        assert torch.equal(turns, turns.sort().values)


def test_answers_before_the_first_image_are_not_reached(deepstack):
    rows = conversations(deepstack)
    scores = teacher_forced(deepstack, encoder_of(deepstack).encode(rows), ABLATIONS)
    early = (scores.row == len(rows) - 1) & (scores.turn == 0)
    assert early.any()
    assert torch.equal(scores.logprobs[:, early], scores.logprobs[:1, early].expand(len(ABLATIONS) + 1, -1))


def test_no_image_is_the_same_as_another_image_that_is_hidden(deepstack):
    """With the image hidden everywhere, its content can't matter; its size still does."""
    rows = [[turns([image(seed), text("How many?")], "two")] for seed in (0, 1)]
    everywhere = {"no image": range(deepstack.num_layers)}
    scores = [teacher_forced(deepstack, encoder_of(deepstack).encode(row), everywhere) for row in rows]
    close(scores[0].logprobs[1], scores[1].logprobs[1])
    assert (scores[0].logprobs[0] - scores[1].logprobs[0]).abs().max() > 1e-4


def test_long_answers_run_in_rows_of_their_own(deepstack):
    """Windows longer than what they share with one another are not put side by side."""
    rows = [turns([image(0), text("Tell.")], "red blue three cups " * 12), *conversations(deepstack)[:2]]
    check(deepstack, rows, teacher_forced(deepstack, encoder_of(deepstack).encode(rows), ABLATIONS))


def test_running_out_of_memory_halves_the_batch_and_says_so(deepstack, caplog):
    batch = encoder_of(deepstack).encode(conversations(deepstack))
    expected = teacher_forced(deepstack, batch, ABLATIONS, ablation="blank")
    sizes = []

    def limited(module, args, kwargs):
        if not isinstance(kwargs["past_key_values"], PassingCache):  # ablated rows
            return
        sizes.append(args[0].shape[0])
        if sizes[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory (made by a test)")

    handle = deepstack.layers[-1].register_forward_pre_hook(limited, with_kwargs=True)
    try:
        with caplog.at_level(logging.WARNING):
            scores = teacher_forced(deepstack, batch, ABLATIONS, ablation="blank")
    finally:
        handle.remove()
    assert max(sizes) > 2
    assert scores.fitting == 1
    assert "going on with 1" in caplog.text
    for ours, theirs in zip(vars(scores).values(), vars(expected).values(), strict=True):
        if isinstance(ours, torch.Tensor) and ours.is_floating_point():
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
        elif isinstance(ours, torch.Tensor):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("family", ["gemma3", "llava_onevision", "idefics3"])
def test_parts_of_a_batch_score_as_the_whole(loaded, family):
    """Masks, positions and images of some conversations, as after running out of memory."""
    vlm = loaded(family, dtype="float64")
    batch = encoder_of(vlm).encode(conversations(vlm))
    inputs = decoder_inputs(vlm, on_device(vlm, batch.inputs))
    whole = run_with_ablated(vlm, inputs, None)
    for rows in ([0, 1, 2], [3, 5], [6]):
        part = run_with_ablated(vlm, take_rows(inputs, rows), None)
        for row, ours in zip(rows, part, strict=True):
            length = int(batch.lengths[row])
            torch.testing.assert_close(ours[:length], whole[row, :length], rtol=0, atol=1e-10)


def test_other_errors_are_not_taken_for_memory_and_nothing_is_left_on_the_model(deepstack):
    batch = encoder_of(deepstack).encode(conversations(deepstack)[:2])
    before = teacher_forced(deepstack, batch, ABLATIONS)

    def fail(module, args, kwargs):
        raise RuntimeError("a layer failed")

    handle = deepstack.layers[2].register_forward_pre_hook(fail, with_kwargs=True)
    try:
        with pytest.raises(RuntimeError, match="a layer failed"):
            teacher_forced(deepstack, batch, ABLATIONS)
    finally:
        handle.remove()
    assert hooks(deepstack.model) == []
    assert torch.equal(teacher_forced(deepstack, batch, ABLATIONS).logprobs, before.logprobs)
    assert hooks(deepstack.model) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ablations": {"counting": [99]}}, "the model has 5"),
        ({"ablations": {"counting": [-1]}}, "the model has 5"),
        ({"ablation": "grey"}, "hide, blank, mean"),
        ({"ablation": "mean"}, "none was given"),
        ({"ablation": "mean", "mean": torch.zeros(3)}, r"shape \(3,\)"),
        ({"mean": torch.zeros(3)}, "does not use it"),
    ],
)
def test_what_cannot_be_scored_is_refused(deepstack, arguments, message):
    batch = encoder_of(deepstack).encode(conversations(deepstack)[:1])
    with pytest.raises(InputError, match=message):
        teacher_forced(deepstack, batch, **{"ablations": ABLATIONS, **arguments})


@pytest.mark.parametrize("family", ["llava", "gemma3", "paligemma"])
def test_eager_attention_gives_the_same(loaded, family):
    """Eager attention takes additive masks where sdpa takes boolean ones."""
    scores = []
    for attention in ("sdpa", "eager"):
        # Not float64: eager attention computes its softmax in float32, where padding's mask overflows to nan.
        vlm = loaded(family, dtype="float32", attn_implementation=attention)
        scores.append(teacher_forced(vlm, encoder_of(vlm).encode(conversations(vlm)), ABLATIONS))
    torch.testing.assert_close(scores[0].logprobs, scores[1].logprobs, rtol=0, atol=1e-3)

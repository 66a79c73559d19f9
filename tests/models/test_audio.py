"""Audio language models: the span is the audio tokens, and what is no sound is refused."""

import numpy as np
import pytest
import tiny
import torch
from scipy.io import wavfile

from vfl.errors import InputError
from vfl.io.audio import read_sound, sound_size
from vfl.models.conversation import encoder_of
from vfl.models.encode import Encoded

QUESTION = "What is in the sound?"


@pytest.fixture(scope="module")
def vlm(loaded):
    return loaded("qwen2_audio", dtype="float64")


def entry(sound):
    return {"type": "audio", "audio": sound}


def ask(vlm, *parts):
    return vlm.encode([{"role": "user", "content": [*parts, {"type": "text", "text": QUESTION}]}])


def test_the_span_is_the_audio_tokens(vlm):
    encoded = vlm.ask(QUESTION, tiny.sound())
    (span,) = encoded.spans
    is_audio = encoded.input_ids[0] == vlm.model.config.audio_token_id
    assert len(span) == int(is_audio.sum()) == 16
    assert is_audio[span.start : span.end].all()
    assert QUESTION in vlm.tokenizer.decode(encoded.input_ids[0, span.end :])
    assert vlm.shares_prefix
    assert not vlm.notes


def test_the_prompt_is_the_processors_own(vlm):
    """As transformers documents it: rendered text and samples to the processor, all it returns to the model."""
    messages = [{"role": "user", "content": [entry("sound"), {"type": "text", "text": QUESTION}]}]
    text = vlm.processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    inputs = vlm.processor(text=text, audio=tiny.sound(), sampling_rate=16_000, return_tensors="pt").to(torch.float64)
    encoded = vlm.ask(QUESTION, tiny.sound())
    assert encoded.inputs.keys() == inputs.keys()
    with torch.no_grad():
        theirs = vlm.model(**inputs).logits
        ours = vlm.model(**encoded.inputs, position_ids=encoded.positions).logits
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_equal_lengths_give_equal_spans_and_other_sounds_another_key(vlm):
    first, second, longer = (
        vlm.ask(QUESTION, tiny.sound(s, seconds)) for s, seconds in ((1, 0.64), (2, 0.64), (1, 0.8))
    )
    assert first.spans == second.spans != longer.spans
    assert first.image_key == vlm.ask("Who speaks?", tiny.sound(1)).image_key != second.image_key


def test_sounds_apart_are_spans_of_their_own(vlm):
    between = {"type": "text", "text": "and then"}
    encoded = ask(vlm, entry(tiny.sound(1)), between, entry(tiny.sound(2, 0.8)))
    assert [len(span) for span in encoded.spans] == [16, 20]


def test_a_file_sounds_like_its_samples(vlm, tmp_path):
    path = tiny.write_sound(tmp_path / "a.wav", seed=3)
    assert sound_size(path) == (10_240, 16_000)
    read = read_sound(path, 16_000)
    assert abs(read - tiny.sound(3)).max() < 1e-4
    by_name, by_place = (
        vlm.ask(QUESTION, path),
        vlm.encode([{"role": "user", "content": [{"type": "audio"}, {"type": "text", "text": QUESTION}]}], [str(path)]),
    )
    assert by_name.image_key == by_place.image_key


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_other_rates_are_resampled(vlm, tmp_path, rate):
    path = tiny.write_sound(tmp_path / "a.wav", rate=rate)
    assert len(vlm.ask(QUESTION, path).spans[0]) == 16


@pytest.mark.parametrize(("kind", "half"), [("uint8", 192), ("int16", 16384), ("int32", 1 << 30), ("float32", 0.5)])
def test_wave_formats_and_channels(tmp_path, kind, half):
    wavfile.write(tmp_path / "a.wav", 16_000, np.full((100, 2), half, dtype=kind))
    assert read_sound(tmp_path / "a.wav", 16_000) == pytest.approx(np.full(100, 0.5))


def test_frames_are_not_taken_for_tokens(vlm):
    """Though there may be as many of both."""
    inputs = {name: torch.ones(1, 100, dtype=torch.long) for name in ("input_ids", "feature_attention_mask")}
    cut = Encoded(inputs, torch.arange(100)[None], (), (), (), "").head(40)
    assert {name: value.shape[1] for name, value in cut.items()} == {"input_ids": 40, "feature_attention_mask": 100}


def test_what_is_no_sound_is_refused(vlm, tmp_path):
    (tmp_path / "empty.wav").touch()
    tiny.picture().save(tmp_path / "a.png")
    for name, problem in (("none.wav", "does not exist"), ("empty.wav", "cannot be read"), ("a.png", "cannot be read")):
        with pytest.raises(InputError, match=problem):
            vlm.ask(QUESTION, tmp_path / name)
    with pytest.raises(InputError, match=r"expected \(N,\) floating-point"):
        vlm.ask(QUESTION, tiny.sound()[None])
    with pytest.raises(InputError, match="type 'image'; expected 'text' or 'audio'"):
        ask(vlm, {"type": "image", "image": tiny.picture()})
    with pytest.raises(InputError, match="hold no audio"):
        ask(vlm)
    with pytest.raises(InputError, match="can be measured, not trained"):
        encoder_of(vlm)


def test_a_model_of_images_takes_no_sound(loaded):
    vlm = loaded("llava")
    with pytest.raises(InputError, match="type 'audio'; expected 'text' or 'image'"):
        ask(vlm, entry(tiny.sound()))

"""Equal and alike images and texts share hashes; others do not."""

import io

from PIL import Image
from tiny.pictures import picture

from vfl.select.hashes import exact, image_hash, perceptual, text_hash


def again(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return Image.open(buffer).convert("RGB")


def distance(one, other):
    return (perceptual(one) ^ perceptual(other)).bit_count()


def say(*texts):
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": [{"type": "text", "text": text}]} for i, text in enumerate(texts)]


def test_the_exact_hash_is_of_the_pixels():
    image = picture(0)
    assert exact(again(image, "PNG")) == exact(image) == exact(again(image, "BMP"))
    assert exact(again(image, "JPEG", quality=60)) != exact(image)
    assert exact(image.transpose(Image.Transpose.ROTATE_90)) != exact(image)


def test_the_perceptual_hash_stays_near_under_compression_and_resizing():
    for seed in range(5):
        image = picture(seed, (256, 192))
        assert distance(image, again(image, "JPEG", quality=60)) <= 4
        assert distance(image, image.resize((128, 96))) <= 6
        assert distance(image, picture(seed + 100, (256, 192))) >= 16


def test_a_row_s_images_are_hashed_one_by_one():
    both = image_hash([picture(0), picture(1)])
    assert both == ",".join([image_hash([picture(0)]), image_hash([picture(1)])])
    assert both.split(",")[1] == exact(picture(1))
    assert image_hash([]) == ""


def test_text_is_compared_without_case_and_spaces_but_with_roles_and_order():
    base = text_hash(say("How many cups?", "Three"))
    assert text_hash(say("  how  MANY\ncups?", "three")) == base
    assert text_hash(say("How many cups", "Three")) != base
    assert text_hash(say("Three", "How many cups?")) != base
    assert text_hash(say("How many cups? Three")) != base
    part = [{"type": "image"}, {"type": "text", "text": "How many cups?"}]
    assert text_hash([{"role": "user", "content": part}, *say("", "Three")[1:]]) == base

"""Every broken image is found before a run, with its row, in order."""

import json

import pytest
from PIL import Image

from vfl.data import BadRow, check_images, read


@pytest.fixture
def data(folder, turns, png):
    """A file whose images are sound, cut off, empty, no image, broken, and too large."""
    whole = (folder / "below" / "blue.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) - 20])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("not an image")
    broken = bytearray(png("red", (40, 40)))
    broken[60] ^= 0xFF
    (folder / "broken.png").write_bytes(broken)
    Image.new("1", (20_000, 20_000)).save(folder / "huge.png")  # 400 million pixels in 50 kB
    names = ["red.png", "cut.jpg", "empty.png", "below/blue.jpg", "text.png", "broken.png", "huge.png", "absent.png"]
    rows = [{"messages": turns("What?", "A"), "images": [name]} for name in names]
    rows += [{"messages": turns("What?", "A"), "images": ["red.png", "text.png"]}, {"messages": turns("Q", "A")}]
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_broken_images_are_found_in_order(data, workers):
    samples = list(read(data))
    bad = list(check_images(samples, workers))
    assert [row.where.removeprefix("data.jsonl line ") for row in bad] == ["2", "3", "5", "6", "7", "8", "9"]
    for row, name in zip(bad, ("cut", "empty", "text", "broken", "huge", "absent", "text"), strict=True):
        assert isinstance(row, BadRow)
        assert repr(f"{name}.{'jpg' if name == 'cut' else 'png'}") in row.reason
    assert "too large" in bad[4].reason
    by_where = {sample.where: sample.uid for sample in samples}
    assert all(by_where[row.where] == row.uid for row in bad)


def test_headers_alone_show_all_but_what_is_cut_off(data):
    found = {row.where.removeprefix("data.jsonl line ") for row in check_images(read(data), header_only=True)}
    assert found == {"3", "5", "7", "8", "9"}


def test_embedded_images_are_checked_alike(data, folder):
    """The same verdicts for the files' bytes, and messages that do not change from run to run."""
    from dataclasses import replace

    from vfl.data import Sample

    def embedded(sample):
        if isinstance(sample, BadRow):
            return sample
        return replace(sample, images=tuple(replace(i, data=i.path.read_bytes(), path=None) for i in sample.images))

    samples = list(read(data))
    from_files = list(check_images(samples))
    from_bytes = list(check_images(map(embedded, samples)))
    assert from_bytes == from_files
    assert any(isinstance(sample, Sample) for sample in samples)


def test_few_samples_wait_at_a_time(data):
    drawn = 0

    def counted():
        nonlocal drawn
        for _ in range(20):
            for row in read(data):
                drawn += 1
                yield row

    next(check_images(counted(), workers=2))
    assert drawn <= 12


def test_images_are_upright_and_in_rgb(folder, write, turns):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.new("RGB", (8, 4), "red").save(folder / "turned.jpg", exif=exif)
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(folder / "clear.png")
    Image.new("P", (4, 4)).save(folder / "palette.png")
    rows = [{"messages": turns("Q", "A"), "image": name} for name in ("turned.jpg", "clear.png", "palette.png")]
    turned, clear, palette = (sample.images[0].open() for sample in read(write("json", folder / "data", rows)))
    assert turned.size == (4, 8)
    assert clear.getpixel((0, 0)) == (255, 255, 255)
    assert {turned.mode, clear.mode, palette.mode} == {"RGB"}

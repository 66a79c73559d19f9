"""Every broken image is found before a run, with its row, in order."""

import json
import struct
import zlib

import pytest
from PIL import Image

from vfl.data import BadRow, check_images, read


def huge_png(side):
    """A PNG whose header promises side * side pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.fixture
def data(folder, turns, png):
    """A file whose images are sound, cut off, empty, no image, broken, and too large."""
    Image.effect_noise((64, 64), 50).save(folder / "cut.jpg")
    whole = (folder / "cut.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("not an image")
    broken = bytearray(png("red", (40, 40)))
    broken[60] ^= 0xFF
    (folder / "broken.png").write_bytes(broken)
    (folder / "huge.png").write_bytes(huge_png(20_000))
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


def test_formats_that_run_other_programs_are_not_opened(folder, write, turns):
    Image.new("RGB", (4, 4)).save(folder / "page.eps")
    (folder / "page.eps").rename(folder / "page.png")
    (bad,) = check_images(read(write("json", folder / "data", [{"messages": turns("Q", "A"), "image": "page.png"}])))
    assert "none of BMP, GIF, JPEG" in bad.reason


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


def test_a_picture_with_a_second_one_behind_it_is_read(folder, write, turns):
    """As phones write them: a JPEG of several pictures, which Pillow calls MPO."""
    first, second = Image.new("RGB", (6, 4), "red"), Image.new("RGB", (6, 4), "blue")
    first.save(folder / "phone.jpg", "MPO", save_all=True, append_images=[second])
    (sample,) = read(write("json", folder / "data", [{"messages": turns("Q", "A"), "image": "phone.jpg"}]))
    red, _, blue = sample.images[0].open().getpixel((0, 0))
    assert red > 200 > 50 > blue

"""Tar archives of samples: rows with their images, captions, packed archives, and broken ones."""

import json

import pytest

from vfl.data import BadRow, Sample, detect, read
from vfl.errors import InputError

IMAGE = {"type": "image"}


def row_of(value):
    return json.dumps(value).encode()


@pytest.mark.parametrize(("name", "mode"), [("data.tar", "w"), ("data.tar.gz", "w:gz"), ("data.tgz", "w:gz")])
def test_images_come_with_the_row(tmp_path, turns, png, write_tar, name, mode):
    samples = [
        ("train/0001", {"json": row_of({"messages": turns("<image>\nWhat?", "Red.")}), "png": png("red")}),
        ("train/0002", {"jpg": png("blue"), "json": row_of({"messages": turns("What?", "Blue.")})}),
        ("train/0003", {"json": row_of({"messages": turns("Hello?", "Hello.")})}),
    ]
    path = write_tar(tmp_path / name, samples, mode)
    assert detect(path).container == "webdataset"
    red, blue, plain = read(path)
    assert [sample.uid for sample in (red, blue, plain)] == ["train/0001", "train/0002", "train/0003"]
    assert red.messages[0]["content"] == [IMAGE, {"type": "text", "text": "What?"}]
    assert blue.messages[0]["content"] == [IMAGE, {"type": "text", "text": "What?"}]
    assert red.images[0].open().getpixel((0, 0)) == (255, 0, 0)
    assert blue.images[0].open().getpixel((0, 0)) == (0, 0, 255)
    assert plain.images == ()
    assert red.where == f"{name} sample train/0001"


def test_the_row_says_which_member_is_which_image(tmp_path, turns, png, write_tar):
    members = {"a.png": png("red"), "b.png": png("blue")}
    for names in (["b.png", "a.png"], ["x/1.b.png", "x/1.a.png"], ["1.b.png", "other/1.a.png"]):
        row = {"messages": turns("<image> <image>?", "A"), "images": names}
        (sample,) = read(write_tar(tmp_path / "data.tar", [("x/1", {"json": row_of(row)} | members)]))
        assert [image.open().getpixel((0, 0)) for image in sample.images] == [(0, 0, 255), (255, 0, 0)]
    for names, reason in ((["c.png", "a.png"], "does not exist"), (["a.png"], "1 images in its columns")):
        row = {"messages": turns("<image> <image>?", "A"), "images": names}
        (bad,) = read(write_tar(tmp_path / "data.tar", [("x/1", {"json": row_of(row)} | members)]))
        assert reason in bad.reason


def test_a_text_beside_an_image_is_its_caption(tmp_path, png, write_tar):
    samples = [
        ("1", {"jpg": png(), "txt": b"A green square.\n", "json": row_of({"width": 4, "caption": "unused"})}),
        ("2", {"jpg": png(), "txt": b"Another."}),
        ("3", {"txt": b"no image"}),
        ("4", {"jpg": png(), "txt": b"\xff"}),
        ("5", {"jpg": png()}),
    ]
    first, second, *bad = read(write_tar(tmp_path / "data.tar", samples))
    assert first.messages == (
        {"role": "user", "content": [IMAGE]},
        {"role": "assistant", "content": [{"type": "text", "text": "A green square."}]},
    )
    assert first.columns == {"width": 4, "caption": "unused"}
    assert isinstance(second, Sample)
    for row, reason in zip(bad, ("is empty", "not UTF-8", "neither a .json with a conversation nor"), strict=True):
        assert isinstance(row, BadRow)
        assert reason in row.reason


def test_an_id_in_the_row_goes_before_the_key_and_keys_may_repeat(tmp_path, turns, write_tar):
    row = {"messages": turns("Q", "A")}
    first = write_tar(tmp_path / "a.tar", [("1", {"json": row_of(row)}), ("2", {"json": row_of(row | {"id": 7})})])
    second = write_tar(tmp_path / "b.tar", [("1", {"json": row_of(row)})])
    assert [sample.uid for sample in read(first)] == ["1", "7"]
    uids = [sample.uid for sample in read([first, second])]
    assert uids[1] == "7"
    assert uids[0].endswith("#0")
    assert uids[2] == uids[0].removesuffix("#0") + "#1"


def test_other_files_belong_to_no_sample(tmp_path, turns, png, write_tar):
    import tarfile

    samples = [
        ("1", {"json": row_of({"messages": turns("Q", "A")}), "png": png(), "cls": b"3"}),
        ("._1", {"png": b"not an image"}),
        (".DS_Store", {"png": b""}),
    ]
    path = write_tar(tmp_path / "data.tar", samples)
    with tarfile.open(path, "a") as archive:
        for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE):
            member = tarfile.TarInfo(f"2{kind!r}.png")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    (sample,) = read(path)
    assert len(sample.images) == 1


@pytest.mark.parametrize("text", [b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_a_broken_row_is_one_bad_row(tmp_path, turns, png, write_tar, text):
    good = row_of({"messages": turns("Q", "A")})
    path = write_tar(tmp_path / "data.tar", [("1", {"json": text, "png": png()}), ("2", {"json": good})])
    bad, sample = read(path)
    assert isinstance(bad, BadRow)
    assert bad.uid == "1"
    assert isinstance(sample, Sample)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_cut_off_archive_says_where(tmp_path, turns, png, write_tar, mode):
    samples = [(f"{i}", {"json": row_of({"messages": turns("Q", "A")}), "png": png(size=(64, 64))}) for i in range(9)]
    path = write_tar(tmp_path / "data.tar.gz", samples, mode)
    whole = path.read_bytes()
    for size in (len(whole) // 2, len(whole) // 2 + 100, len(whole) // 3):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match="no intact tar archive"):
            list(read(path, format="messages"))


def test_names_in_capitals_are_seen(tmp_path, turns, png, write_tar):
    row = row_of({"messages": turns("What?", "Red.")})
    (sample,) = read(write_tar(tmp_path / "data.tar", [("1", {"JSON": row, "PNG": png()})]))
    assert len(sample.images) == 1
    (sample,) = read(write_tar(tmp_path / "data.tar", [("1", {"TXT": b"Red.", "JPG": png()})]))
    assert sample.messages[1]["content"] == [{"type": "text", "text": "Red."}]


@pytest.mark.parametrize(
    "samples",
    [
        [("photo.v1.0", {"json": b"{}"}), ("photo.v1.1", {"json": b"{}"})],  # one key, photo
        [("1", {"json": b"{}", "JSON": b"{}"})],
        [("1", {"json": b"{}"}), ("1", {"json": b"{}"})],
        [("1", {"txt": b"a", "b.txt": b"b", "png": b""})],
        [("1", {"txt": b"a", "png": b"a"}), ("1", {"png": b"b"})],
    ],
)
def test_two_files_for_one_thing_are_an_error(tmp_path, turns, write_tar, samples):
    row = row_of({"messages": turns("Q", "A")})
    samples = [(key, {end: row if data == b"{}" else data for end, data in files.items()}) for key, files in samples]
    good = ("2", {"json": row})
    bad, sample = read(write_tar(tmp_path / "data.tar", [*samples, good]), format="messages")
    assert isinstance(bad, BadRow)
    assert "has two files" in bad.reason
    assert isinstance(sample, Sample)

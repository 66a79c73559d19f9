"""No name in the data leads out of the image folder, by any way; links in it are the user's and are followed."""

import json
import os

import pytest

from vfl.data import BadRow, Sample, read


@pytest.fixture
def outside(folder, tmp_path_factory, png):
    """An image that lies elsewhere."""
    path = tmp_path_factory.mktemp("outside") / "secret.png"
    path.write_bytes(png())
    return path


@pytest.fixture
def read_image(folder, turns):
    """read_image(name) -> what a row whose image has this name becomes; images lie in `folder`."""

    def _read(name, **options):
        (folder / "row.json").write_text(json.dumps([{"messages": turns("What?", "A"), "images": [name]}]))
        (found,) = read(folder / "row.json", **{"images": folder} | options)
        return found

    return _read


@pytest.mark.parametrize("name", ["red.png", "./red.png", "below/../red.png", "below/blue.jpg", "below//blue.jpg"])
def test_names_inside_are_found(read_image, name):
    found = read_image(name)
    assert isinstance(found, Sample)
    assert found.images[0].name == name
    assert found.images[0].path.is_absolute()


def test_absolute_names_inside_are_found(read_image, folder):
    assert isinstance(read_image(str(folder / "red.png")), Sample)
    assert isinstance(read_image(f"file://{folder / 'red.png'}"), Sample)


def test_names_that_leave_are_refused(read_image, folder, outside):
    (folder / "linked").symlink_to(outside.parent)
    up = os.path.relpath(outside, folder)
    for name in (
        str(outside),
        up,
        f"below/../{up}",
        f"linked/../{up}",
        f"linked/../../{outside.parent.name}/secret.png",
        f"file://{outside}",
        "/etc/passwd",
    ):
        found = read_image(name)
        assert isinstance(found, BadRow), name
        assert "outside the image folder" in found.reason


def test_a_folder_that_begins_with_the_same_letters_is_outside(folder, turns, png):
    images, other = folder / "images", folder / "images-private"
    for one in (images, other):
        one.mkdir()
        (one / "a.png").write_bytes(png())
    (folder / "row.json").write_text(json.dumps([{"messages": turns("Q", "A"), "image": "../images-private/a.png"}]))
    (found,) = read(folder / "row.json", images=images)
    assert "outside the image folder" in found.reason


def test_links_are_followed_wherever_they_lead(read_image, folder, outside):
    """A data set that was linked in, a hub's cache whose files are links, and a folder that is one itself."""
    (folder / "below.png").symlink_to(folder / "below" / "blue.jpg")
    assert read_image("below.png").images[0].open().size == (5, 7)
    (folder / "blob.png").symlink_to(os.path.relpath(outside, folder))
    (folder / "coco").symlink_to(outside.parent)
    for name in ("blob.png", "coco/secret.png", str(folder / "coco" / "secret.png")):
        assert read_image(name).images[0].open().size == (4, 4)
    linked = folder.parent / f"{folder.name}-link"
    linked.symlink_to(folder)
    for name in ("red.png", str(linked / "red.png"), "coco/secret.png", str(linked / "coco" / "secret.png")):
        assert isinstance(read_image(name, images=linked), Sample), name


def test_two_dots_behind_a_link_stay_in_the_folder(read_image, folder, outside):
    """The system would take `coco/..` for the folder that the link leads to."""
    (outside.parent / "inner").mkdir(exist_ok=True)
    (folder / "coco").symlink_to(outside.parent / "inner")
    assert "does not exist" in read_image("coco/../secret.png").reason
    assert read_image("coco/../red.png").images[0].open().size == (8, 6)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("absent.png", "does not exist"),
        ("red.png/more", "does not exist"),
        ("below", "is no file"),
        (".", "outside|is no file"),
        ("nul\0.png", "cannot be read"),
        ("\ud800.png", "cannot be read"),
        ("x" * 5000, "cannot be read"),
        ("loop.png", "cannot be read|does not exist"),
    ],
    ids=range(8),
)
def test_names_that_are_no_image_files(read_image, folder, name, reason):
    (folder / "loop.png").symlink_to(folder / "loop.png")
    found = read_image(name)
    assert isinstance(found, BadRow)
    assert any(part in found.reason for part in reason.split("|")), found.reason


def test_without_an_image_folder_names_begin_where_the_data_lies(folder, turns):
    """And a file in a folder below does not reach up."""
    row = json.dumps([{"messages": turns("Q", "A"), "image": "red.png"}])
    (folder / "row.json").write_text(row)
    (folder / "below" / "row.json").write_text(row)
    above, below = read([folder / "row.json", folder / "below" / "row.json"])
    assert isinstance(above, Sample)
    assert "does not exist" in below.reason


def test_data_in_memory_has_no_folder_of_its_own(folder, write, turns):
    rows = [{"messages": turns("Q", "A"), "image": str(folder / "red.png")}]
    dataset = write("memory", folder, rows)
    (found,) = read(dataset)
    assert "say with `images`" in found.reason
    (found,) = read(dataset, images=folder)
    assert isinstance(found, Sample)

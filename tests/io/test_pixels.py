"""Images of more than 8 bits a channel keep their grey levels."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vfl.errors import InputError
from vfl.io.files import as_rgb, open_rgb
from vfl.io.pixels import image_of
from vfl.models.medium import read_image

RAMP = np.linspace(0, 1, 64).reshape(8, 8)
GREY = np.rint(255 * RAMP)


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("xray.png", (RAMP * 4095).astype(np.uint16)),  # 12 bits in 16
        ("depth.png", (20000 + RAMP * 40000).astype(np.uint16)),
        ("big_endian.tif", (RAMP * 65535).astype(">u2")),
        ("long.tif", (RAMP * 2**30).astype(np.int32)),
        ("negative.tif", (RAMP * 2000 - 1000).astype(np.int32)),  # Hounsfield units
        ("unit.tif", RAMP.astype(np.float32)),
        ("float.tif", (RAMP * 1e5 - 3).astype(np.float32)),
    ],
)
def test_grey_levels_survive_with_a_note(tmp_path: Path, caplog, name: str, pixels) -> None:
    Image.fromarray(pixels).save(tmp_path / name)
    shown = np.asarray(open_rgb(tmp_path / name))
    assert np.abs(shown[:, :, 0] - GREY).max() <= 1
    assert (shown == shown[:, :, :1]).all()
    assert "scaled by this range" in caplog.text


def test_bytes_in_a_wide_format_are_taken_as_they_are(tmp_path: Path, caplog) -> None:
    dark = np.arange(64, dtype=np.uint16).reshape(8, 8)
    Image.fromarray(dark).save(tmp_path / "dark.png")
    assert (np.asarray(open_rgb(tmp_path / "dark.png"))[:, :, 1] == dark).all()
    assert not caplog.records


def test_a_constant_image_stays_constant() -> None:
    assert np.ptp(np.asarray(as_rgb(Image.new("F", (4, 4), 7.5)))) == 0


def test_pixels_that_are_no_numbers_are_refused() -> None:
    holed = RAMP.astype(np.float32).copy()
    holed[0, 0] = np.nan
    with pytest.raises(InputError, match="not finite"):
        as_rgb(Image.fromarray(holed))


def test_arrays_are_images() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)
    assert (np.asarray(read_image(colours)) == colours).all()
    assert (np.asarray(read_image(colours[:, :, 0]))[:, :, 2] == colours[:, :, 0]).all()
    assert np.abs(np.asarray(read_image(RAMP))[:, :, 0] - GREY).max() <= 1
    assert image_of(np.zeros((4, 4), bool)).size == (4, 4)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((3, 8, 8), np.uint8), r"shape \(3, 8, 8\)"),
        (np.zeros((8, 8, 3), np.float32), "as bytes"),
        (np.zeros(5), "expected"),
        (3, "given as int"),
        (b"png", "given as bytes"),
    ],
)
def test_what_is_no_image_is_refused(image, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_image(image)

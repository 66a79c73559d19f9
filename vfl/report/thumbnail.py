"""Small pictures inside a page."""

import base64
import io

from PIL import Image

THUMBNAIL = 176  # pixels: two of them beside each other on a phone


def shrunk(image: Image.Image, largest: int = THUMBNAIL) -> Image.Image:
    """The picture with its longer side at most `largest` pixels, in proportion; never enlarged."""
    scale = min(1.0, largest / max(image.size))
    if scale == 1:
        return image
    return image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.LANCZOS)


def data_uri(image: Image.Image) -> str:
    """A picture as text, PNG or JPEG, whichever is smaller: drawings are smaller as PNG, photographs as JPEG."""
    encoded = []
    for kind in ("png", "jpeg"):
        buffer = io.BytesIO()
        image.save(buffer, kind, optimize=True)
        encoded.append((buffer.tell(), kind, buffer.getvalue()))
    _, kind, content = min(encoded)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"

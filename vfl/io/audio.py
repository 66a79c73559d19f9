"""Sound files that a user names: WAV, read with the standard formats that SciPy knows, as one channel at one rate."""

import struct
import warnings
from math import gcd
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vfl.errors import InputError

Samples = NDArray[np.float32]
SUFFIX = ".wav"


def is_sound(path: Path) -> bool:
    """Whether a file's name says that it is a sound."""
    return path.suffix.lower() == SUFFIX


def read_sound(sound: NDArray[np.generic] | str | Path, rate: int) -> Samples:
    """(N,) samples as the model hears them: one channel in -1 .. 1, `rate` a second.

    Args:
        sound: a WAV file of any rate, or (N,) samples that have the rate already.
        rate: samples a second.

    Raises:
        InputError: for a missing or unreadable file, by name, or an array of another shape.
    """
    if isinstance(sound, np.ndarray):
        if sound.ndim != 1 or not sound.size or not np.issubdtype(sound.dtype, np.floating):
            raise InputError(
                f"A sound was given as an array of {sound.dtype} and shape {sound.shape}; expected (N,) floating-point "
                f"samples at {rate} a second."
            )
        return sound.astype(np.float32)
    own, samples = _read(Path(sound))
    if own != rate:
        from scipy.signal import resample_poly  # a second of imports, which only sounds need

        shared = gcd(own, rate)
        samples = resample_poly(samples, rate // shared, own // shared)
    return samples.astype(np.float32)


def sound_size(path: Path) -> tuple[int, int]:
    """(samples, samples a second) of a WAV file: two sounds with the same have as many tokens.

    Raises:
        InputError: as `read_sound`.
    """
    rate, samples = _read(path)
    return len(samples), rate


def _read(path: Path) -> tuple[int, NDArray[np.float64]]:
    from scipy.io import wavfile

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # of chunks that hold no sound
            rate, samples = wavfile.read(path)
    except FileNotFoundError as error:
        raise InputError(f"sound {path} does not exist") from error
    except (OSError, ValueError, EOFError, struct.error) as error:
        raise InputError(f"sound {path} cannot be read ({error}); expected an intact WAV file") from error
    if not samples.size:
        raise InputError(f"sound {path} is empty; expected at least one sample")
    if samples.dtype == np.uint8:  # the one unsigned format, its silence is 128
        scaled = (samples.astype(np.float64) - 128) / 128
    elif np.issubdtype(samples.dtype, np.integer):
        scaled = samples / -float(np.iinfo(samples.dtype).min)
    else:
        scaled = samples.astype(np.float64)
    return int(rate), scaled if scaled.ndim == 1 else scaled.mean(1)

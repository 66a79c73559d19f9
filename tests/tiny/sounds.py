"""Sounds to ask a tiny audio language model about."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.io import wavfile

RATE = 16_000
LENGTH = 0.64  # seconds: 16 audio tokens


def sound(seed: int = 0, seconds: float = LENGTH, rate: int = RATE) -> NDArray[np.float32]:
    """Tones that change every twentieth of a second: sounds of two seeds differ everywhere."""
    draws = np.random.default_rng(seed)
    count = round(seconds * rate)
    pitch = draws.uniform(100, 3000, size=count // (rate // 20) + 1).repeat(rate // 20)[:count]
    wave = 0.5 * np.sin(2 * np.pi * np.cumsum(pitch) / rate)
    return wave.astype(np.float32)


def write_sound(path: Path, seed: int = 0, **how: float) -> Path:
    """A sound as a WAV file of 16 bits."""
    samples = sound(seed, **how)
    wavfile.write(path, round(how.get("rate", RATE)), (samples * 32767).astype(np.int16))
    return path

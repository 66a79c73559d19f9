"""Tiny checkpoints of the real classes: `tiny.build("qwen2_vl", folder)` writes one that the Auto classes load offline.

Weights are random but fixed, processors and tokenizers are the families' own with vocabularies made here. FACTS.md says
what was observed of each family.
"""

from tiny.build import ALL, AUDIO, FAMILIES, FURTHER, build
from tiny.pictures import SIZE, messages, picture
from tiny.sounds import sound, write_sound

__all__ = ["ALL", "AUDIO", "FAMILIES", "FURTHER", "SIZE", "build", "messages", "picture", "sound", "write_sound"]

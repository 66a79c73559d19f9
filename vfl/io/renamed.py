"""Earlier spellings and what they are called now: refused with the new one named."""

# key of a YAML file or of --set -> (the key that there must be now, how to write it)
KEYS = {
    "match": ("match_rank", "match_rank: true"),
    "batch": ("batch_size", "batch_size: 16"),
    "attention": ("attn_implementation", "attn_implementation: sdpa"),
    "strict": ("on_bad_row", "on_bad_row: error (the default), or on_bad_row: skip"),
}
# (command, flag) -> flag; a command of "" is any
FLAGS = {
    ("", "--skip-bad-rows"): "--on-bad-row skip",
    ("", "--strict"): "--on-bad-row error (the default; --on-bad-row skip leaves bad rows out)",
    ("lora-config", "--match"): "--match-rank",
    ("", "--batch"): "--batch-size",
    ("", "--attention"): "--attn-implementation",
}


def renamed_key(key: str, known: list[str]) -> str:
    """How an earlier key is written now, where the settings at hand know the new one; else an empty text."""
    now, how = KEYS.get(key, ("", ""))
    return how if now in known else ""


def renamed_flag(arguments: list[str]) -> tuple[str, str] | None:
    """The first earlier flag on a command line and what it is now."""
    command = next((word for word in arguments if not word.startswith("-")), "")
    for word in arguments:
        flag = word.partition("=")[0]
        for name in ("", command):
            if (name, flag) in FLAGS:
                return flag, FLAGS[name, flag]
    return None

"""The adapter: its LoRA configuration, its files, its card, and merging it."""

"""Studies: one recipe in several arms, learning rates and seeds."""

"""The controlled experiment: one recipe in several arms and seeds."""

"""What a run will cost, from a model's config alone: operations, time on a card, memory and disk."""

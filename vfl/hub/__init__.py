"""Results on the Hugging Face hub: adapters and merged models, function maps, subsets, each with its card."""

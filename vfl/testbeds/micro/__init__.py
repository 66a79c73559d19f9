"""The embedded model: a small vision-language model with planted function layers, its data, training and evaluation."""

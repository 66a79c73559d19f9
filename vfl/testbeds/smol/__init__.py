"""A small vision-language model around a pretrained language model (SmolLM2-135M): nobody planted its layers."""

"""Scoring: what each row's answer needs of the image, from one pass of the model."""

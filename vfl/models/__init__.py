"""Models: families, loading, encoding, and what is checked before a model is used."""

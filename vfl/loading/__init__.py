"""Loading a model, and what is checked on it before any result relies on it."""

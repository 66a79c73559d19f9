"""Which decoder layers are trained."""

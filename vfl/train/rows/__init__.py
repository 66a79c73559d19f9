"""Training rows: read, checked, measured, and put together as batches."""

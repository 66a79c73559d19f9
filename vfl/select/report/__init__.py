"""What a person reads of a selection."""

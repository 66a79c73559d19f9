"""The chosen rows as data to train on."""

"""What a person reads of a measurement: the page, its figures and the guide to each metric."""

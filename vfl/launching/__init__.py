"""The processes of one run, as torchrun and its like start them."""

"""Models whose making is known, to judge methods on."""

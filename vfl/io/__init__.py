"""What every room stands on: files that appear whole or not at all, settings, images and sounds, lists of layers."""

"""Drift: how far new images, and the answers to them, are from those that a bundle was tested on; no torch."""

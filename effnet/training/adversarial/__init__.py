"""Adversarial images: attacks on a network, and training on them with BatchNorm of their own."""

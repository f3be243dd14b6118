"""Smaller and faster networks from a trained one: pruning, quantization, and the ladder that tries them."""

"""Make a trained network smaller and faster: pruning, quantization, and the search over quantization steps."""

"""What `python -m benchmarks.hostile` does to effnet: the inputs of an adversary and of an unlucky user."""

"""Attacks of `python -m benchmarks.hostile`: inputs of an adversary and of an unlucky user."""

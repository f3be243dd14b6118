"""Search a network for the digits of scikit-learn under 300,000 multiply-accumulates, and say what was found:

    python examples/search_a_network.py found

A real search takes an hour: leave out `trainings`, `images` and `epochs`, and give more minutes.
"""

import sys

import effnet

out = sys.argv[1] if len(sys.argv) > 1 else "found"
result = effnet.search("digits", max_macs=300_000, trainings=4, images=200, epochs=2, minutes=2, out=out)

searched = result.searched
for row in searched.networks:
    kind = "scaled" if row.scaled else "searched"
    print(f"{row.value:6.1%}  {row.figures['macs']:9,.0f} MACs  {kind:8}  {row.title}")
print(searched.sentence)
print(f"{result.test_accuracy:.1%} on the test images, {result.latency_ms:.3f} ms")

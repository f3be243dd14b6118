"""Costs against the counts that were published with 1,944 trained networks."""

import itertools
import json

from benchmarks.nas_tables import MACRO_FILE, macro_network
from effnet.arch.cost import cost


def test_the_cost_of_every_expressible_network_is_the_published_one(shared_data):
    """Those whose stages all begin with an MBConv block: 2 x 3 x (2 x 3 x 3)^2 of the 6,561."""
    published = json.loads((shared_data("nas_bench_macro") / MACRO_FILE).read_text(encoding="utf-8"))
    stages = [list(itertools.product((1, 2), *[(0, 1, 2)] * rest)) for rest in (1, 2, 2)]
    genomes = [sum(parts, ()) for parts in itertools.product(*stages)]
    assert len(genomes) == 1944
    for genome in genomes:
        row, found = published["".join(map(str, genome))], cost(macro_network(genome))
        assert (found.params, found.macs) == (row["params"], row["flops"]), genome

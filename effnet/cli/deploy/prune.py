"""prune: make a bundle smaller and faster."""

from typing import TYPE_CHECKING, Any

from effnet.cli.configs import takes_options
from effnet.cli.console import TerminalListener, amount, print_table, print_text
from effnet.cli.options import Bundle, Data
from effnet.jobs.prune.config import PruneConfig
from effnet.system.text import both

if TYPE_CHECKING:
    from effnet.jobs.prune.api import PruneResult


@takes_options(PruneConfig, bundle=Bundle, data=Data)
def prune(values: dict[str, Any]) -> None:
    """Make a bundle smaller and faster: prune the least important channels, then fine-tune.

    A classifier learns from the original too (knowledge distillation). A detector or a segmenter loses channels of its
    backbone, and learns from its annotations.
    """
    from effnet import prune as prune_bundle

    with TerminalListener() as listener:
        result = prune_bundle(**values, listener=listener)
    _print_result(result)


def _print_result(result: "PruneResult") -> None:
    from effnet.tasks.registry import find_task

    report = result.report
    figure = find_task(report["task"]).figure
    rows = [
        (
            name,
            amount(side["params"]),
            amount(side["macs"]),
            side["blocks"],
            f"{side['latency_ms']:.3g}",
            both(side[f"test_{figure.key}"], side.get("test_balanced_accuracy")),
        )
        for name, side in (("original", report["before"]), ("now", report["after"]))
    ]
    print_table(("network", "params", "MACs", "blocks", "p50 ms", f"test {figure.title}"), rows, left=("network",))
    print_text(
        f"Latency is {report['latency_ratio']:.2f} of the original's in ONNX Runtime, with interleaved timing; "
        f"{figure.title} drop {report['points_lost']:+.2f} percentage points on "
        f"{report['after']['test_images']} images."
    )
    for warning in report["warnings"]:
        print_text(f"WARNING: {warning}")
    print_text(f"Bundle: {result.folder}")

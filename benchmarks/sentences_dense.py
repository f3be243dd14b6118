"""One sentence per record of detectors and segmenters, for the README."""

from collections.abc import Callable, Sequence
from statistics import mean, median
from typing import Any

Record = dict[str, Any]


def _span(values: Sequence[float]) -> str:
    return f"{mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def _sides(record: Record) -> str:
    """Return what each side reached in what time."""
    samples, minutes = record["samples"], record["details"]["minutes"]
    rivals = ", ".join(
        f"{name} {mean(samples[f'{kind}_ap']):.1f} / {mean(samples[f'{kind}_ap50']):.1f}"
        for kind, name in (("ssdlite", "SSDlite"), ("fcos", "FCOS"), ("effdet", "effdet's EfficientDet-Lite0"))
        if f"{kind}_ap" in samples
    )
    return (
        f"`effnet fit` from a Lite0 backbone in {minutes:g} minutes, {len(samples['effnet_ap'])} seeds: AP "
        f"{_span(samples['effnet_ap'])}, AP50 {_span(samples['effnet_ap50'])}; other heads on that backbone at "
        f"320 pixels in twice the minutes, AP / AP50: {rivals}"
    )


def _cards(record: Record) -> str:
    return f"objects on 67 photographs of playing cards, 296 for training, {_sides(record)}: AP50"


def _nuclei(record: Record) -> str:
    return f"cell nuclei, up to 329 in an image, {_sides(record)}: AP above the better of them"


def _int8(record: Record) -> str:
    samples = record["samples"]
    each = "; ".join(
        f"{name} {mean(samples[f'{name}_loses_ap']):+.2f} (scores correlate by "
        f"{mean(samples[f'{name}_correlation']):.3f})"
        for name in ("onnx-int8", "litert-int8", "openvino-int8")
    )
    return f"AP that detectors of cards lose in int8, {record['n']} seeds: {each}: the second-best runtime"


def _speed(record: Record) -> str:
    details, samples = record["details"], record["samples"]
    ratios = ", ".join(
        f"{median(samples[f'{runtime}_ratio']):.2f} in {name}"
        for runtime, name in (("onnxruntime", "ONNX Runtime"), ("litert", "LiteRT"))
    )
    return (
        f"a detector on Lite0 at 320 px, int8, one thread, with its post-processing ({median(samples['after_ms']):.2f} "
        f"ms), takes {ratios} of its backbone; effdet's EfficientDet-Lite0 (AP {details['ap']['effdet']:.1f} on cards) "
        f"through torch.onnx takes {details['times_at_320']:.1f} times as long, and {details['times']:.1f} times as "
        f"long as the detector that `fit` chose there (AP {details['ap']['effnet']:.1f}), whose file is "
        f"{details['size']:.2f} of its size"
    )


def _assigners(record: Record) -> str:
    samples, details = record["samples"], record["details"]
    each = "; ".join(
        f"{name}: {_span(samples[f'{name}_atss_ap50'])} (AP {mean(samples[f'{name}_atss_ap']):.1f}) and "
        f"{_span(samples[f'{name}_tal_ap50'])} (AP {mean(samples[f'{name}_tal_ap']):.1f})"
        for name in ("cards", "nuclei")
    )
    return (
        f"AP50 of detectors trained for {details['epochs']} epochs after their decoder, {record['n']} draws, with ATSS "
        f"and with the task-aligned assignment, {each}: the gain of the default, {details['usual']}"
    )


def _budgets(record: Record) -> str:
    met = sum("measured" in row for row in record["details"]["budgets"])
    return (
        f"random budgets of latency, size and memory for detectors and segmenters of three data sets: {met} met, "
        f"re-measured on the file with what follows it, {len(record['samples']['right']) - met} refused with the "
        "nearest feasible budget, which was then met"
    )


def _aerial(record: Record) -> str:
    samples = record["samples"]
    each = ", ".join(
        f"{name} {mean(samples[f'{kind}_miou']):.1f} % ({median(samples[f'{kind}_latency_ms']):.1f} ms a window)"
        for kind, name in (("pyramid", "the pyramid"), ("unet", "the separable U-Net"), ("smp", "smp's U-Net"))
    )
    return (
        f"mIoU of segmenters of aerial images split by tile, {record['details']['minutes']:g} minutes of two cores "
        f"each, {record['n']} seeds: {each}: the better of effnet's above smp's"
    )


SENTENCES: dict[str, Callable[[Record], str]] = {
    "detect_parity": lambda record: (
        f"raw outputs of {record['n']} EfficientDets with the random weights of effdet 0.4.1: the largest difference"
    ),
    "segment_parity": lambda record: (
        f"U-Nets on {record['n']} encoders with the random weights of segmentation_models_pytorch 0.6: the largest "
        "difference of a logit"
    ),
    "detect_cards": _cards,
    "detect_nuclei": _nuclei,
    "detect_int8": _int8,
    "detect_speed": _speed,
    "detect_assigners": _assigners,
    "budgets_dense": _budgets,
    "segment_aerial": _aerial,
}

"""One sentence per record of the server, of cameras and of audits, for the README."""

from collections.abc import Callable
from statistics import mean, median, stdev
from typing import Any

from scipy.stats import t

Record = dict[str, Any]


def _throughput(record: Record) -> str:
    details, samples = record["details"], record["samples"]
    return (
        f"`effnet serve` with Lite0: {median(samples['server_cpu_ms']):.1f} ms of processor time a request, "
        f"{details['requests_a_second']:.0f} requests a second, ready after {details['ready_s']:.1f} s, "
        f"{details['memory_mb']:.0f} MB: its processor time over decoding and running the same files in one process"
    )


def _rivals(record: Record) -> str:
    details = record["details"]
    return (
        f"`effnet serve` with Lite0 beside a FastAPI server of torch and timm ({details['requests_over_fastapi']:.1f} "
        f"times its requests a second, goal 3; 1/{details['memory_of_fastapi_over_ours']:.1f} of its memory, goal "
        f"1/3) and LitServe with the same ONNX file ({details['images_a_cpu_second_over_litserve']:.2f} times its "
        "images a processor second, goal 1.1): the smallest share of a goal"
    )


def _overload(record: Record) -> str:
    details = record["details"]
    return (
        f"`effnet serve` at three times its capacity, open loop, deadline 500 ms, {record['n']} times: 99 % of the "
        f"answers within {details['answered_p99_ms']:.0f} ms (goal {details['allowed_p99_ms']:.0f}), of the refusals "
        f"within {details['refused_p99_without_lateness_ms']:.0f} ms (goal {details['refused_goal_ms']:.0f}), memory "
        f"grew by {details['memory_growth_mb']:.0f} MB: answers in time"
    )


def _reload(record: Record) -> str:
    details = record["details"]
    sent = sum(details["sent"][part] for part in ("reloads", "rolling_update", "kill"))
    return (
        f"five reloads of a server, a rolling update of three replicas and a kill -9 behind HAProxy under load, "
        f"{sent:,} requests; the 99th percentile is {details['reloads_p99_over_quiet']:.1f} (reloads) and "
        f"{details['rolling_p99_over_quiet']:.1f} times (update) the quiet one, goal {details['p99_goal']:g}"
    )


def _hostile(record: Record) -> str:
    details = record["details"]
    return (
        f"hostile requests to `effnet serve` from 8 clients, {details['good_requests']:,} good ones beside them "
        f"({details['good_failed']} harmed): peak memory {details['peak_mb_above_start']:.0f} MB above the start (goal "
        f"{details['peak_goal_mb']:g})"
    )


def _scale(record: Record) -> str:
    return (
        f"p99 and answers in time of 1, 2 and 3 replicas behind HAProxy at three loads, as `effnet serve --plan` "
        f"simulates them: median difference {median(record['samples']['difference']):.1%}, the largest"
    )


def _watch(record: Record) -> str:
    details = record["details"]
    return (
        f"`effnet watch`, three cameras of {details['frames_a_second_sent']:g} frames a second in all and a model of "
        f"{details['service_ms']:g} ms: the age of an answered frame (99 %) over one frame interval and one service "
        "time"
    )


def _label_errors(record: Record) -> str:
    samples = record["samples"]
    each = "; ".join(
        f"{title} {mean(samples[f'{name}_random_precision']):.2f} (stated {mean(samples[f'{name}_random_stated']):.2f})"
        for name, title in (("imagenette_mini", "imagenette"), ("photos7", "photos7"), ("cifar", "CIFAR-10"))
    )
    return (
        f"5 % of the labels changed at random, `data inspect --weights` with Lite0, {record['n']} draws, precision of "
        f"as many listed as were changed: {each}; recall on imagenette {record['details']['recall']:.2f} (goal 0.8): "
        "precision there"
    )


def _duplicates(record: Record) -> str:
    kinds = ("jpeg", "crop", "half", "mirror", "grey")
    each = ", ".join(
        f"{kind} {mean(record['samples'][f'{name}_{kind}_found'][0] for name in ('photos7', 'imagenette_mini')):.0%}"
        for kind in kinds
    )
    return (
        f"copies that `data inspect --weights` finds, 60 of each kind in two sets ({each}); other pairs "
        f"{record['details']['most_other_pairs_an_image']:.1%} of the images (goal 1 %): the least"
    )


def _suggest(record: Record) -> str:
    samples, details = record["samples"], record["details"]
    return (
        f"accuracy with the {details['first']} first labels of CIFAR-10 that `effnet suggest` names, "
        f"{mean(samples['centres']):.1f} %, against random ones, {mean(samples['random_first']):.1f} %, {record['n']} "
        f"draws; {details['more']} more after {details['before']}: {details['gain_more']:+.1f}: the gain"
    )


def _minutes(record: Record) -> str:
    samples, details = record["samples"], record["details"]
    each = "; ".join(
        f"{title}, {minutes:g} minutes: {mean(samples[f'{name}_usual_{minutes:g}m']):.1f} %, the whole network from "
        f"the start {mean(samples[f'{name}_whole_{minutes:g}m']):.1f} % (gain "
        f"{_gain(details[f'{name}_over_whole_{minutes:g}m'])}), timm {mean(samples[f'{name}_timm_{minutes:g}m']):.1f} %"
        for minutes in details["minutes"]
        for name, title in (("cifar", "CIFAR-10"), ("fashion", "fashion"))
    )
    return (
        f"test accuracy of a fine-tuned Lite0, {details['labels_a_class']} labels a class, "
        f"{' and '.join(map(str, details['draws']))} draws: {each}: the smaller gain after "
        f"{details['minutes'][0]:g} minutes"
    )


def _gain(found: Record) -> str:
    return f"{found['gain']:+.1f} ({found['interval'][0]:+.1f} to {found['interval'][1]:+.1f})"


def _few_labels(record: Record) -> str:
    details = record["details"]
    settings = [name.removesuffix(" all") for name in details if name.endswith(" all")]
    each = "; ".join(
        f"{name.replace(':', ' ')} {_gain(details[f'{name} all'])}, fine-tuned {_gain(details[f'{name} finetune'])}"
        for name in settings
    )
    return (
        f"points of test accuracy over a plain head with few labels a class, {record['n']} draws, of a head on all "
        f"later stages and of fine-tuning (95 %): {each}: the least gain of fine-tuning where `fit` does it"
    )


def _unlabelled(record: Record) -> str:
    details = record["details"]
    rows = [(name, each) for name, each in details.items() if ":" in name]
    most = max(len(found["draws"]) for _, found in rows)
    fewer = {name: f", {len(found['draws'])} draws" if len(found["draws"]) < most else "" for name, found in rows}
    each = "; ".join(f"{name.replace(':', ' ')} {_gain(found)}{fewer[name]}" for name, found in rows)
    length = f"{details['minutes']:g} minutes" if details["epochs"] is None else f"{details['epochs']} epochs"
    return (
        f"`effnet fit --unlabelled` against the same fit without it, {length} each, {most} draws of labels, "
        f"points of test accuracy by data and labels a class (95 %): {each}: CIFAR-10 with 20 labels a class"
    )


def _unknowns(record: Record) -> str:
    details, draws = record["details"], len(record["samples"]["photos7_gain"])
    off = ", ".join(f"{name} {value:+.1f}" for name, value in details["off"].items())
    return (
        f"the score that `fit --set fit.unknown_score=auto` chooses, against held-out classes of three sets, "
        f"{draws} draws each: least gain {details['least']:+.1f}; the estimate less the truth: {off}: mean gain"
    )


def _over_seeds(gains: list[float]) -> str:
    """Return the mean with its 95 % t interval."""
    half = stdev(gains) / len(gains) ** 0.5 * float(t.ppf(0.975, len(gains) - 1))
    return f"{mean(gains):+.1f} ({mean(gains) - half:+.1f} to {mean(gains) + half:+.1f})"


def _robustness(record: Record) -> str:
    samples = record["samples"]
    each = "; ".join(
        f"{title} {_over_seeds(samples[f'{name}_corrupted_gain'])} of {mean(samples[f'{name}_usual_corrupted']):.1f} % "
        f"(kinds unlike those trained on {mean(samples[f'{name}_unlike_gain']):+.1f}, clean "
        f"{mean(samples[f'{name}_clean_gain']):+.1f}, {mean(samples[f'{name}_time_ratio']):.2f} times the time)"
        for name, title in (("imagenette", "imagenette"), ("cifar", "CIFAR-10"))
    )
    return (
        f"recipe `robust` against the usual fine-tuning, {record['details']['epochs']} epochs, {record['n']} seeds, "
        f"points of accuracy over ten corruptions (95 % over seeds): {each}: the smaller gain"
    )


SENTENCES: dict[str, Callable[[Record], str]] = {
    "serve_throughput": _throughput,
    "serve_rivals": _rivals,
    "serve_overload": _overload,
    "serve_reload": _reload,
    "serve_hostile": _hostile,
    "serve_scale": _scale,
    "watch_latency": _watch,
    "label_errors": _label_errors,
    "duplicates": _duplicates,
    "suggest": _suggest,
    "finetune_minutes": _minutes,
    "few_labels": _few_labels,
    "unlabelled": _unlabelled,
    "unknowns": _unknowns,
    "robustness": _robustness,
}

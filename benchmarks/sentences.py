"""One sentence per record, for the README."""

import statistics
from collections.abc import Callable
from typing import Any

from benchmarks import sentences_dense, sentences_serving

Record = dict[str, Any]

# Units of records written before their benchmark's words changed.
_OLDER_UNITS = {
    "points above the least asked": "pp above the reference accuracy",
    "points lost": "pp lost",
    "points": "pp",
    "budgets of 25 kept or rightly refused": "budgets of 25 met or correctly refused",
}


def says(record: Record) -> str:
    """Return the sentence of a record, or its name if it has no sentence."""
    name = record["name"]
    if name.startswith("main_job_"):
        return _main_job(record)
    return _SENTENCES[name](record) if name in _SENTENCES else name


def unit_of(record: Record) -> str:
    """Return the unit of a record in today's words."""
    unit: str = record["unit"]
    return _OLDER_UNITS.get(unit, unit)


def _main_job(record: Record) -> str:
    details, times = record["details"], record["samples"]["seconds"]
    latency = max(record["samples"]["latency_ms"])
    return (
        f"`effnet fit` on {details['data']}, at most {details['max_latency_ms']:g} ms, {details['minutes']:g} min of "
        f"training: lowest test accuracy of {record['n']} seeds (slowest file {latency:.2g} ms, longest fit "
        f"{max(times):.0f} s)"
    )


def _transfer(record: Record) -> str:
    samples = record["samples"]
    ours, theirs = min(samples["effnet_accuracy"]), max(samples["timm_accuracy"])
    return (
        "`effnet fit` of 600 photographs of ten classes from a Lite0 backbone, whole process, against a plain timm "
        f"script of 5 epochs: accuracy {ours:.1%} against {theirs:.1%}; features "
        f"{record['details']['feature_speedup']:.1f} times timm's images/s; at most "
        f"{max(samples['effnet_memory_mb']):.0f} MB"
    )


def _probe(record: Record) -> str:
    photos, nette = (statistics.mean(record["samples"][f"{data}_224"]) for data in ("photos7", "imagenette_mini"))
    return (
        f"linear probe of a real Lite0 backbone: photos7 {photos:.1f} % (20 training images per class, known 92.7 %), "
        f"imagenette_mini {nette:.1f} % (50 per class)"
    )


def _finetune(record: Record) -> str:
    head, tuned = (statistics.mean(record["samples"][f"{s}_accuracy"]) for s in ("head", "finetune"))
    return (
        f"fine-tuning against a linear probe, {record['details']['train_images_a_class']} training images per CIFAR-10 "
        f"class, Lite0 at 96 pixels: {head:.1f} % becomes {tuned:.1f} %"
    )


def _train_speed(record: Record) -> str:
    pairs = zip(record["details"]["sizes"], record["details"]["over_default"], strict=True)
    sizes = "; ".join(f"{side} pixels {ratio:.2f}" for (side, _), ratio in pairs)
    return (
        f"training steps of B0 on a CPU against timm's default loop: {sizes}; against its fastest settings "
        f"(channels last, torch.compile) at least {min(record['details']['over_best']):.2f}"
    )


def _train_memory(record: Record) -> str:
    ours, theirs = (statistics.median(record["samples"][f"{side}_mb"]) for side in ("effnet", "timm"))
    return (
        f"peak memory of training B0 at 224 pixels, batch 16: {ours:.0f} MB against timm's {theirs:.0f} MB, step time "
        f"{record['details']['time_ratio']:.2f} of timm's"
    )


def _input_speed(record: Record) -> str:
    ratios = {kind: record["details"][kind]["ratios"] for kind in ("enlarged", "mosaic")}
    uint8 = min(found["both_uint8"]["median"] for found in ratios.values())
    cached = min(found["kept_in_memory"]["median"] for found in ratios.values())
    return (
        "input pipeline, JPEG files of 500 x 375 to training batches of 224 pixels, per core, against timm's "
        f"loader in its fastest setting (both left unnormalised: {uint8:.2f}; from effnet's cache: {cached:.1f})"
    )


def _time_to_accuracy(record: Record) -> str:
    samples, details = record["samples"], record["details"]
    return (
        f"B0 from scratch on 9,800 images of CIFAR-10 at 32 pixels, whole processes: `effnet train`, "
        f"{details['epochs']} epochs of SGD, {min(samples['effnet_accuracy']):.1%}; timm's guide's settings "
        f"(RMSProp, RandAugment, erasing), {details['timm_epochs']} epochs, {max(samples['timm_accuracy']):.1%}"
    )


def _augment_speed(record: Record) -> str:
    return "training step of B0 at 128 pixels with the slowest augmentation policy, against no augmentation"


def _memory_prediction(record: Record) -> str:
    return "predicted training memory against the measured peak of the process: median error"


def _latency_table(record: Record) -> str:
    details = record["details"]
    return (
        f"latency of {len(details['networks'])} random networks predicted by a profile of "
        f"{details['profile_seconds']:.0f} s ({details['runtime']}, {details['precision']}): median error; that of "
        f"their memory is {details['memory_error']:.1f} %"
    )


def _int8_accuracy(record: Record) -> str:
    samples = record["samples"]
    losses = ", ".join(f"{name} {loss:.2f}" for name, loss in record["details"]["losses"].items())
    float32 = samples["onnx"][0]
    defaults = ", ".join(
        f"{name.removeprefix('default ')} {float32 - found[0]:.2f}"
        for name, found in samples.items() if name.startswith("default ")
    )  # fmt: skip
    return f"accuracy drop of int8 from {float32:.1f} %, SiLU and SE: {losses}; other tools' defaults: {defaults}"


def _prune_speed(record: Record) -> str:
    details = record["details"]
    before, after = details["accuracy"]
    return (
        f"latency in ONNX Runtime of a {details['network'].title()}, trained on 600 photographs of 10 classes, with "
        f"{details['macs'][1] / details['macs'][0]:.0%} of its multiply-accumulates, over that of the original; test "
        f"accuracy {before:.1%} becomes {after:.1%}"
    )


def _budgets(record: Record) -> str:
    rows = record["details"]["budgets"]
    kept = sum(row["right"] and row["exit_code"] == 0 for row in rows)
    refused = sum(row["right"] and row["exit_code"] != 0 for row in rows)
    advice = f"{refused} refused with the nearest feasible budget, which was then met" if refused else "none refused"
    wrong = len(rows) - kept - refused
    return (
        f"random budgets of latency, size and memory over three data sets: {kept} met, re-measured on the "
        f"file, {advice}{f', {wrong} neither' if wrong else ''}; training epochs each: {record['details']['epochs']}"
    )


def _explain(record: Record) -> str:
    details = record["details"]
    least = {name: f"{100 * mean:.1f} pp" for name, (_, mean, _) in details["intervals"].items()}
    return (
        f"activation maps of an ImageNet Lite0 on {details['images']} photographs: lower end of the least gain in the "
        f"area under the class's probability (insertion {least['insertion_over_centre']} above the centre prior and "
        f"{least['insertion_over_random']} above random maps; deletion {least['deletion_under_centre']} and "
        f"{least['deletion_under_random']} below)"
    )


def _deploy_speed(record: Record) -> str:
    details = record["details"]
    found = "; ".join(
        f"{name}: {row['timm_accuracy']:.1%} becomes {row['accuracy']:.1%}, {row['timm_ms']:.1f} ms become "
        f"{row['effnet_ms']:.1f}, {row['timm_mb']:.1f} MB become {row['effnet_mb']:.1f}"
        for name, row in details.items() if isinstance(row, dict)
    )  # fmt: skip
    return f"file deployed by `fit` against timm, torch.onnx, ONNX Runtime on 10 classes of photographs: {found}"


def _hostile(record: Record) -> str:
    return (
        "hostile inputs through the command line that run no code, read no other file, neither crash, hang for 60 s, "
        f"take 1 GB nor end in a traceback; among them {record['details']['mutants']:,} mutated files for all readers"
    )


def _users(record: Record) -> str:
    return (
        "inputs that users have, through the command line: split folders of many layouts, copies and patients, values "
        "of 12 bits, mirrored classes, wide images, HEIC, checkpoints of timm and torchvision, a time limit, huge files"
    )


def _search_table(record: Record) -> str:
    means = record["details"]["means"]

    def at(place: int, name: str) -> str:
        return "/".join(f"{means[f'{name} {limit} M'][place]:.2f}" for limit in (40, 60, 80))

    return (
        "search among the networks of NAS-Bench-Macro, at 40/60/80 M multiply-accumulates, test accuracy in percent: "
        f"surrogate after 20 trainings {at(0, 'surrogate')}, random after 100 {at(2, 'random')}; after 50 surrogate "
        f"{at(1, 'surrogate')}, evolution {at(1, 'evolution')}, reinforcement {at(1, 'reinforce')}, random "
        f"{at(1, 'random')}, the published reward {at(1, 'published')}. The gain is that of the surrogate over random "
        "at 50 trainings and 40 M"
    )


def _search_latency(record: Record) -> str:
    gains = ", ".join(f"{data} {found['gain']:+.2f}" for data, found in record["details"].items())
    return (
        "search among the networks of NAS-Bench-201 within their median measured latency, 50 trainings: gain of the "
        f"surrogate over random search in percentage points ({gains}), as a multiple of the demanded ones"
    )


def _search_gain(record: Record) -> str:
    details, samples = record["details"], record["samples"]
    extents = zip(details["gains"].items(), details["minutes"], details["seeds"], strict=True)
    each = "; ".join(
        f"at {budget} and {minutes:g} minutes of one core, {seeds} seed{'s' * (seeds > 1)}, "
        f"{statistics.mean(samples[f'search_{key}']):.1f} %, fit {statistics.mean(samples[f'fit_{key}']):.1f} % "
        f"({gain:+.1f}, {low:+.1f} to {high:+.1f})"
        for (budget, (gain, low, high)), minutes, seeds in extents
        for key in [budget.replace(" ", "")]
    )
    return (
        f"`effnet search` from scratch against `effnet fit` with trials in the same time, test accuracy on CIFAR-10, "
        f"{each}: the interval's upper end"
    )


def _grid_exact(record: Record) -> str:
    return "networks of B0's grid of compound scaling: largest difference from twice the base's exact cost"


def _words(record: Record) -> str:
    details = record["details"]
    named, hidden, seen, traded = (
        details[name]["mean"] for name in ("unseen_named", "generalised_unseen", "generalised_seen", "penalised_unseen")
    )
    return (
        f"`effnet align` on the titles of {details['photographs']:,} fashion photographs, a frozen Lite0, "
        f"{record['n']} draws: R@10 of 500 {details['recall_at_10']['mean']:.1f} %, five unseen types described by ten "
        f"titles told apart {details['unseen_described']['mean']:.1f} %, by their names alone {named:.1f} %; among all "
        f"{details['types']} types {hidden:.1f} % of the unseen and {seen:.1f} % of the seen are found, "
        f"{traded:.1f} % of the unseen with the penalty that validation chose: margin of the worse of the first two"
    )


def _find(record: Record) -> str:
    details = record["details"]
    return (
        f"`effnet find`: exact search of {details['rows']:,} embeddings of {details['width']} numbers on one thread "
        f"(95 % of queries {details['spread_ms'][0]:.0f} to {details['spread_ms'][1]:.0f} ms; a million: "
        f"{details['million_ms']:.0f} ms)"
    )


def _several_outputs(record: Record) -> str:
    samples, details = record["samples"], record["details"]

    def mean(key: str) -> float:
        return statistics.mean(samples[key])

    outputs = ", ".join(
        f"{name} {mean(f'{name}_joint'):.1f} % (alone {mean(f'{name}_alone'):.1f}, with 30 % of the cells empty "
        f"{mean(f'{name}_hidden'):.1f})"
        for name in details["gain"]
    )
    return (
        f"one fine-tuned network of three outputs beside one of each, {details['train']:,} product photographs, "
        f"{record['n']} draws: {outputs}; {mean('time_ratio'):.2f} times the processor time of one; mean error of the "
        f"year {mean('year_mae'):.2f} (of the median {mean('year_median_mae'):.2f}): least difference from a network "
        "of its own"
    )


def _several_int8(record: Record) -> str:
    losses = {key: statistics.mean(values) for key, values in record["samples"].items()}
    parts = [
        f"{title} "
        + ", ".join(f"{key.partition('_')[2]} {value:+.2f}" for key, value in losses.items() if runtime in key)
        for runtime, title in (("onnxruntime", "ONNX Runtime"), ("litert", "LiteRT"))
    ]
    return f"a network of four outputs in int8: points lost, {'; '.join(parts)}: the largest"


def _tags(record: Record) -> str:
    few, more = (statistics.mean(record["samples"][f"mean_average_precision_{number}"]) for number in (500, 1500))
    return (
        f"five tags of natural scenes, a head on a frozen Lite0 at 160 pixels, {record['n']} draws: mAP {few:.3f} with "
        f"500 training images (goal 0.89), {more:.3f} with 1,500 (goal 0.91): smaller margin"
    )


def _assemble_gain(record: Record) -> str:
    samples, details = record["samples"], record["details"]
    each = ", ".join(
        f"{name} {statistics.mean(samples[f'{name}_accuracy']):.1f} %"
        for name in ("assembled", "smaller images", "pruned", "narrower")
    )
    low, high = details["interval"]
    return (
        f"a fine-tuned Lite0 at half its latency, equal recovery, CIFAR-10 at {details['side']} pixels, {record['n']} "
        f"seeds: {each}; gain of the assembled network over the best of the others (95 % {low:+.1f} to {high:+.1f})"
    )


_SENTENCES: dict[str, Callable[[Record], str]] = (
    sentences_dense.SENTENCES
    | sentences_serving.SENTENCES
    | {
        "search_table": _search_table,
        "search_latency": _search_latency,
        "search_gain": _search_gain,
        "grid_exact": _grid_exact,
        "cold_help": lambda record: "`effnet --help`, cold start",
        "cold_predict": lambda record: "`effnet predict` of one image with B0, cold start",
        "transfer": _transfer,
        "probe": _probe,
        "explain": _explain,
        "finetune": _finetune,
        "train_speed": _train_speed,
        "train_memory": _train_memory,
        "input_speed": _input_speed,
        "time_to_accuracy": _time_to_accuracy,
        "augment_speed": _augment_speed,
        "memory_prediction": _memory_prediction,
        "latency_table": _latency_table,
        "int8_accuracy": _int8_accuracy,
        "prune_speed": _prune_speed,
        "budgets": _budgets,
        "deploy_speed": _deploy_speed,
        "hostile": _hostile,
        "users": _users,
        "words": _words,
        "several_outputs": _several_outputs,
        "several_int8": _several_int8,
        "tags": _tags,
        "find": _find,
        "assemble_gain": _assemble_gain,
    }
)

"""A report as `summarize` makes it, and checks of every page and card."""

import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from html.parser import HTMLParser

import numpy as np
from markdown_it import MarkdownIt

from effnet.report.html import render_card, render_html
from effnet.report.model import Report

NASTY = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7 * 7 }}{% endif %}",
    "a|b\nc\r\n| d |",
    "```\n# h",
    "$x^2$ _a_ **b** \\| \\",
    "[l](javascript:alert(1))",
    "白鳥の湖です",
    "قطة",
    "nul\x00 bell\x07 \u202eabc",
    "bad \udc80 name",
    "",
]
VOID = {"meta", "link", "br", "img"}


def sure(bins=((0.6, 0.5, 2), (0.9, 1.0, 8)), *, ece=0.031):
    """Return a score's calibration record, from each bin's confidence, accuracy and number of images."""
    keys = ("low", "high", "confidence", "accuracy", "images")
    rows = [dict(zip(keys, (c - 0.05, c + 0.05, c, a, n), strict=True)) for c, a, n in bins]
    return {"ece": ece, "nll": 0.2, "reliability": rows}


def sample(names=("cat", "dog"), *, wrong=1, latency=True):
    """Return a whole report as report.json holds it; tests change it before they read it with `typed`."""
    candidates = [
        {
            "name": f"{family} phi {phi}",
            "title": f"{family.upper()} x{1.1**phi:.2f}, 32 px",
            "family": family,
            "phi": phi,
            "resolution": 32,
            "weights": "",
            "precision": "fp32",
            "kept": 1.0,
            "kept_of": "macs",
            "trial_accuracy": None,
            "trial_rounds": 0,
            "waited": 0.0,
            "latency_ms": 2.0**phi if latency and phi > -3 else None,
            "params": int(4e5 * 2.0**phi),
            "macs": int(3e7 * 2.0**phi),
            "size_mb": 1.6 * 2.0**phi,
            "memory_mb": 20.0,
            "status": "taken" if (family, phi) == ("b0", 1) else "fits" if phi < 1 else "rejected",
            "reason": f"because of {names[0]}",
        }
        for family in ("b0", "v2_s")
        for phi in range(-3, 4)
    ]
    return {
        "honoured": True,
        "budget": {"latency_ms": 5.0, "params": 1000000, "macs": None, "size_mb": 4.0, "memory_mb": None},
        "measured": {"latency_ms": 3.9, "params": 812345, "macs": 31000000, "size_mb": 3.3, "memory_mb": 21.2},
        "task": "classification",
        "test_accuracy": 0.9889,
        "test_balanced_accuracy": 0.9889,
        "seconds": 93.2,
        "failures": [],
        "undecided": "",
        "busy": [],
        "time": None,
        "command": f"effnet fit {names[0]} --max-latency-ms 5",
        "options": [
            {"option": "--max-latency-ms", "value": "5", "usual": "", "changed": True, "about": f"Limit {names[0]}."},
            {"option": "--set fit.threads", "value": "1", "usual": "1", "changed": False, "about": "Threads."},
        ],
        "seed": 0,
        "created": "2026-11-22T14:00:00+00:00",
        "dataset": _dataset(names),
        "network": {
            "name": "b0 phi 1",
            "title": "B0 x1.10, 32 px",
            "lineage": {"base": "b0", "network": "b0", "scaled": "phi 1", "width": 1.1},
            "params": 812345,
            "macs": 31000000,
            "resolution": 32,
            "activation": "silu",
            "stages": [{"operator": "mbconv3", "resolution": 16, "stride": 2, "channels": 24, "layers": 2}],
        },
        "candidates": candidates,
        "num_candidates": len(candidates),
        "training": {
            "method": "scratch",
            "weights": "",
            "head": None,
            "epochs": _epochs(3),
            "best_epoch": 2,
            "stopped": "finished 3 epochs",
            "device": "cpu",
            "seconds": 60.0,
            "balance": {"method": "none", "strength": 1.0},
            "recipe": {"train": {"epochs": 3}},
        },
        "calibration": {
            "images": 269, "temperature": 0.4961, "threshold": None, "coverage": None, "max_error": None,
            "sentence": "No threshold was requested: the model always answers.",
        },
        "test": _test(names, wrong),
        "report_images": 0,
        "warnings": [],
        "export": {"images": 64, "max_difference": 3e-7, "agreement": 1.0},
        "deployed": {
            "format": "onnx", "file": "model.onnx", "runtime": "onnxruntime", "precision": "fp32", "ladder": None,
            "predicted": [],
        },
        "latency": {
            "p50_ms": 3.9, "p95_ms": 4.4, "least_ms": 3.8, "busy": False, "waited": 0.0, "rounds_ms": [3.9, 4.0, 4.1],
            "runs": 60, "measurements": [{"latency_ms": 3.9, "waited": 0.0}], "load_ms": 20.0, "threads": 1,
            "runtime": "onnxruntime 1.31.1", "batch": 1,
        },
        "machine": {"cpu": f"cpu {names[0]}", "cores": 2, "memory_gb": 23.4, "system": "Linux", "load": 0.1},
        "versions": {"effnet": "0.1.0", "python": "3.11.7"},
        "attempts": [
            {"name": "b0 phi 1", "title": "B0 x1.10, 32 px", "honoured": True, "failures": [], "seconds": 90.0}
        ],
    }  # fmt: skip


def _dataset(names):
    spread = {"minimum": 32, "median": 32, "maximum": 32}
    findings = {
        "name": names[0], "num_images": 1797, "num_examined": 1797,
        "classes": [{"name": name, "train": 629, "val": 135, "test": 135} for name in names], "widths": spread,
        "heights": spread, "median_short_side": 32,
        "shapes": {"low": 1.0, "median": 1.0, "high": 1.0, "crop_loss": 0.0}, "modes": [["RGB", 1797]],
        "channels": [[3, 1797]], "unreadable": [], "wrong_suffixes": [], "across_splits": [], "across_labels": [],
        "imbalance": 1.0, "small_classes": [], "skipped": [], "notes": [],
    }  # fmt: skip
    return {
        "name": names[0],
        "source": names[0],
        "class_names": list(names),
        "channels": 3,
        "counts": {"train": 1257, "val": 270, "test": 270},
        "lines": ["two  columns", names[0]],
        "notes": [names[-1]],
        "findings": findings,
    }


def _epochs(number):
    row = {
        "loss": 2.0, "val_loss": 1.5, "val_accuracy": 0.6, "learning_rate": 1e-3, "seconds": 1.0,
        "images_per_second": 100.0,
    }  # fmt: skip
    return [{"epoch": i + 1, **row} for i in range(number)]


def _test(names, wrong):
    count = len(names)
    confusion = 9 * np.eye(count, dtype=int)
    confusion[0, -1] += wrong
    mistake = {
        "index": 0, "source": f"folder/{names[0]}.png", "label": names[0], "predicted": names[-1], "probability": 0.91,
    }  # fmt: skip
    row = {"precision": 1.0, "recall": 0.9, "f1": 0.95, "support": 9}
    return {
        "images": 9 * count + wrong,
        "accuracy": 0.9889,
        "balanced_accuracy": 0.9889,
        "lowest": None,
        "confidence": [0.97, 0.998],
        "most_frequent": {"name": names[0], "share": 0.5},
        "chance": "",
        "clean": None,
        "bootstrap": [0.97, 1.0],
        "balanced_bootstrap": [0.97, 1.0],
        "top5": 1.0,
        "sureness": sure(),
        "uncalibrated": sure(((0.5, 0.9, 10),), ece=0.14),
        "risk_coverage": [[0.999, 0.2, 0.0], [0.95, 0.5, 0.0], [0.8, 0.9, 0.025], [0.7, 0.96, 0.04], [0.4, 1.0, 0.1]],
        "aurc": 0.01,
        "answered": None,
        "unknown": None,
        "confusion": confusion.tolist(),
        "per_class": [{"name": name, **row} for name in names],
        "mistakes": [mistake] * wrong,
    }


def typed(some):
    """Return the report that report.json holds."""
    return Report.from_dict(some)


def page_of(some, *, images=(), draws=True):
    """Return the checked page of a report as report.json holds it."""
    return check_page(render_html(typed(some), images=images, draws=draws))


def card_of(some, *, tag="image-classification"):
    """Return the checked model card of a report as report.json holds it; `tag` is the hub's."""
    text = render_card(typed(some))
    check_card(text, tag=tag)
    return text


def pretrained(some, method, *, name="timm/tf_efficientnet_lite0.in1k", epochs=3, best=2):
    """Return the report as that of a network that started from pretrained weights."""
    head = {
        "weights": name, "name": name, "network": "tf_efficientnet_lite0", "licence": "apache-2.0",
        "licence_source": "the model card on the hub", "origin": "timm, on the Hugging Face hub", "hub": name,
        "top1": 74.846, "top1_resolution": 224, "penalty": 0.01, "views": 2, "images": 1257, "val_figure": 0.55,
        "val_balanced_figure": 0.55, "val_loss": 1.7, "features": 2784, "computed": 270, "left_out": "",
        "seconds": 12.3,
    }  # fmt: skip
    training = some["training"] | {
        "method": method, "weights": name, "head": head, "epochs": _epochs(epochs), "best_epoch": best,
        "stopped": "finished 3 epochs" if epochs else "fitted the head on frozen features",
        "recipe": some["training"]["recipe"] if epochs else None,
    }  # fmt: skip
    candidates = [{**row, "weights": name, "phi": 0.0} for row in some["candidates"]]
    return {**some, "training": training, "candidates": candidates}


class Page(HTMLParser):
    """Checks that tags nest, and collects tags, attributes, ids and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], Counter(), [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)


def check_page(text):
    text.encode("utf-8")
    page = Page(text)
    assert not page.tags["script"]
    assert not any(name.startswith("on") for _, name, _ in page.attributes)
    for tag, name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
            assert value.startswith(("data:", "#")), (tag, name, value)
    assert not re.search(r"url\((?!#)|@import", text)
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(svg)
    return page


def check_card(text, *, tag="image-classification"):
    text.encode("utf-8")
    front, body = re.fullmatch(r"---\n(.*?)\n---\n(.*)", text, re.DOTALL).groups()
    assert f"pipeline_tag: {tag}\n" in front
    tokens = MarkdownIt().enable("table").parse(body)
    kinds = Counter(token.type for token in tokens)
    lines = body.splitlines()
    for token in (token for token in tokens if token.type == "table_open"):
        rows = [lines[i] for i in range(*token.map)]
        assert len({row.count("|") for row in rows}) == 1
    inline = [child.type for token in tokens for child in token.children or []]
    assert not {"html_inline", "link_open", "image"} & set(inline)
    assert not kinds["html_block"]
    return kinds


def words_of(page):
    return " ".join(" ".join(page.text).split())

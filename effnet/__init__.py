"""effnet: from a folder of labelled images and a device budget to the most accurate EfficientNet that fits.

import effnet

result = effnet.fit("photos/", max_latency_ms=5)
model = effnet.load(result.folder)
print(model.predict(["cat.jpg"])[0].label)
"""

import os
from importlib import import_module

from effnet.system.telemetry import silence

TYPE_CHECKING = False  # importing typing takes ten milliseconds, during which Ctrl-C would print a traceback

if TYPE_CHECKING:
    from effnet.arch.catalog import NAMES, get_spec, published
    from effnet.arch.codec import spec_from_dict, spec_to_dict
    from effnet.arch.cost import Cost, cost
    from effnet.arch.describe import describe
    from effnet.arch.lineage import Lineage
    from effnet.arch.scale import scale, solve_phi
    from effnet.arch.spec import ArchSpec, BlockSpec, stage
    from effnet.bundle.weights import load_module
    from effnet.data.datasets import Dataset, read_dataset
    from effnet.data.inspection.inspect import inspect_dataset as inspect
    from effnet.data.preprocess import Preprocess
    from effnet.data.shards.write import write_shards as shard
    from effnet.jobs.align.job import AlignResult, align
    from effnet.jobs.audit.api import audit
    from effnet.jobs.audit.record import Audit
    from effnet.jobs.audit.suggest import Suggestions, suggest
    from effnet.jobs.bench import Bench, bench
    from effnet.jobs.explain.api import explain
    from effnet.jobs.export.api import export
    from effnet.jobs.find.api import Found, find
    from effnet.jobs.fit.api import FitResult, fit, train
    from effnet.jobs.hub import from_pretrained, push_to_hub
    from effnet.jobs.import_checkpoint import Imported, import_checkpoint
    from effnet.jobs.pretrain.job import PretrainResult, pretrain
    from effnet.jobs.profile import profile
    from effnet.jobs.prune.api import PruneResult, prune
    from effnet.jobs.pull import pull
    from effnet.jobs.quantize.api import QuantizeResult, quantize
    from effnet.jobs.robustness.evaluate import evaluate
    from effnet.jobs.robustness.monitor import monitor
    from effnet.jobs.runs import Comparison, compare, runs
    from effnet.jobs.save import save
    from effnet.jobs.search.api import SearchResult, search
    from effnet.jobs.zeroshot import ZeroshotResult, zeroshot
    from effnet.measurement.profile.profile import DeviceProfile
    from effnet.measurement.speed.timing import time_model
    from effnet.nn.network import build
    from effnet.report.runs.read import Run
    from effnet.runtimes.predictor import Predictor, load
    from effnet.training.input.transforms import transforms
    from effnet.training.recipe.schema import Recipe
    from effnet.weights.create import create_model
    from effnet.weights.pretrained import Pretrained, load_pretrained
    from effnet.weights.state_dict import load_state_dict

silence()
# Read when torch loads its OpenMP: waiting threads must sleep. Spinning ones starve the working ones whenever
# something else runs on the same cores; a training step was 13 times slower beside one other busy process.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Loaded at first use, so that the command can handle Ctrl-C before any slow import: name -> module and name there.
# Those below "workshop" need the `train` extra.
_LAZY = {
    "NAMES": ("effnet.arch.catalog", "NAMES"),
    "get_spec": ("effnet.arch.catalog", "get_spec"),
    "published": ("effnet.arch.catalog", "published"),
    "spec_from_dict": ("effnet.arch.codec", "spec_from_dict"),
    "spec_to_dict": ("effnet.arch.codec", "spec_to_dict"),
    "Cost": ("effnet.arch.cost", "Cost"),
    "cost": ("effnet.arch.cost", "cost"),
    "describe": ("effnet.arch.describe", "describe"),
    "Lineage": ("effnet.arch.lineage", "Lineage"),
    "scale": ("effnet.arch.scale", "scale"),
    "solve_phi": ("effnet.arch.scale", "solve_phi"),
    "ArchSpec": ("effnet.arch.spec", "ArchSpec"),
    "BlockSpec": ("effnet.arch.spec", "BlockSpec"),
    "stage": ("effnet.arch.spec", "stage"),
    "Preprocess": ("effnet.data.preprocess", "Preprocess"),
    "Predictor": ("effnet.runtimes.predictor", "Predictor"),
    "load": ("effnet.runtimes.predictor", "load"),
    "Dataset": ("effnet.data.datasets", "Dataset"),
    "read_dataset": ("effnet.data.datasets", "read_dataset"),
    "inspect": ("effnet.data.inspection.inspect", "inspect_dataset"),
    "shard": ("effnet.data.shards.write", "write_shards"),
    "Bench": ("effnet.jobs.bench", "Bench"),
    "bench": ("effnet.jobs.bench", "bench"),
    "DeviceProfile": ("effnet.measurement.profile.profile", "DeviceProfile"),
    "Found": ("effnet.jobs.find.api", "Found"),
    "find": ("effnet.jobs.find.api", "find"),
    "profile": ("effnet.jobs.profile", "profile"),
    "time_model": ("effnet.measurement.speed.timing", "time_model"),
    "Comparison": ("effnet.jobs.runs", "Comparison"),
    "compare": ("effnet.jobs.runs", "compare"),
    "explain": ("effnet.jobs.explain.api", "explain"),
    "monitor": ("effnet.jobs.robustness.monitor", "monitor"),
    "Run": ("effnet.report.runs.read", "Run"),
    "runs": ("effnet.jobs.runs", "runs"),
    "Recipe": ("effnet.training.recipe.schema", "Recipe"),
    # workshop
    "Audit": ("effnet.jobs.audit.record", "Audit"),
    "audit": ("effnet.jobs.audit.api", "audit"),
    "Suggestions": ("effnet.jobs.audit.suggest", "Suggestions"),
    "suggest": ("effnet.jobs.audit.suggest", "suggest"),
    "AlignResult": ("effnet.jobs.align.job", "AlignResult"),
    "align": ("effnet.jobs.align.job", "align"),
    "evaluate": ("effnet.jobs.robustness.evaluate", "evaluate"),
    "FitResult": ("effnet.jobs.fit.api", "FitResult"),
    "fit": ("effnet.jobs.fit.api", "fit"),
    "train": ("effnet.jobs.fit.api", "train"),
    "build": ("effnet.nn.network", "build"),
    "export": ("effnet.jobs.export.api", "export"),
    "from_pretrained": ("effnet.jobs.hub", "from_pretrained"),
    "push_to_hub": ("effnet.jobs.hub", "push_to_hub"),
    "Imported": ("effnet.jobs.import_checkpoint", "Imported"),
    "import_checkpoint": ("effnet.jobs.import_checkpoint", "import_checkpoint"),
    "PretrainResult": ("effnet.jobs.pretrain.job", "PretrainResult"),
    "pretrain": ("effnet.jobs.pretrain.job", "pretrain"),
    "PruneResult": ("effnet.jobs.prune.api", "PruneResult"),
    "prune": ("effnet.jobs.prune.api", "prune"),
    "pull": ("effnet.jobs.pull", "pull"),
    "QuantizeResult": ("effnet.jobs.quantize.api", "QuantizeResult"),
    "quantize": ("effnet.jobs.quantize.api", "quantize"),
    "save": ("effnet.jobs.save", "save"),
    "SearchResult": ("effnet.jobs.search.api", "SearchResult"),
    "search": ("effnet.jobs.search.api", "search"),
    "ZeroshotResult": ("effnet.jobs.zeroshot", "ZeroshotResult"),
    "zeroshot": ("effnet.jobs.zeroshot", "zeroshot"),
    "load_module": ("effnet.bundle.weights", "load_module"),
    "transforms": ("effnet.training.input.transforms", "transforms"),
    "create_model": ("effnet.weights.create", "create_model"),
    "load_state_dict": ("effnet.weights.state_dict", "load_state_dict"),
    "Pretrained": ("effnet.weights.pretrained", "Pretrained"),
    "load_pretrained": ("effnet.weights.pretrained", "load_pretrained"),
}

__all__ = [
    "NAMES", "AlignResult", "ArchSpec", "Audit", "Bench", "BlockSpec", "Comparison", "Cost", "Dataset",
    "DeviceProfile", "FitResult", "Found", "Imported", "Lineage", "Predictor", "Preprocess", "PretrainResult",
    "Pretrained", "PruneResult", "QuantizeResult", "Recipe", "Run", "SearchResult", "Suggestions", "ZeroshotResult",
    "align", "audit", "bench", "build", "compare", "cost", "create_model", "describe", "evaluate", "explain",
    "export", "find", "fit", "from_pretrained", "get_spec", "import_checkpoint", "inspect", "load", "load_module",
    "load_pretrained", "load_state_dict", "monitor", "pretrain", "profile", "prune", "published", "pull",
    "push_to_hub", "quantize", "read_dataset", "runs", "save", "scale", "search", "shard", "solve_phi",
    "spec_from_dict", "spec_to_dict", "stage", "suggest", "time_model", "train", "transforms", "zeroshot",
]  # fmt: skip


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("effnet")
    if name not in _LAZY:
        raise AttributeError(f"module 'effnet' has no attribute {name!r}")
    module, attribute = _LAZY[name]
    try:
        value = getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        from effnet.errors import missing_extra

        raise missing_extra(error) or error from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

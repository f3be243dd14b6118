"""Model cards of bundles that words made: an image encoder aligned with captions, and a zero-shot classifier."""

from collections.abc import Sequence

from effnet.arch.cost import cost
from effnet.bundle.config import ModelConfig
from effnet.measurement.retrieval import RetrievalScore
from effnet.report.cards.published import UNKNOWN_LICENCE
from effnet.system.text import markdown, percent
from effnet.words.kept import Record

_LIMIT = (
    "It knows the domain of its captions: words that no caption of a similar image had are found far less often, and "
    "classes that were in no caption are confused with those that were."
)


def aligned_card(
    config: ModelConfig, record: Record, score: RetrievalScore, *, folder: str, notes: Sequence[str] = ()
) -> str:
    """Return README.md, as Markdown with the hub's metadata, of a bundle that `align` wrote."""
    told = "".join(f"\n- {markdown(note)}" for note in notes)
    digests = "".join(f"\n- `{name}`: SHA-256 `{digest}`" for name, digest in record.source_sha256.items())
    parts = (
        _metadata("image-feature-extraction"),
        f"# Images and words\n\n{_network(config)} It maps an image to a vector of {record.width} numbers, near those "
        f"of the texts that describe it.\n{told}",
        f"## Words\n\n{markdown(record.source)}, which is not of effnet: its licence applies.\n{digests}",
        f"## Retrieval\n\n{retrieval_sentence(score)} {_LIMIT}",
        f'## Use\n\n```sh\neffnet find {folder} IMAGES "blue shirt"\neffnet zeroshot {folder} "shirt,shoe"\n```',
        f"## Licence\n\n{UNKNOWN_LICENCE[0].upper()}{UNKNOWN_LICENCE[1:]}.",
    )
    return "\n\n".join(parts) + "\n"


def retrieval_sentence(score: RetrievalScore) -> str:
    """Return the retrieval of a bundle on its test pairs as a sentence."""
    low, high = score.interval
    return (
        f"Of {score.images} held-out images, each among {score.candidates}, {percent(score.recall_at_10, 1)} have "
        f"their own caption among the ten nearest (95 % CI {percent(low, 1)} to {percent(high, 1)}; "
        f"{percent(score.chance, 1)} at random), {percent(score.recall_at_1, 1)} as the nearest."
    )


def zeroshot_card(config: ModelConfig, *, folder: str, notes: Sequence[str]) -> str:
    """Return README.md of a bundle that `zeroshot` wrote."""
    told = "".join(f"\n- {markdown(note)}" for note in notes)
    names = ", ".join(markdown(name) for name in config.class_names[:50])
    parts = (
        _metadata("image-classification"),
        f"# Zero-shot classifier\n\n{_network(config)} Its {len(config.class_names)} classes are words, of which no "
        f"labelled image was needed: {names}.\n{told}",
        f"## Limits\n\n{_LIMIT} Its probabilities are calibrated only if labelled images were given.",
        f"## Use\n\n```sh\neffnet predict {folder} IMAGES\n```",
        f"## Licence\n\n{UNKNOWN_LICENCE[0].upper()}{UNKNOWN_LICENCE[1:]}.",
    )
    return "\n\n".join(parts) + "\n"


def _metadata(task: str) -> str:
    return "\n".join(["---", "library_name: effnet", f"pipeline_tag: {task}", "tags:", "- onnx", "---"])


def _network(config: ModelConfig) -> str:
    total = cost(config.arch)
    source = f", {markdown(config.origin.source)}" if config.origin else ""
    return (
        f"A network of the EfficientNet family, {config.arch.name}{source}: {total.params:,} parameters, "
        f"{total.macs / 1e9:.3f} billion multiply-accumulates at {config.preprocess.resolution} pixels."
    )

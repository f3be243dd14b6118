"""The metadata of an exported file, stored as its format does."""

import json

from effnet.bundle.config import ModelConfig


def model_metadata(config: ModelConfig) -> dict[str, str]:
    """Return class names, preprocessing, the network's name and the threshold, if there is one, as text.

    For a network without a classifier, whose file outputs features, the class names are an empty list.
    """
    threshold = {} if config.threshold is None else {"threshold": repr(config.threshold)}
    return {
        "class_names": json.dumps(list(config.class_names), ensure_ascii=False),
        "preprocess": json.dumps(config.preprocess.to_dict()),
        "network": config.arch.name,
        **threshold,
    }

"""What an exported file says of itself, in its format's own metadata."""

import json

from effnet.runtime.config import ModelConfig


def model_metadata(config: ModelConfig) -> dict[str, str]:
    """Return class names, preprocessing, the network's name and, where there is one, the threshold, as texts.

    Of a network without a classifier, whose file gives features, the class names are an empty list.
    """
    threshold = {} if config.threshold is None else {"threshold": repr(config.threshold)}
    return {
        "class_names": json.dumps(list(config.class_names), ensure_ascii=False),
        "preprocess": json.dumps(config.preprocess.to_dict()),
        "network": config.arch.name,
        **threshold,
    }

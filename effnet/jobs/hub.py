"""Bundles on the Hugging Face hub: download one as a module, and publish one."""

import os
from pathlib import Path

from effnet.arch.cost import cost
from effnet.bundle.config import read_config
from effnet.bundle.names import CONFIG, SCORE_ARRAYS, WEIGHTS
from effnet.errors import WeightsError
from effnet.nn.network import FeatureMaps, Network
from effnet.runtimes.registry import exports
from effnet.system.cache import network_forbidden
from effnet.system.text import printable
from effnet.weights.create import create_model
from effnet.weights.download import hub_file, hub_reason

_CARD = "README.md"
# A config may name many classes; weights of float64 have a header of the names.
_CONFIG_BYTES, _HEADER_BYTES = 16 * 2**20, 2**20
_HINT = "give USER/REPOSITORY of a bundle that push_to_hub published; a private one needs `hf auth login`"


def from_pretrained(
    repo: str | os.PathLike[str],
    *,
    revision: str | None = None,
    num_classes: int | None = None,
    in_chans: int | None = None,
    features_only: bool = False,
) -> Network | FeatureMaps:
    """Return the module of a bundle on the Hugging Face hub, or in a local folder, in evaluation mode.

    `repo` is user/repository or the folder; `revision` is a branch, a tag or a commit. The rest is as in
    `create_model`. Only config.json and model.safetensors are downloaded, into the hub's cache, and no code is run.
    Raises WeightsError if they cannot be downloaded, BundleError if they are not a bundle of effnet.
    """
    folder = Path(repo) if os.path.isdir(repo) else _download(os.fspath(repo), revision)
    read_config(folder)  # another folder is no bundle
    return create_model(folder, num_classes=num_classes, in_chans=in_chans, features_only=features_only).eval()


def _download(repo: str, revision: str | None) -> Path:
    """Return the folder of the bundle in the hub's cache."""
    shown = printable(repo)
    if network_forbidden():
        return _cached(repo, revision)
    config = hub_file(repo, CONFIG, limit_bytes=_CONFIG_BYTES, hint=_HINT, name=f"{shown}/{CONFIG}", revision=revision)
    total = cost(read_config(config.parent).arch)
    limit = _HEADER_BYTES + 8 * (total.params + total.buffers)
    # The commit of the config, so that both files are of one state of the repository.
    commit = config.parent.name
    hub_file(repo, WEIGHTS, limit_bytes=limit, hint=_HINT, name=f"{shown}/{WEIGHTS}", revision=commit)
    return config.parent


def _cached(repo: str, revision: str | None) -> Path:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, WEIGHTS, revision=revision)
    if not isinstance(found, str):
        raise WeightsError(f"{printable(repo)} is not downloaded yet, and HF_HUB_OFFLINE forbids the network")
    return Path(found).parent


def push_to_hub(folder: str | os.PathLike[str], repo: str, *, private: bool = False) -> str:
    """Publish the bundle in `folder` as the repository user/name on the Hugging Face hub, and return the commit's URL.

    The repository is created if there is none, private if asked. Published are config.json, the weights, the exports
    and the model card; not the report and split.json, which show or name your images, nor the run. Raises BundleError
    if `folder` is no bundle, WeightsError if the hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    path = Path(folder)
    read_config(path)
    models = [name for found in exports().values() for name in found.files]
    files = [
        file for name in dict.fromkeys((CONFIG, WEIGHTS, SCORE_ARRAYS, _CARD, *models)) for file in _files(path / name)
    ]
    operations = [CommitOperationAdd(file.relative_to(path).as_posix(), file) for file in files]
    try:
        api = HfApi()
        api.create_repo(repo, private=private, exist_ok=True)
        return api.create_commit(repo, operations, commit_message="Publish a bundle of effnet").commit_url
    # The hub's errors share no class, as in effnet.weights.download.
    except Exception as error:
        raise WeightsError(
            f"{path} cannot be published as {printable(repo)} ({hub_reason(error)}); log in with `hf auth login`, and "
            "give a repository that you may write to"
        ) from error


def _files(path: Path) -> list[Path]:
    """Return a file, the files of an export that is a folder, or nothing."""
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())

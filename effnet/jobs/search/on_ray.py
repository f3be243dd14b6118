"""One worker of a search on each node of a Ray cluster; Ray starts the same command there, and does nothing else."""

import shlex
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from effnet.errors import InputError, MissingExtraError
from effnet.jobs.fit.job import Job, command_line
from effnet.jobs.search.checks import config_of
from effnet.system.text import one_line, reason_of

# The last characters of a failed worker's output that are shown.
_TAIL = 500
_SECONDS = 10.0


def start_on_nodes(job: Job) -> None:
    """Start a worker on each node of the cluster and wait until all have ended.

    A worker that fails, or a node that dies, is reported; the others take over what it had in hand. Raises InputError
    without a storage that all nodes share, or if the cluster cannot be reached.
    """
    config = config_of(job)
    if config.storage is None:
        raise InputError(
            "workers on several nodes need a storage that all of them reach; got none. Give "
            "--storage postgresql://USER:PASSWORD@HOST/DATABASE, or a file on a shared disk"
        )
    try:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
    except ImportError as error:
        raise MissingExtraError("ray", "ray") from error
    _check_address(str(config.ray))
    try:
        ray.init(address=config.ray, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    except Exception as error:  # ray raises whatever its connection leads to
        raise InputError(f"--ray must be the address of a Ray cluster; {config.ray} cannot be reached: "
                         f"{reason_of(error)}") from error  # fmt: skip
    try:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        job.say(f"Starting a worker on each of {len(nodes)} nodes", heading=True)
        run: Any = ray.remote(num_cpus=0, max_retries=0)(_run)
        running = {
            run.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
                _words(job, node["NodeID"])
            ): node
            for node in nodes
        }
        while running:
            (done,), _ = ray.wait(list(running), num_returns=1)
            node = running.pop(done)
            try:
                code, told = ray.get(done)
            except ray.exceptions.RayError as error:
                code, told = 1, reason_of(error)
            address = node["NodeManagerAddress"]
            job.say(f"The worker on {address} has ended" + ("" if code == 0 else f" with exit code {code}: {told}"))
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    """Raise InputError if nothing listens at HOST:PORT; Ray itself tries for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon or "/" in address or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_SECONDS).close()
    except OSError as error:
        raise InputError(
            f"--ray must be the address of a Ray cluster; nothing answers at {address}: {reason_of(error)}"
        ) from error


def _words(job: Job, node: str) -> list[str]:
    """Return the command of the worker on a node, whose folder has the node in its name."""
    words = shlex.split(command_line(job))[1:]
    place = words.index("--out")
    return [*words[:place], "--out", f"{words[place + 1]}-{node[:8]}", *words[place + 2 :], "--resume"]


def _run(words: Sequence[str]) -> tuple[int, str]:
    """Run effnet's command on this node; return its exit code and the end of its output."""
    done = subprocess.run(
        [sys.executable, "-m", "effnet", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    return done.returncode, one_line(done.stdout.decode(errors="replace")[-_TAIL:])

"""A PostgreSQL server of a test's own, on a free port."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import pytest


def _binaries() -> Path | None:
    if found := shutil.which("pg_ctl"):
        return Path(found).parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


class Postgres:
    """A server that can be stopped and started again, with its data in a folder of its own."""

    def __init__(self) -> None:
        self._bin = _binaries()
        if self._bin is None:
            pytest.skip("no PostgreSQL server is installed")
        self.folder = Path(tempfile.mkdtemp(prefix="effnet-postgres-"))
        self._user = None
        if os.getuid() == 0:  # the server refuses to run as root
            try:
                self._user = pwd.getpwnam("postgres").pw_name
            except KeyError:
                pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
            shutil.chown(self.folder, self._user)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._run("initdb", "-D", "data", "-A", "trust", "-U", "effnet", "--no-sync")
        self.start()

    @property
    def url(self) -> str:
        """The database's URL."""
        return f"postgresql://effnet:secret@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start the server and wait for it."""
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._run("pg_ctl", "-D", "data", "-w", "-l", "log", "-o", options, "start")

    def stop(self) -> None:
        """Stop the server as a power failure would."""
        self._run("pg_ctl", "-D", "data", "-m", "immediate", "stop")

    def remove(self) -> None:
        """Stop the server, if it runs, and remove its data."""
        try:
            self.stop()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *words: str) -> None:
        command = [str(self._bin / program), *words]
        done = subprocess.run(
            command, cwd=self.folder, user=self._user, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stdout.decode(errors='replace')}")

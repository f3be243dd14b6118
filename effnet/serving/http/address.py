"""The address that a server listens on."""

import ipaddress
import socket

from effnet.errors import InputError


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address of this machine; raise InputError if it cannot be used."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(place)
        found.listen(1024)
        found.set_inheritable(True)
    except OSError as error:
        raise InputError(
            f"--host and --port must be a free address of this machine; {host}:{port}: "
            f"{(error.strerror or str(error)).lower()}"
        ) from error
    return found


def address_of(listening: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def is_local(host: str) -> bool:
    """Return whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

"""The address at which a command serves, taken before it loads a model."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retrieval.errors import UsageError

__all__ = ["bind", "format_url"]


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to the address but does not listen yet.

    Raises
    ------
    UsageError : the address is not one of this machine, or its port is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _cannot_listen(host, port, error) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _cannot_listen(host, port, error) from None
    return listener


def _cannot_listen(host: str, port: int, error: OSError) -> UsageError:
    from retrieval.errors import UsageError

    return UsageError(
        f"The server cannot listen at {host}, port {port} ({error.strerror}). Name an address of "
        f"this machine and a free port, or 0 for any free one."
    )


def format_url(listener: socket.socket) -> str:
    """Return the address at which a client finds the socket."""
    place, port = listener.getsockname()[:2]
    return f"http://[{place}]:{port}" if ":" in place else f"http://{place}:{port}"

"""What the edge makes of a REST that does not come to an answer."""

from __future__ import annotations

from pathlib import Path

import gevent
import pytest
from gevent import socket

from bridge.api.upstream import RestDown, Upstream


def test_a_request_cut_off_as_the_server_stops_is_answered_as_rest_down(tmp_path: Path) -> None:
    """gevent kills the greenlet; unheard, the visitor would get a 500 in plain text."""
    silent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    silent.bind(str(tmp_path / "rest.sock"))
    silent.listen(1)

    def ask() -> str:
        try:
            Upstream(str(tmp_path / "rest.sock")).ask("POST", "/api/v1/callbacks", [], b"{}")
        except RestDown:
            return "down"
        return "answered"

    asking = gevent.spawn(ask)
    connection, _ = silent.accept()
    assert connection.recv(1)
    asking.kill()
    assert asking.value == "down"
    connection.close()
    silent.close()


def test_nothing_listens(tmp_path: Path) -> None:
    with pytest.raises(RestDown):
        Upstream(str(tmp_path / "rest.sock"), running=lambda: False).ask("GET", "/healthz", [])

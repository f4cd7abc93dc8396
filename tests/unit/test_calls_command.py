"""`ringbridge calls`: what goes on, in words, for a terminal that no caller can write to."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from doubles.company import found_company
from doubles.postgres import postgres, settings  # noqa: F401 - fixtures
from rig import until

from bridge import cli
from bridge.commands.call_views import LONGEST, plain
from bridge.domain.call_words import missing, seconds, sentence, who
from bridge.domain.calls import CallEventType as T
from bridge.domain.calls import Cause, UnofferedReason
from bridge.domain.errors import Invalid, NotFound, SettingsError, Unavailable
from bridge.services.call_watch import CallWatch
from bridge.settings import Settings
from bridge.store.database import Sessions
from bridge.store.models import Agent, Attempt, AttemptChange, Call, CallEventRow

HOSTILE = "Bo\x1b[31m\x9b2J\u202eevil\r\n\u2028[bold]x[/bold]"
ADA = {"device": "PJSIP/101", "extension": "101", "number": None, "name": "101", "agent": "agent-1"}
BOB = {"device": "PJSIP/102", "extension": "102", "number": None, "name": "102", "agent": None}
CALLER = {"device": "PJSIP/trunk", "extension": None, "number": "+16465550155", "name": HOSTILE, "agent": None}
HIDDEN = {"device": "PJSIP/trunk", "extension": None, "number": None, "name": None, "agent": None, "withheld": True}
DID = {"device": None, "extension": None, "number": "+12125550101", "name": None, "agent": None}
NAMES = {"agent-1": "Ada"}


@pytest.fixture
def company(
    settings: Settings,
    sessions: Sessions,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Sessions:
    """Settings in a file, as a person has them, and two agents."""
    found_company(sessions, agents=2)
    with sessions.begin() as db:
        db.get_one(Agent, "agent-1").name = "Ada"
    file = tmp_path / "ringbridge.toml"
    database = f'[database]\nurl = "{settings.database.url.get_secret_value()}"\n' if settings.database.url else ""
    file.write_text(f'data_dir = "data"\n{database}[[pbx]]\nname = "lab"\nsecret = "x"\n', encoding="utf-8")
    monkeypatch.setenv("RINGBRIDGE_CONFIG", str(file))
    return sessions


def say(sessions: Sessions, call: str, seq: int, kind: str, **data: Any) -> None:
    """One event more, as the recorder writes it."""
    with sessions.begin() as db:
        row = db.get_one(Call, call)
        row.last_seq = seq
        renamed = {name.rstrip("_"): value for name, value in data.items()}
        at = row.started_at + timedelta(seconds=seq)
        db.add(CallEventRow(call_id=call, seq=seq, type=kind, at=at, data=renamed))
        if kind in (T.ENDED, T.MERGED):
            row.ended_at, row.state, row.cause = at, kind.partition(".")[2], data.get("cause")


def begin(sessions: Sessions, call: str, ago: float = 10, **more: Any) -> None:
    began = datetime.now(UTC) - timedelta(seconds=ago)
    values = {"pbx": "lab", "direction": "inbound", "from_party": CALLER, "to_party": DID, "client_id": "acme", **more}
    with sessions.begin() as db:
        db.add(Call(id=call, started_at=began, state="started", **values))
    say(sessions, call, 1, T.STARTED, direction="inbound", from_=CALLER, to=DID, attempt=None)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.cli, ["calls", *arguments])


def shown(*arguments: str) -> str:
    result = run(*arguments)
    assert result.exception is None, result.exception
    return result.stdout


# --- words ---


@pytest.mark.parametrize(
    ("kind", "data", "words"),
    [
        (T.STARTED, {"direction": "inbound", "from": HIDDEN, "to": DID}, "inbound call from number withheld to +1212"),
        (T.STARTED, {"direction": None, "from": None}, "not known yet from somebody unknown"),
        (T.STARTED, {"direction": "outbound", "from": ADA, "attempt": "a1"}, "Ada (PJSIP/101); dialled by us"),
        (T.QUEUED, {"queue": "support", "position": 2}, "Waits in queue support, position 2"),
        (T.UNQUEUED, {"queue": "support", "reason": "abandoned"}, "no more in queue support: the caller gave up"),
        (T.OFFERED, {"party": ADA}, "Ada (PJSIP/101) rings"),
        (T.OFFERED, {"party": BOB}, "102 rings"),
        (T.UNOFFERED, {"party": ADA, "reason": "answered_elsewhere"}, "rings no more: somebody else answered"),
        (T.CONNECTED, {"parties": [HIDDEN, ADA]}, "number withheld and Ada (PJSIP/101) hear"),
        (T.HELD, {"by": ADA}, "Ada (PJSIP/101) put the call on hold"),
        (T.RESUMED, {"by": ADA}, "took the call off hold"),
        (T.TRANSFERRED, {"kind": "blind", "by": ADA, "from": ADA, "to": BOB}, "call on to 102 (blind transfer)"),
        (T.TRANSFERRED, {"kind": "pickup", "by": BOB, "from": ADA, "to": BOB}, "102 picked the call up, which rang"),
        (T.MERGED, {"into": "c2"}, "Goes on as part of call c2"),
        (T.ENDED, {"cause": "completed", "answered_by": "pbx"}, "the PBX itself served the caller"),
        (T.ENDED, {"cause": "busy", "q850": 17, "ended_by": BOB}, "line was busy; 102 hung up; Q.850 cause 17"),
        (T.UNCERTAIN, {"since": "s", "until": "u"}, "Not seen: the link to the PBX was down from s to u"),
        ("call.new", {}, "call.new"),
    ],
)  # fmt: skip
def test_an_event_in_words(kind: str, data: dict[str, Any], words: str) -> None:
    assert words in sentence(kind, data, NAMES)


def test_every_event_cause_and_reason_has_words() -> None:
    for kind in T:
        for data in ({}, dict.fromkeys(("from", "to", "by", "party", "parties", "cause", "reason", "kind"))):
            assert ("knows no words" in sentence(kind, data, {})) == kind.startswith("pbx.")
    assert all(f"{cause}: {cause}" not in sentence(T.ENDED, {"cause": cause}, {}) for cause in Cause)
    assert all("{" not in sentence(T.UNOFFERED, {"party": ADA, "reason": why}, {}) for why in [*UnofferedReason, "new"])
    assert who("nonsense", {}) == who({}, {}) == "somebody unknown"
    assert [seconds(ms) for ms in (None, 1500, 61_000, 3_661_000)] == ["unknown", "1.5 s", "1:01", "1:01:01"]
    assert "event 3 is" in missing(3, 3)


def test_nothing_from_outside_moves_the_terminal() -> None:
    assert plain(HOSTILE) == "Bo?[31m?2J?evil???[bold]x[/bold]"
    assert plain("Zoë 张伟 👩‍🚒") == "Zoë 张伟 👩‍🚒"
    assert plain("\ud800") == "?"
    assert len(plain("x" * 5000)) == LONGEST


# --- the command ---


def test_calls_in_progress(company: Sessions) -> None:
    assert "No call is in progress" in shown()
    begin(company, "c1", agent_id="agent-1", queue="support")
    begin(company, "c2")
    say(company, "c2", 2, T.ENDED, cause="abandoned")
    table = run()
    assert "c1" in table.stdout and "c2" not in table.stdout
    caller = "Bo?[31m?2J?evil???[bold]x[/bold] (+16465550155)"
    for words in ("started", caller, "+12125550101", "Ada", "support", "Acme"):
        assert words in table.stdout
    assert "no listener has run for this PBX yet" in table.stderr
    assert not set(table.stdout) & set("\x1b\x9b\u202e\r\u2028")
    assert "abandoned" in shown("--all")
    assert "c1" not in shown("--state", "ended")
    assert [row["id"] for row in json.loads(shown("--all", "--json", "--limit", "1"))] == ["c2"]


def test_choosing_among_calls(company: Sessions) -> None:
    begin(company, "c1", 7200, agent_id="agent-1", customer_number="+16465550155")
    begin(company, "c2", client_id=None, pbx="lab")

    def ids(*arguments: str) -> list[str]:
        return [row["id"] for row in json.loads(shown("--json", *arguments))]

    with company.read() as db:
        username = db.get_one(Agent, "agent-1").username
    assert ids() == ["c2", "c1"]
    past = ["--until", "1h", "--since", "3h"]
    for chosen in (["--agent", username], ["--number", "(646) 555-0155"], ["--client", "Acme"], past):
        assert ids(*chosen) == ["c1"], chosen
    assert ids("--since", "1h") == ["c2"]
    assert ids("--pbx", "lab", "--state", "held") == []


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["nothing\x1b[2J"], NotFound),
        (["--since", "yesterday"], Invalid),
        (["--since", "99999999d"], Invalid),
        (["--pbx", "none"], SettingsError),
        (["--client", "none"], NotFound),
        (["--agent", "none"], NotFound),
        (["--follow", "--all"], SystemExit),
        (["c1", "--follow"], SystemExit),
        (["c1", "--agent", "x"], SystemExit),
    ],
)
def test_a_mistake_is_a_sentence(company: Sessions, arguments: list[str], error: type[BaseException]) -> None:
    result = run(*arguments)
    assert isinstance(result.exception, error)
    assert "\x1b" not in str(result.exception)


def test_one_calls_history(company: Sessions) -> None:
    begin(company, "c1", agent_id="agent-1", attempt_id="a1")
    begin(company, "k1")
    with company.begin() as db:
        now = datetime.now(UTC)
        db.add(Attempt(id="a1", created_at=now, client_id="acme", pbx="lab", number="+16465550155", state="failed"))
        db.flush()
        db.add(AttemptChange(attempt_id="a1", at=now, old="dialing", new="failed", reason="busy"))
        db.get_one(Call, "k1").merged_into = "c1"
    say(company, "c1", 2, T.OFFERED, party=ADA)
    say(company, "c1", 5, T.UNCERTAIN, since="2026-01-01T00:00:00Z", until="2026-01-01T00:00:09Z")
    say(company, "c1", 6, T.ENDED, cause="busy", q850=17, ended_by=CALLER)
    told = shown("c1")
    positions = [
        told.index(words)
        for words in (
            "ended, busy: the line was busy", "call k1", "An inbound call from Bo?[31m",
            "Ada (PJSIP/101) rings", "events 3 to 4 are missing",
            "Not seen: the link to the PBX was down", "Ended, busy", "dialing -> failed (busy)",
        )
    ]  # fmt: skip
    assert positions == sorted(positions)
    assert not set(told) & set("\x1b\x9b\u202e\r\u2028")
    document = json.loads(shown("c1", "--json"))
    assert [event["seq"] for event in document["events"]] == [1, 2, 5, 6]
    assert document["merged_calls"] == ["k1"]


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "here.toml"
    file.touch()
    monkeypatch.setenv("RINGBRIDGE_CONFIG", str(file))
    nothing = run()
    assert isinstance(nothing.exception, SettingsError) and "ringbridge init" in str(nothing.exception)
    file.write_text('[[pbx]]\nname = "lab"\nsecret = "x"\n', encoding="utf-8")
    none = run()
    assert isinstance(none.exception, Unavailable) and "no database yet" in str(none.exception)
    assert list(tmp_path.iterdir()) == [file]
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ringbridge.db").touch()
    old = run()
    assert isinstance(old.exception, Unavailable) and "ringbridge db upgrade" in str(old.exception)


# --- following ---


def test_each_event_is_told_once_and_in_order(company: Sessions) -> None:
    def look(watch: CallWatch) -> list[tuple[str, int]]:
        with company.read() as db:
            return [(event.call_id, event.seq) for _, event in watch.look(db, datetime.now(UTC))]

    begin(company, "old", 20)
    say(company, "old", 2, T.ENDED, cause="busy")
    begin(company, "day", 86_400)
    say(company, "day", 2, T.OFFERED, party=ADA)
    every = CallWatch({})
    hers = CallWatch({"agent_id": "agent-1"}, keep=timedelta(hours=1))
    assert look(every) == [("day", 1), ("day", 2)]
    assert (look(every), look(hers)) == ([], [])
    begin(company, "short", 5)
    say(company, "short", 2, T.ENDED, cause="busy")
    say(company, "day", 3, T.CONNECTED, parties=[CALLER, ADA])
    with company.begin() as db:
        db.get_one(Call, "day").agent_id = "agent-1"
    assert sorted(look(every)) == [("day", 3), ("short", 1), ("short", 2)]
    # Hers only now, and told from its beginning.
    assert look(hers) == [("day", 1), ("day", 2), ("day", 3)]
    say(company, "day", 4, T.ENDED, cause="completed")
    assert look(every) == look(hers) == [("day", 4)]
    assert [row.id for row in hers.calls()] == ["day"]
    assert every.calls() == []
    assert look(every) == look(hers) == []


@pytest.fixture
def following(company: Sessions) -> Iterator[subprocess.Popen[str]]:
    begin(company, "c1")
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "bridge.cli", "calls", "--follow", "--json"], stdout=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_following_prints_a_line_for_each_event(company: Sessions, following: subprocess.Popen[str]) -> None:
    assert following.stdout is not None
    first = json.loads(following.stdout.readline())
    assert (first["call"], first["seq"], first["pbx"], first["now"]["state"]) == ("c1", 1, "lab", "started")
    say(company, "c1", 2, T.ENDED, cause="busy")
    second = json.loads(following.stdout.readline())
    assert (second["type"], second["data"]["cause"], second["now"]["cause"]) == ("call.ended", "busy", "busy")
    following.send_signal(signal.SIGINT)
    assert following.wait(60) == 0


@pytest.mark.parametrize("settings", ["sqlite"], indirect=True)
def test_a_live_table_in_a_terminal(company: Sessions) -> None:
    begin(company, "c1")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "bridge.cli", "calls", "--follow"],
        stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm", "COLUMNS": "150"},
    )  # fmt: skip
    os.close(theirs)
    seen = bytearray()

    def read() -> None:
        try:
            while some := os.read(ours, 65_536):
                seen.extend(some)
        except OSError:
            return

    reader = threading.Thread(target=read)
    reader.start()
    try:
        until(lambda: b"1 call in progress" in seen, 60)
        assert b"Bo?[31m?2J?evil???[bold]x[/bold]" in seen
        say(company, "c1", 2, T.ENDED, cause="abandoned")
        until(lambda: b"abandoned" in seen and b"No calls in progress" in seen, 60)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        reader.join(30)
        os.close(ours)

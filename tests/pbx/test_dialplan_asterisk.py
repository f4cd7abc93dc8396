"""The dialplan through which Ringbridge calls, on a real Asterisk; the world's witness is believed, not the PBX."""

from __future__ import annotations

import re
import sqlite3
import time
import uuid
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest
from labs import asterisk_only

from ringbridge_lab import tones
from ringbridge_lab.ami import Ami
from ringbridge_lab.errors import LabError
from ringbridge_lab.lab import Behaviour, Lab, wait_until

pytestmark = [pytest.mark.pbx, asterisk_only]

ANSWERS, BUSY, SILENT, REJECTS = "+16465550101", "+16465550140", "+16465550150", "+16465550160"
HOSTILE, ESCAPED = r'([\\",])', r"\\\1"
PHONE_101_HZ, NUMBER_01_HZ = 330, 1010


def originate(lab: Lab, attempt: str, *, named: bool = True, **changes: str) -> None:
    """As Ringbridge does it; `named` gives the channel the attempt's id, which Asterisk then refuses twice."""
    number = changes.get("RB_NUMBER", ANSWERS)
    variables = {
        "RB_ATTEMPT": attempt,
        "RB_UNTIL": str(int(time.time()) + 30),
        "RB_FIRST": "agent",
        "RB_AGENT": "PJSIP/101",
        "RB_NUMBER": number,
        "RB_DIAL": f"PJSIP/{number}@trunk",
        "RB_CALLER": "+12125550100",
        "RB_AGENT_RING": "15",
        "RB_CUSTOMER_RING": "25",
    } | changes
    ids = {"ChannelId": attempt, "OtherChannelId": f"{attempt}-2"} if named else {}
    with command_user(lab) as ami:
        ami.action(
            "Originate",
            Channel="Local/first@ringbridge-leg",
            Context="ringbridge-go",
            Exten="second",
            Priority="1",
            Timeout="60000",
            Async="true",
            # AMI cuts a Variable header at commas and drops quotes, unless they are escaped.
            Variable=[f"{key}={re.sub(HOSTILE, ESCAPED, value)}" for key, value in variables.items()],
            **ids,
        )


def command_user(lab: Lab) -> Ami:
    return Ami(lab.state.ports.company_ami, "ringbridge-dial", lab.state.secrets.command)


def reader(lab: Lab) -> Ami:
    return Ami(lab.state.ports.company_ami, "ringbridge", lab.state.secrets.reader)


def dialled(lab: Lab, attempt: str) -> list[str]:
    return [row.number for row in lab.witness(attempt=attempt)]


def wait_dialled(lab: Lab, attempt: str, count: int) -> None:
    wait_until(
        lambda: len(dialled(lab, attempt)) >= count, seconds=30, what=f"{count} INVITEs of the attempt"
    )


def wait_talking(lab: Lab) -> None:
    """Both legs are up and the Local channels have gone."""

    def joined() -> bool:
        with lab.company_ami() as ami:
            rows = ami.command("core show channels concise").splitlines()
        return len(rows) == 2 and all("!Up!" in row and row.startswith("PJSIP/") for row in rows)

    wait_until(joined, seconds=30, what="agent and customer to be joined")


def has_receipt(lab: Lab, attempt: str, leg: str) -> bool:
    """Asked as Ringbridge asks, by the user that may not write."""
    with command_user(lab) as ami:
        try:
            ami.action("DBGet", Family="ringbridge", Key=f"{attempt}-{leg}")
        except LabError:
            return False
    return True


def receipt(lab: Lab, attempt: str, leg: str) -> str:
    """What it says: `dialed` or `answered`."""
    with lab.company_ami() as ami:
        said = ami.action("Command", Command=f"database get ringbridge {attempt}-{leg}")["Output"]
    found = re.fullmatch(r"Value: [0-9]{10}-(dialed|answered)", said.strip())
    assert found, said
    return found[1]


@pytest.fixture
def attempt() -> str:
    return str(uuid.uuid4())


@pytest.mark.parametrize(("first", "order"), [("agent", ["101", ANSWERS]), ("customer", [ANSWERS, "101"])])
def test_both_legs_are_dialled_once_and_hear_each_other(
    lab: Lab, attempt: str, first: str, order: list[str]
) -> None:
    originate(lab, attempt, RB_FIRST=first)
    wait_dialled(lab, attempt, 2)
    wait_talking(lab)
    rows = lab.witness(attempt=attempt)
    assert [row.number for row in rows] == order
    seen = {row.number: row.caller for row in rows}
    assert seen == {"101": ANSWERS, ANSWERS: "+12125550100"}, "each side is shown the right number"
    assert (receipt(lab, attempt, "agent"), receipt(lab, attempt, "customer")) == ("dialed", "answered")

    wait_until(
        lambda: all(lab.recording(row.leg).stat().st_size > 20_000 for row in rows),
        seconds=30,
        what="some talk to be recorded",
    )
    lab.hang_up_phone("101")
    lab.wait_idle()
    legs = {row.number: lab.recording(row.leg) for row in rows}
    assert hears(legs["101"], NUMBER_01_HZ) and not tones.has_tone(legs["101"], PHONE_101_HZ)
    assert hears(legs[ANSWERS], PHONE_101_HZ) and not tones.has_tone(legs[ANSWERS], NUMBER_01_HZ)


def test_the_call_keeps_the_attempts_id_when_the_local_channels_are_gone(lab: Lab, attempt: str) -> None:
    originate(lab, attempt)
    wait_dialled(lab, attempt, 2)
    wait_talking(lab)
    with lab.company_ami() as ami:
        names = [row.split("!")[0] for row in ami.command("core show channels concise").splitlines()]
        linked = {ami.action("Getvar", Channel=name, Variable="CHANNEL(linkedid)")["Value"] for name in names}
    assert linked == {attempt}


@pytest.mark.parametrize("number", [BUSY, REJECTS, "+16465550170"])
def test_a_customer_who_cannot_be_had_frees_the_agent(lab: Lab, attempt: str, number: str) -> None:
    originate(lab, attempt, RB_NUMBER=number)
    wait_dialled(lab, attempt, 2)
    lab.wait_idle()
    assert dialled(lab, attempt) == ["101", number]
    assert receipt(lab, attempt, "customer") == "dialed"


def test_who_answered_before_an_agent_did_has_a_receipt_that_says_so(lab: Lab, attempt: str) -> None:
    lab.phone("101", Behaviour.NO_ANSWER)
    originate(lab, attempt, RB_FIRST="customer")
    wait_dialled(lab, attempt, 2)
    assert receipt(lab, attempt, "customer") == "answered"


def test_the_customer_rings_only_so_long(lab: Lab, attempt: str) -> None:
    originate(lab, attempt, RB_NUMBER=SILENT, RB_CUSTOMER_RING="2")
    wait_dialled(lab, attempt, 2)
    lab.wait_idle()


@pytest.mark.parametrize("behaviour", [Behaviour.BUSY, Behaviour.REJECT, Behaviour.NO_ANSWER])
def test_no_customer_is_dialled_without_an_agent(lab: Lab, attempt: str, behaviour: Behaviour) -> None:
    lab.phone("101", behaviour)
    originate(lab, attempt, RB_AGENT_RING="2")
    wait_dialled(lab, attempt, 1)
    lab.wait_idle()
    assert dialled(lab, attempt) == ["101"]
    assert has_receipt(lab, attempt, "agent") and not has_receipt(lab, attempt, "customer")


@pytest.mark.parametrize("named", [True, False])
def test_a_second_originate_is_refused_while_it_rings_talks_and_after(
    lab: Lab, attempt: str, named: bool
) -> None:
    originate(lab, attempt, named=named)
    wait_dialled(lab, attempt, 1)
    originate(lab, attempt, named=named)
    wait_dialled(lab, attempt, 2)
    wait_talking(lab)
    originate(lab, attempt, named=named)
    refused_until_idle(lab, channels=2)
    lab.hang_up_phone("101")
    lab.wait_idle()
    originate(lab, attempt, named=named, RB_FIRST="customer")
    refused_until_idle(lab, channels=0)
    assert dialled(lab, attempt) == ["101", ANSWERS]


def test_of_many_at_once_one_dials(lab: Lab, attempt: str) -> None:
    """Without ids Asterisk itself refuses nothing, so the receipts alone decide."""
    lab.phone("101", Behaviour.NO_ANSWER)
    for _ in range(12):
        originate(lab, attempt, named=False)
    wait_dialled(lab, attempt, 1)
    refused_until_idle(lab, channels=3)
    assert dialled(lab, attempt) == ["101"]


@pytest.mark.parametrize("kill", [True, False])
def test_receipts_outlive_the_pbx(lab: Lab, attempt: str, kill: bool) -> None:
    originate(lab, attempt)
    wait_dialled(lab, attempt, 2)
    # AstDB is written up to a second late: what a crash within that second loses is the listener's to reconcile.
    wait_until(lambda: on_disk(lab, f"{attempt}-customer"), seconds=30, what="the receipts to be on disk")
    lab.restart_company(kill=kill)
    lab.hang_up_all()
    originate(lab, attempt)
    refused_until_idle(lab, channels=0)
    assert dialled(lab, attempt) == ["101", ANSWERS]


@pytest.mark.parametrize(
    "changes",
    [
        {"RB_ATTEMPT": "../x"},
        {"RB_ATTEMPT": 'a"b'},
        {"RB_UNTIL": ""},
        {"RB_UNTIL": "soon"},
        {"RB_UNTIL": '9999999999" = "" | "1'},
        {"RB_UNTIL": "99999999999"},
        {"RB_FIRST": "nobody"},
        {"RB_FIRST": 'agent" = "agent'},
        {"RB_NUMBER": "911;rm"},
        {"RB_NUMBER": "12"},
        {"RB_NUMBER": "+1646555010100000"},
        {"RB_NUMBER": "${SHELL(true)}"},
        {"RB_AGENT": "PJSIP/101&PJSIP/102"},
        {"RB_AGENT": "PJSIP/101,30,G(a^b^1)"},
        {"RB_DIAL": "PJSIP/+16465550101@trunk&PJSIP/102"},
        {"RB_DIAL": "PJSIP/+16465550101@trunk,99,U(x)"},
        {"RB_DIAL": "${GLOBAL(x)}"},
        {"RB_CALLER": '"Bank" <+1>'},
        {"RB_AGENT_RING": "0"},
        {"RB_CUSTOMER_RING": "25,S(9)"},
        {"RB_CUSTOMER_RING": ""},
    ],
)
def test_what_does_not_look_as_it_must_is_never_dialled(
    lab: Lab, attempt: str, changes: Mapping[str, str]
) -> None:
    before = len(lab.witness())
    originate(lab, attempt, **dict(changes))
    refused_until_idle(lab, channels=0)
    assert len(lab.witness()) == before
    assert not has_receipt(lab, attempt, "agent") and not has_receipt(lab, attempt, "customer")


@pytest.mark.parametrize("first", ["agent", "customer"])
def test_what_comes_too_late_is_never_dialled(lab: Lab, attempt: str, first: str) -> None:
    originate(lab, attempt, RB_FIRST=first, RB_UNTIL=str(int(time.time()) - 1))
    refused_until_idle(lab, channels=0)
    assert dialled(lab, attempt) == []
    assert not has_receipt(lab, attempt, "agent") and not has_receipt(lab, attempt, "customer")


def test_the_second_leg_may_be_dialled_after_the_first_ones_time(lab: Lab, attempt: str) -> None:
    lab.phone("101", answer_after=4)
    until = int(time.time()) + 1
    originate(lab, attempt, RB_UNTIL=str(until))
    wait_dialled(lab, attempt, 2)
    assert time.time() > until + 1
    assert dialled(lab, attempt) == ["101", ANSWERS]


@pytest.mark.parametrize("extension", ["agent", "customer", ANSWERS])
def test_there_is_no_way_round_the_receipt(lab: Lab, attempt: str, extension: str) -> None:
    """Who enters a leg by another door meets the same checks."""
    originate(lab, attempt, RB_NUMBER=BUSY)
    wait_dialled(lab, attempt, 2)
    lab.wait_idle()
    with command_user(lab) as ami:
        ami.action(
            "Originate",
            Channel=f"Local/{extension}@ringbridge-leg",
            Context="ringbridge-go",
            Exten="second",
            Priority="1",
            Async="true",
            Variable=[
                f"RB_ATTEMPT={attempt}",
                f"RB_UNTIL={int(time.time()) + 30}",
                "RB_FIRST=agent",
                "RB_AGENT=PJSIP/101",
                f"RB_NUMBER={BUSY}",
                f"RB_DIAL=PJSIP/{BUSY}@trunk",
                "RB_CALLER=",
                "RB_AGENT_RING=5",
                "RB_CUSTOMER_RING=5",
            ],
        )
    refused_until_idle(lab, channels=0)
    assert dialled(lab, attempt) == ["101", BUSY]


def test_old_receipts_are_purged_and_young_ones_are_not(lab: Lab, attempt: str) -> None:
    old, young = f"{uuid.uuid4()}-agent", f"{uuid.uuid4()}-agent"
    lab.phone("101", Behaviour.BUSY)
    with lab.company_ami() as ami:
        ami.set("ringbridge-ring", "next", "19997")
        for slot, key, at in (("19998", young, "9999999999-answered"), ("19999", old, "1000000000-answered")):
            ami.set("ringbridge", key, at)
            ami.set("ringbridge-ring", slot, key)
    originate(lab, attempt)
    refused_until_idle(lab, channels=0)
    originate(lab, str(uuid.uuid4()))
    refused_until_idle(lab, channels=0)
    assert has_receipt(lab, attempt, "agent")
    assert has_receipt(lab, young.removesuffix("-agent"), "agent")
    assert not has_receipt(lab, old.removesuffix("-agent"), "agent")
    originate(lab, str(uuid.uuid4()))
    refused_until_idle(lab, channels=0)
    with lab.company_ami() as ami:
        assert ami.action("Command", Command="database get ringbridge-ring next")["Output"].endswith(" 0")


def test_the_reader_may_ask_but_not_touch(lab: Lab) -> None:
    with reader(lab) as ami:
        for question in (
            "CoreShowChannels",
            "CoreStatus",
            "CoreSettings",
            "QueueStatus",
            "BridgeList",
            "Ping",
        ):
            assert ami.action(question)["Response"] == "Success"
        for name, fields in (*FORBIDDEN_TO_BOTH, *FORBIDDEN_TO_THE_READER):
            with pytest.raises(LabError, match=r"[Pp]ermission"):
                ami.action(name, **fields)
        with pytest.raises(LabError, match=r"[Pp]ermission"):
            ami.action("Hangup", Channel="PJSIP/101-00000000")


def test_the_command_user_may_do_its_own_things_only(lab: Lab) -> None:
    with command_user(lab) as ami:
        for name, fields in FORBIDDEN_TO_BOTH:
            with pytest.raises(LabError, match=r"[Pp]ermission"):
                ami.action(name, **fields)
        with pytest.raises(LabError, match=r"[Nn]o such channel"):
            ami.action("Hangup", Channel="PJSIP/101-99999999")


FORBIDDEN_TO_BOTH: tuple[tuple[str, dict[str, str]], ...] = (
    ("Command", {"Command": "core show channels"}),
    ("DBPut", {"Family": "x", "Key": "y", "Val": "z"}),
    ("DBDel", {"Family": "ringbridge", "Key": "y"}),
    ("GetConfig", {"Filename": "manager.conf"}),
    ("ModuleLoad", {"LoadType": "reload"}),
)
# The command user may: Asterisk has one permission for all that changes a queue's members, as a pause does.
FORBIDDEN_TO_THE_READER: tuple[tuple[str, dict[str, str]], ...] = (
    ("Originate", {"Channel": "Local/x@y"}),
    ("QueueAdd", {"Queue": "support", "Interface": "PJSIP/101"}),
    ("QueuePause", {"Interface": "PJSIP/101", "Paused": "true"}),
)


def refused_until_idle(lab: Lab, *, channels: int) -> None:
    """An Originate was taken or refused once the PBX again has as many channels as before it."""

    def settled() -> bool:
        return all(lab.channels() == channels for _ in range(6))

    wait_until(settled, seconds=30, what=f"the PBX to be back at {channels} channels")


def on_disk(lab: Lab, receipt: str) -> bool:
    """Whether a receipt has reached the file of AstDB, whoever dies now."""
    path = lab.dir / "company" / "var" / "astdb.sqlite3"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        found = database.execute("SELECT 1 FROM astdb WHERE key = ?", (f"/ringbridge/{receipt}",)).fetchone()
    return found is not None


def hears(recording: Path, hertz: int) -> bool:
    wait_until(lambda: recording.stat().st_size > 4000, seconds=30, what="the recording")
    return tones.has_tone(recording, hertz, at_least_seconds=0.6)

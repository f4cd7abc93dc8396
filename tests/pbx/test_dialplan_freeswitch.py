"""How Ringbridge calls through a real FreeSWITCH: the command's own fence, then the dialplan.

The world's witness is believed, not the PBX.
"""

from __future__ import annotations

import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest
from labs import freeswitch_only

from bridge.domain.calls import Expected
from bridge.pbx.esl.codec import encode
from bridge.pbx.esl.dialogue import Denied, Dialogue, LoginRefused
from bridge.pbx.esl.hearing import CUSTOM, EVENTS, SUBCLASSES
from bridge.pbx.esl.orders import originate
from bridge.pbx.port import DialOrder
from bridge.settings import Pbx
from ringbridge_lab import tones
from ringbridge_lab.errors import LabError
from ringbridge_lab.lab import Behaviour, Lab, wait_until

pytestmark = [pytest.mark.pbx, freeswitch_only]

ANSWERS, BUSY, SILENT, REJECTS = "+16465550101", "+16465550140", "+16465550150", "+16465550160"
PHONE_101_HZ, NUMBER_01_HZ = 330, 1010
First = Literal["agent", "customer"]
Asker = Callable[[str], str]


class Connection(Dialogue):
    """A user of the event socket, who may send a job and wait for its report."""

    def __init__(self, lab: Lab, who: str = "command") -> None:
        pbx = Pbx.model_validate({"name": "lab", **lab.pbx_settings()})
        user = lab.info["company"][who]
        super().__init__(pbx, user["username"], user["secret"])

    def send(self, command: str, job: str) -> None:
        """Have the PBX begin, and do not wait even for its answer."""
        self._socket.sendall(encode(f"bgapi {command}", {"Job-UUID": job}))

    def report(self, job: str, seconds: float = 40) -> str:
        """What became of the job. `BACKGROUND_JOB` must be subscribed to."""
        found: list[str] = []

        def reported() -> bool:
            found[:] = [e.get("_body", "").strip() for e in self.watch(0.05) if e.get("Job-UUID") == job]
            return bool(found)

        wait_until(reported, seconds=seconds, what="the report of a job")
        return found[0]


def order(attempt: str, *, until: int | None = None, **changes: object) -> str:
    """The command of an attempt, as the link sends it."""
    values: dict[str, object] = {
        "first": "agent",
        "agent_device": "user/101",
        "agent_extension": "101",
        "number": ANSWERS,
        "caller_id": "+12125550100",
        "agent_ring_seconds": 15,
        "customer_ring_seconds": 25,
    } | changes
    values.setdefault("dial_string", f"sofia/gateway/trunk/{values['number']}")
    expected = Expected(attempt=attempt, number=str(values["number"]))
    made = DialOrder(attempt=attempt, expected=expected, until=0.0, **values)  # type: ignore[arg-type]
    return originate(made, int(time.time()) + 60 if until is None else until)


def dial(lab: Lab, command: str) -> str:
    """Send it and wait until the first leg was answered or came to nothing."""
    job = str(uuid.uuid4())
    with Connection(lab) as user:
        assert user.subscribe("BACKGROUND_JOB")
        user.send(command, job)
        return user.report(job)


def dialled(lab: Lab, attempt: str) -> list[str]:
    return [row.number for row in lab.witness(attempt=attempt)]


def wait_dialled(lab: Lab, attempt: str, count: int) -> None:
    wait_until(lambda: len(dialled(lab, attempt)) >= count, seconds=20, what=f"{count} INVITEs of the attempt")


def wait_talking(lab: Lab) -> None:
    def joined() -> bool:
        with lab.company_esl() as esl:
            return '"row_count":1' in esl.api("show calls as json").replace(" ", "")

    wait_until(joined, seconds=20, what="agent and customer to be joined")


def pbx_clock(lab: Lab) -> int:
    """What the PBX takes for the time; while it has no CPU it falls behind."""
    with lab.company_esl() as esl:
        return int(esl.api("strepoch"))


def receipt(lab: Lab, attempt: str, leg: str) -> str:
    """What it says, `dialed` or `answered`; empty where there is none. Asked as Ringbridge asks."""
    with Connection(lab) as user:
        answer = user.api(f"hash select/ringbridge/{attempt}-{leg}").strip()
    second, _, said = answer.partition("-")
    assert second.isdecimal() or answer == "-ERR no reply"
    return said if second else ""


def has_receipt(lab: Lab, attempt: str, leg: str) -> bool:
    return receipt(lab, attempt, leg) != ""


@contextmanager
def phone_book(lab: Lab, user: str, dial_string: str) -> Iterator[str]:
    """One more entry in the PBX's directory."""
    path = lab.dir / "company" / "etc" / "directory" / "company" / f"{user}.xml"
    path.write_text(
        f'<include>\n<user id="{user}"><params><param name="dial-string" value="{dial_string}"/></params></user>\n'
        "</include>\n",
        encoding="utf-8",
    )
    try:
        with lab.company_esl() as esl:
            esl.api("reloadxml")
        yield f"user/{user}"
    finally:
        path.unlink()
        with lab.company_esl() as esl:
            esl.api("reloadxml")


@pytest.fixture
def attempt() -> str:
    return str(uuid.uuid4())


@pytest.mark.parametrize(("first", "both"), [("agent", ["101", ANSWERS]), ("customer", [ANSWERS, "101"])])
def test_both_legs_are_dialled_once_and_hear_each_other(
    lab: Lab, attempt: str, first: First, both: list[str]
) -> None:
    assert dial(lab, order(attempt, first=first)).startswith("+OK ")
    wait_dialled(lab, attempt, 2)
    wait_talking(lab)
    rows = lab.witness(attempt=attempt)
    assert [row.number for row in rows] == both
    seen = {row.number: row.caller for row in rows}
    assert seen == {"101": ANSWERS, ANSWERS: "+12125550100"}, "each side is shown the right number"
    assert receipt(lab, attempt, "agent") == "dialed"
    # Set by another thread than the one that joins them.
    wait_until(lambda: receipt(lab, attempt, "customer") == "answered", seconds=20, what="the answer's receipt")

    def recorded() -> bool:
        try:
            return all(lab.recording(row.leg).stat().st_size > 20_000 for row in rows)
        except LabError:
            return False

    wait_until(recorded, seconds=20, what="some talk to be recorded")
    lab.hang_up_phone("101")
    lab.wait_idle()
    legs = {row.number: lab.recording(row.leg) for row in rows}
    assert hears(legs["101"], NUMBER_01_HZ) and not tones.has_tone(legs["101"], PHONE_101_HZ)
    assert hears(legs[ANSWERS], PHONE_101_HZ) and not tones.has_tone(legs[ANSWERS], NUMBER_01_HZ)


@pytest.mark.parametrize("first", ["agent", "customer"])
def test_without_a_number_to_show_the_customer_is_shown_none(lab: Lab, attempt: str, first: First) -> None:
    """Not the agent's extension, and not the customer's own number."""
    assert dial(lab, order(attempt, first=first, caller_id=None)).startswith("+OK ")
    wait_dialled(lab, attempt, 2)
    shown = {row.number: row.caller for row in lab.witness(attempt=attempt)}
    assert not any(mark in shown[ANSWERS] for mark in "0123456789")


@pytest.mark.parametrize("first", ["agent", "customer"])
def test_every_channel_says_whose_it_is(lab: Lab, attempt: str, first: First) -> None:
    with Connection(lab, "reader") as reader:
        assert reader.subscribe(" ".join((*EVENTS, CUSTOM, *SUBCLASSES)))
        dial(lab, order(attempt, first=first))
        wait_talking(lab)
        events = reader.watch(0.5)
    created = [event for event in events if event["Event-Name"] == "CHANNEL_CREATE"]
    assert [event["variable_rb_attempt"] for event in created] == [attempt, attempt]
    second = "customer" if first == "agent" else "agent"
    assert [event["variable_rb_leg"] for event in created] == [first, second]
    said = [event for event in events if event.get("Event-Subclass") == "ringbridge::dial"]
    told = [(e["Ringbridge-Attempt"], e["Ringbridge-Leg"], e["Ringbridge-Result"]) for e in said]
    assert told == [(attempt, second, "dialing")]


def test_an_agents_phones_ring_together_and_one_answers(lab: Lab, attempt: str) -> None:
    port = lab.state.ports.world_sip
    lab.phone("102", Behaviour.NO_ANSWER)
    both = ",".join(f"sofia/internal/{phone}@127.0.0.1:{port}" for phone in ("102", "101"))
    with phone_book(lab, "150", both) as device:
        assert dial(lab, order(attempt, agent_device=device)).startswith("+OK ")
        wait_talking(lab)
    assert sorted(dialled(lab, attempt)) == [ANSWERS, "101", "102"]
    lab.hang_up_phone("101")
    lab.wait_idle()


@pytest.mark.parametrize("number", [BUSY, REJECTS, "+16465550170"])
def test_a_customer_who_cannot_be_had_frees_the_agent(lab: Lab, attempt: str, number: str) -> None:
    assert dial(lab, order(attempt, number=number)).startswith("+OK ")
    wait_dialled(lab, attempt, 2)
    lab.wait_idle(seconds=20)
    assert dialled(lab, attempt) == ["101", number]
    assert receipt(lab, attempt, "customer") == "dialed"


def test_a_gateway_that_is_not_there_frees_the_agent_and_is_told(lab: Lab, attempt: str) -> None:
    with Connection(lab, "reader") as reader:
        assert reader.subscribe("CUSTOM ringbridge::dial")
        dial(lab, order(attempt, dial_string=f"sofia/gateway/nowhere/{ANSWERS}"))
        lab.wait_idle(seconds=20)
        said = [(e["Ringbridge-Result"], e.get("Ringbridge-Cause")) for e in reader.watch(0.5)]
    assert said == [("dialing", None), ("over", "INVALID_GATEWAY")]
    assert dialled(lab, attempt) == ["101"]


def test_the_customer_rings_only_so_long(lab: Lab, attempt: str) -> None:
    dial(lab, order(attempt, number=SILENT, customer_ring_seconds=2))
    wait_dialled(lab, attempt, 2)
    lab.wait_idle(seconds=20)


def test_a_trunks_early_media_is_no_answer(lab: Lab, attempt: str) -> None:
    """Nobody is joined to it, and the customer's ring time goes on."""
    with early_media() as port, Connection(lab, "reader") as reader:
        assert reader.subscribe("CHANNEL_PROGRESS_MEDIA CHANNEL_BRIDGE CUSTOM ringbridge::dial")
        where = f"sofia/external/{ANSWERS}@127.0.0.1:{port}"
        assert dial(lab, order(attempt, dial_string=where, customer_ring_seconds=2)).startswith("+OK ")
        lab.wait_idle(seconds=20)
        events = reader.watch(0.5)
    # The agent's phone may send some of its own, before it answers.
    legs = [event["variable_rb_leg"] for event in events if event["Event-Name"] == "CHANNEL_PROGRESS_MEDIA"]
    assert legs.count("customer") == 1
    assert not [event for event in events if event["Event-Name"] == "CHANNEL_BRIDGE"]
    said = [(e["Ringbridge-Result"], e.get("Ringbridge-Cause")) for e in events if "Ringbridge-Result" in e]
    assert said == [("dialing", None), ("over", "NO_ANSWER")]
    assert receipt(lab, attempt, "customer") == "dialed"


@pytest.mark.parametrize("first", ["agent", "customer"])
def test_a_receipt_says_answered_only_from_the_answer_on(lab: Lab, attempt: str, first: First) -> None:
    with Connection(lab) as user:
        user.send(order(attempt, first=first, number=SILENT), attempt)
        wait_dialled(lab, attempt, 2 if first == "agent" else 1)
        assert receipt(lab, attempt, "customer") == "dialed"
    lab.hang_up_all()
    lab.wait_idle(seconds=20)
    assert receipt(lab, attempt, "customer") == "dialed"


def test_who_answered_before_an_agent_did_has_a_receipt_that_says_so(lab: Lab, attempt: str) -> None:
    lab.phone("101", Behaviour.NO_ANSWER)
    assert dial(lab, order(attempt, first="customer")).startswith("+OK ")
    wait_dialled(lab, attempt, 2)
    wait_until(lambda: receipt(lab, attempt, "customer") == "answered", seconds=20, what="the answer's receipt")


@contextmanager
def early_media() -> Iterator[int]:
    """A trunk, by its port, that answers every INVITE with 183 and sound, and with nothing after."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trunk:
        trunk.bind(("127.0.0.1", 0))
        port = trunk.getsockname()[1]
        here = "IN IP4 127.0.0.1"
        sound = f"v=0\r\no=- 1 1 {here}\r\ns=-\r\nc={here}\r\nt=0 0\r\nm=audio 9 RTP/AVP 0 8\r\n"
        ending = threading.Event()

        def answer() -> None:
            trunk.settimeout(0.1)
            while not ending.is_set():
                try:
                    data, sender = trunk.recvfrom(65535)
                except TimeoutError:
                    continue
                method = data.split(b" ", 1)[0].decode()
                if method not in {"INVITE", "CANCEL"}:
                    continue
                lines = data.decode().split("\r\n")
                kept = [line for line in lines if line.startswith(("Via:", "From:", "Call-ID:", "CSeq:"))]
                (to,) = (line for line in lines if line.startswith("To:"))
                status, body = ("183 Session Progress", sound) if method == "INVITE" else ("200 OK", "")
                head = [*kept, f"{to};tag=1", f"Contact: <sip:trunk@127.0.0.1:{port}>", "Content-Type: application/sdp"]
                text = "\r\n".join([f"SIP/2.0 {status}", *head, f"Content-Length: {len(body)}", "", body])
                trunk.sendto(text.encode(), sender)
                if method == "CANCEL":
                    over = text.replace("200 OK", "487 Request Terminated").replace(" CANCEL", " INVITE")
                    trunk.sendto(over.encode(), sender)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield port
        finally:
            ending.set()
            thread.join()


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (Behaviour.BUSY, "-ERR USER_BUSY"),
        (Behaviour.REJECT, "-ERR CALL_REJECTED"),
        (Behaviour.NO_ANSWER, "-ERR NO_ANSWER"),
    ],
)
def test_no_customer_is_dialled_without_an_agent(lab: Lab, attempt: str, behaviour: Behaviour, said: str) -> None:
    lab.phone("101", behaviour)
    assert dial(lab, order(attempt, agent_ring_seconds=2)) == said
    lab.wait_idle(seconds=20)
    assert dialled(lab, attempt) == ["101"]
    assert has_receipt(lab, attempt, "agent") and not has_receipt(lab, attempt, "customer")


def test_a_second_command_is_refused_while_it_rings_talks_and_after(lab: Lab, attempt: str) -> None:
    lab.phone("101", answer_after=3)
    command = order(attempt, until=int(time.time()) + 120)
    with Connection(lab) as user:
        user.send(command, attempt)
        wait_dialled(lab, attempt, 1)
    assert dial(lab, command) == "-ERR LOSE_RACE"
    wait_dialled(lab, attempt, 2)
    wait_talking(lab)
    assert dial(lab, command) == "-ERR LOSE_RACE"
    lab.hang_up_phone("101")
    lab.wait_idle()
    assert dial(lab, command) == "-ERR LOSE_RACE"
    assert dialled(lab, attempt) == ["101", ANSWERS]


def test_of_a_hundred_at_once_one_dials(lab: Lab, attempt: str) -> None:
    lab.phone("101", Behaviour.BUSY)
    command = order(attempt)
    connections = [Connection(lab) for _ in range(20)]
    try:
        with Connection(lab) as user:
            assert user.subscribe("BACKGROUND_JOB")
            for connection in connections * 5:
                connection.send(command, attempt)
            wait_until(lambda: len(user.watch(0.1)) == 100, seconds=40, what="a hundred reports")
            said = Counter(event["_body"].strip() for event in user.events)
    finally:
        for connection in connections:
            connection.__exit__(None, None, None)
    assert said == {"-ERR LOSE_RACE": 99, "-ERR USER_BUSY": 1}
    assert dialled(lab, attempt) == ["101"]


@pytest.mark.parametrize("first", ["agent", "customer"])
def test_what_comes_too_late_is_never_dialled(lab: Lab, attempt: str, first: First) -> None:
    assert dial(lab, order(attempt, first=first, until=pbx_clock(lab) - 1)) == "-ERR STALE_DATE"
    assert dialled(lab, attempt) == []
    assert not has_receipt(lab, attempt, "agent") and not has_receipt(lab, attempt, "customer")


def test_the_second_leg_may_be_dialled_after_the_first_ones_time(lab: Lab, attempt: str) -> None:
    lab.phone("101", answer_after=4)
    # Seconds enough for the command, and fewer than the phone takes to answer.
    until = pbx_clock(lab) + 2
    assert dial(lab, order(attempt, until=until)).startswith("+OK ")
    wait_dialled(lab, attempt, 2)
    assert pbx_clock(lab) > until
    assert dialled(lab, attempt) == ["101", ANSWERS]


@pytest.mark.parametrize("module", ["mod_hash"])
def test_without_receipts_nothing_is_dialled(lab: Lab, attempt: str, module: str) -> None:
    with lab.company_esl() as esl:
        esl.api(f"unload {module}")
    try:
        assert dial(lab, order(attempt)).startswith("-ERR")
        assert dialled(lab, attempt) == []
    finally:
        with lab.company_esl() as esl:
            esl.api(f"load {module}")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rb_attempt", "../x"),
        ("rb_first", "nobody"),
        ("rb_leg", "customer"),
        ("rb_number", "12"),
        ("rb_number", "911;rm"),
        ("rb_agent", "sofia/gateway/trunk/+19005550100"),
        ("rb_dial", r"sofia/gateway/trunk/+16465550101\,sofia/gateway/trunk/+19005550100"),
        ("rb_dial", "sofia/gateway/trunk/+16465550101|sofia/gateway/trunk/+19005550100"),
        ("rb_dial", "'[x=y]sofia/gateway/trunk/+16465550101'"),
        ("rb_dial", r"'sofia/gateway/trunk/+16465550101\n'"),
        ("rb_caller", "'Bank <1>'"),
        ("rb_agent_ring", "0"),
        ("rb_customer_ring", "25s"),
        ("rb_customer_ring", ""),
    ],
)
def test_what_does_not_look_as_it_must_gets_no_second_leg(lab: Lab, attempt: str, name: str, value: str) -> None:
    """Our own code never sends such; whoever else does, meets the dialplan."""
    before = order(attempt)
    assert f"{name}=" in before
    head, _, tail = before.partition(f"{name}=")
    old = tail.partition(",")[0]
    with Connection(lab, "reader") as reader:
        assert reader.subscribe("CUSTOM ringbridge::dial")
        dial(lab, f"{head}{name}={value}{tail.removeprefix(old)}")
        lab.wait_idle(seconds=20)
        assert [event["Ringbridge-Result"] for event in reader.watch(0.5)] == ["invalid"]
    assert dialled(lab, attempt) == ["101"]
    assert not has_receipt(lab, attempt, "customer")


@pytest.mark.parametrize("first", ["agent", "customer"])
def test_there_is_no_way_round_the_receipt(lab: Lab, attempt: str, first: First) -> None:
    """Who enters the second leg by another door meets the same checks."""
    dial(lab, order(attempt, first=first, number=ANSWERS))
    wait_dialled(lab, attempt, 2)
    lab.hang_up_all()
    variables = order(attempt, first=first).partition("{")[2].partition("}${regex(")[0]
    variables = variables.removesuffix(f",origination_uuid={attempt}")
    with lab.company_esl() as esl:
        said = esl.api(f"originate {{{variables}}}user/103 {ANSWERS} XML ringbridge-go", seconds=20)
    assert said.startswith("+OK")
    lab.wait_idle()
    before = {"agent": ["101", ANSWERS], "customer": [ANSWERS, "101"]}[first]
    assert dialled(lab, attempt) == [*before, "103"]


def test_the_reader_may_ask_but_not_command(lab: Lab) -> None:
    with Connection(lab, "reader") as reader:
        for question in ("show channels as json", "status", "strepoch", "callcenter_config queue list"):
            assert reader.api(question)
        for command in (*FORBIDDEN_TO_BOTH, "originate user/101 &park", "expand status", "hash select/a/b"):
            with pytest.raises(Denied):
                reader.api(command)
        for names in ("ALL", "HEARTBEAT", "CUSTOM sofia::register"):
            assert not reader.subscribe(names)


def test_the_command_user_hears_of_its_jobs_only(lab: Lab) -> None:
    with Connection(lab) as user:
        for command in FORBIDDEN_TO_BOTH:
            with pytest.raises(Denied):
                user.api(command)
        assert user.api("uuid_kill nobody").startswith("-ERR")
        assert not user.subscribe("CHANNEL_CREATE")


def test_neither_user_is_let_in_with_another_secret(lab: Lab) -> None:
    pbx = Pbx.model_validate({"name": "lab", **lab.pbx_settings()})
    for who in ("reader", "command"):
        for secret in ("wrong", "ClueCon", lab.state.secrets.lab):
            with pytest.raises(LoginRefused):
                Dialogue(pbx, lab.info["company"][who]["username"], secret)


FORBIDDEN_TO_BOTH = ("system true", "bg_system true", "eval x", "reloadxml", "load mod_hash", "global_setvar a=b")


def hears(recording: Path, hertz: int) -> bool:
    wait_until(lambda: recording.stat().st_size > 4000, seconds=10, what="the recording")
    return tones.has_tone(recording, hertz, at_least_seconds=0.6)

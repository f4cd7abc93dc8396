"""The lab itself: what the other tests believe must be true of it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import insides
import pytest
from click.testing import CliRunner

from ringbridge_lab import processes, tones
from ringbridge_lab.commands import lab as commands
from ringbridge_lab.errors import LabError
from ringbridge_lab.lab import Behaviour, Lab, wait_until

pytestmark = pytest.mark.pbx

PHONE_101_HZ, PHONE_102_HZ, CALLER_HZ = 330, 370, 800


def test_a_caller_and_an_agent_hear_each_other(lab: Lab) -> None:
    before = len(lab.witness())
    call = lab.call("+12125550101", caller="+13125550123", hangup_after=1.5)
    call.wait_for("ended")

    (invite,) = lab.witness()[before:]
    assert (invite.number, invite.caller, invite.attempt) == ("101", "+13125550123", None)
    assert invite.to_phone and invite.call_id
    lab.wait_idle()
    assert heard(call.recording()) == PHONE_101_HZ
    assert heard(lab.recording(invite.leg)) == CALLER_HZ


@pytest.mark.parametrize(
    ("number", "steps", "cause"),
    [
        ("+16465550101", ["dialing", "answered", "ended"], "16"),
        ("+13125550140", ["dialing", "ended"], "17"),
        ("+13125550160", ["dialing", "ended"], "21"),
        ("+13125550170", ["dialing", "ended"], "34"),
        ("+13125550180", ["dialing", "answered", "ended"], "16"),
        ("+13125550190", ["dialing", "answered", "ended"], "16"),
        ("+16469990101", ["dialing", "ended"], "1"),
    ],
)
def test_numbers_behave_as_their_last_digits_say(lab: Lab, number: str, steps: list[str], cause: str) -> None:
    before = len(lab.witness())
    call = lab.call(number, phone="103", hangup_after=3)
    assert call.wait_for("ended").detail == cause
    assert [row.step for row in call.steps()] == steps
    assert [row.number for row in lab.witness()[before:]] == [number]


@pytest.mark.parametrize(("number", "slow"), [("+16465550105", 1), ("+16465550115", 3)])
def test_numbers_take_their_time(lab: Lab, number: str, slow: float) -> None:
    call = lab.call(number, phone="101", hangup_after=0.5)
    call.wait_for("ended")
    dialing, answered, _ = call.steps()
    assert slow <= (answered.at - dialing.at).total_seconds()


def test_a_number_that_never_answers_rings_until_the_caller_gives_up(lab: Lab) -> None:
    call = lab.call("+16465550155", phone="101", ring=2)
    call.wait_for("ended")
    assert [row.step for row in call.steps()] == ["dialing", "ended"]


@pytest.mark.parametrize(
    ("behaviour", "cause"), [(Behaviour.BUSY, "17"), (Behaviour.REJECT, "17"), (Behaviour.NO_ANSWER, None)]
)
def test_phones_do_as_they_are_told(lab: Lab, behaviour: Behaviour, cause: str | None) -> None:
    lab.phone("102", behaviour)
    call = lab.call("+12125550102", ring=2)
    ended = call.wait_for("ended")
    assert [row.step for row in call.steps()] == ["dialing", "ended"]
    if behaviour is Behaviour.BUSY:
        assert ended.detail == cause


def test_a_phone_can_hang_up_by_itself_and_on_demand(lab: Lab) -> None:
    lab.phone("101", answer_after=0.2, hangup_after=0.7)
    assert lab.call("+12125550101").wait_for("ended").detail == "16"

    call = lab.call("+12125550102")
    call.wait_for("answered")
    assert lab.hang_up_phone("102") == 1
    call.wait_for("ended")


@pytest.mark.parametrize(
    "name",
    [
        "Caller Ünï",
        "Smith & Sons, {Ltd} | $5",
        '"><sip:x@y>;tag=1',
        "${SHELL(id)} $[1/0]",
        "%0AEvent: Hangup",
    ],
)
def test_a_hostile_name_arrives(lab: Lab, name: str) -> None:
    call = lab.call("+12125550101", name=name)
    call.wait_for("answered")
    assert insides.callers_name(lab) == insides.kept(lab, name)


def test_a_withheld_number_is_not_shown(lab: Lab) -> None:
    before = len(lab.witness())
    lab.call("+12125550101", withheld=True, hangup_after=0.5).wait_for("ended")
    (invite,) = lab.witness()[before:]
    assert "6465550111" not in invite.caller


def test_support_rings_all_and_sales_rings_in_turn(lab: Lab) -> None:
    for extension in ("102", "103", "104", "105"):
        lab.phone(extension, Behaviour.NO_ANSWER)
    before = len(lab.witness())
    call = lab.call("+12125550110")
    wait_until(lambda: len(lab.witness()) >= before + 5, seconds=30, what="all phones to be called")
    assert {row.number for row in lab.witness()[before:]} == {"101", "102", "103", "104", "105"}
    call.hang_up()
    lab.wait_idle()

    lab.reset_phones()
    before = len(lab.witness())
    for _ in range(3):
        # Where the queue answers before the agent does, this is counted from then on.
        lab.call("+12125550120", hangup_after=2.5).wait_for("ended")
        lab.wait_idle()
    assert len({row.number for row in lab.witness()[before:]}) == 3


def test_an_agent_transfers_blindly(lab: Lab) -> None:
    call = lab.call("+12125550101")
    until_heard(lab, f"caller-{call.id}", PHONE_101_HZ)
    before = len(lab.witness())
    lab.press_phone("101", "##102")
    wait_until(lambda: len(lab.witness()) > before, seconds=10, what="102 to be called")
    (invite,) = lab.witness()[before:]
    assert (invite.number, invite.caller) == ("102", "+16465550111")
    until_heard(lab, invite.leg, CALLER_HZ)
    until_heard(lab, f"caller-{call.id}", PHONE_102_HZ)


def test_an_agent_asks_before_a_transfer(lab: Lab) -> None:
    call = lab.call("+12125550101")
    call.wait_for("answered")
    before = len(lab.witness())
    lab.press_phone("101", "*2102")
    wait_until(lambda: len(lab.witness()) > before, seconds=30, what="102 to be called")
    (invite,) = lab.witness()[before:]
    until_heard(lab, invite.leg, PHONE_101_HZ)
    lab.hang_up_phone("101")
    until_heard(lab, invite.leg, CALLER_HZ)
    call.hang_up()
    lab.wait_idle()


def test_a_call_is_parked_and_taken_elsewhere(lab: Lab) -> None:
    call = lab.call("+12125550101")
    call.wait_for("answered")
    lab.press_phone("101", "##700")
    wait_until(lambda: lab.channels() == 1, seconds=15, what="101 to be free")
    other = lab.call("701", phone="102")
    other.wait_for("answered")
    until_heard(lab, f"caller-{other.id}", CALLER_HZ)
    call.hang_up()
    lab.wait_idle()


def test_a_colleague_picks_up(lab: Lab) -> None:
    lab.phone("101", Behaviour.NO_ANSWER)
    before = len(lab.witness())
    call = lab.call("+12125550101")
    wait_until(lambda: len(lab.witness()) > before, seconds=30, what="101 to ring")
    picker = lab.call("*8101", phone="102")
    call.wait_for("answered")
    until_heard(lab, f"caller-{picker.id}", CALLER_HZ)
    assert len(lab.witness()) == before + 1


def test_a_conference_and_an_announcement_need_no_agent(lab: Lab) -> None:
    outside, inside = lab.call("+12125550180"), lab.call("800", phone="102")
    for call in (outside, inside):
        call.wait_for("answered")
    until_heard(lab, f"caller-{inside.id}", CALLER_HZ)
    lab.hang_up_all()
    assert lab.call("+12125550130").wait_for("ended").detail == "16"


def test_the_pbx_writes_down_its_calls(lab: Lab) -> None:
    cdr = Path(lab.info["company"]["cdr"])
    lab.call("+12125550101", caller="+13125550199", hangup_after=0.3).wait_for("ended")
    lab.wait_idle()
    # As bytes: callers of other tests have had names that are no text.
    wait_until(lambda: cdr.exists() and b"+13125550199" in cdr.read_bytes(), seconds=30, what="the record")


def test_the_witness_survives_the_company(lab: Lab) -> None:
    world = lab.state.processes["world"]
    lab.call("+12125550101").wait_for("answered")
    before = lab.witness()
    lab.kill_company()
    assert lab.witness() == before
    lab.start_company()
    assert processes.alive(world) and lab.state.processes["world"] == world
    lab.hang_up_all()
    lab.call("+12125550101", hangup_after=0.3).wait_for("ended")
    assert len(lab.witness()) == len(before) + 1


def test_everything_stays_on_loopback(lab: Lab) -> None:
    lab.call("+12125550101").wait_for("answered")
    base = lab.state.ports.base
    for who in lab.state.processes.values():
        bound = addresses(who.pid)
        here = [port for _, host, port in bound if host == "127.0.0.1"]
        assert len(here) >= 4, bound
        assert all(base <= port < base + 1000 for port in here)
        # The DNS client of PJSIP opens one unbound UDP socket for each of IPv4 and IPv6 to ask from; it cannot be
        # told not to, and the lab never asks it anything.
        elsewhere = [(table, port) for table, host, port in bound if host != "127.0.0.1"]
        assert sorted(table for table, _ in elsewhere) in ([], ["udp"], ["udp", "udp6"])
        assert not any(base <= port < base + 1000 for _, port in elsewhere)


def test_two_labs_never_meet(lab: Lab, tmp_path: Path) -> None:
    other = Lab(tmp_path / "other", lab.pbx)
    other.up()
    try:
        assert other.state.ports.base != lab.state.ports.base
        before = len(lab.witness())
        other.call("+12125550101", hangup_after=0.3).wait_for("ended")
        assert (len(other.witness()), len(lab.witness())) == (1, before)
        was = dict(other.state.processes)
    finally:
        other.down()
    assert not any(processes.alive(who) for who in was.values())
    assert not (other.dir / "lab.json").exists()
    with pytest.raises(LabError, match="no lab is up"):
        other.call("+12125550101")


def test_up_twice_says_so_and_changes_nothing(lab: Lab) -> None:
    was = dict(lab.state.processes)
    assert Lab(lab.dir).up() is False
    assert Lab(lab.dir).state.processes == was


def test_a_lab_keeps_its_kind(lab: Lab) -> None:
    assert Lab(lab.dir).pbx == lab.pbx
    other = {"asterisk": "freeswitch", "freeswitch": "asterisk"}[lab.pbx]
    with pytest.raises(LabError, match="take it down first"):
        Lab(lab.dir, other).up()
    with pytest.raises(LabError, match="asterisk and freeswitch"):
        Lab(lab.dir, "kamailio")
    with pytest.raises(LabError, match="has no"):
        lab.company_esl() if lab.pbx == "asterisk" else lab.company_ami()


def test_another_process_with_the_same_id_is_left_alone() -> None:
    ourselves = processes.Identity(os.getpid(), began=1)
    assert not processes.alive(ourselves)
    processes.end(ourselves, grace=1)


def test_commands_speak_json_and_say_what_is_wrong(lab: Lab, tmp_path: Path) -> None:
    run = CliRunner().invoke
    status = run(commands, ["status", "--dir", str(lab.dir), "--json"])
    assert status.exit_code == 0
    facts = json.loads(status.stdout)
    assert facts["up"] and facts["company"]["port"] == lab.pbx_settings()["port"]
    assert (lab.dir / "lab.json").stat().st_mode & 0o077 == 0

    assert run(commands, ["status", "--dir", str(tmp_path)]).exit_code == 3
    wrong = run(commands, ["phone", "999", "--busy", "--dir", str(lab.dir)])
    assert wrong.exit_code == 1 and "101, 102" in wrong.output
    assert run(commands, ["call", "--dir", str(lab.dir)]).exit_code == 2
    assert "will be busy" in run(commands, ["phone", "102", "--busy", "--dir", str(lab.dir)]).output


def heard(recording: Path) -> int | None:
    """The tone in a recording; the file is whole a moment after the call."""

    def whole() -> bool:
        return recording.stat().st_size > 4000

    wait_until(whole, seconds=30, what="the recording")
    return tones.dominant(recording)


def until_heard(lab: Lab, of: str, hertz: int) -> None:
    """Wait until a recording that still grows holds a tone."""

    def sounds() -> bool:
        try:
            return tones.has_tone(lab.recording(of), hertz)
        except LabError:
            return False

    wait_until(sounds, seconds=20, what=f"{of} to hear {hertz} Hz")


def addresses(pid: int) -> list[tuple[str, str, int]]:
    """Every (table, address, port) that a process's IPv4 and IPv6 sockets are bound to."""
    inodes = set()
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        found = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(handle))
        if found:
            inodes.add(found[1])
    bound = []
    for table in ("udp", "tcp", "udp6", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes:
                host, port = fields[1].split(":")
                raw = bytes.fromhex(host)
                bound.append((table, ".".join(str(part) for part in reversed(raw)), int(port, 16)))
    return bound


@pytest.mark.parametrize("behaviour", [Behaviour.BUSY, Behaviour.REJECT])
def test_who_refuses_takes_a_moment(lab: Lab, behaviour: Behaviour) -> None:
    """No person does so within a millisecond, and a link could not ask in time who may be shown."""
    lab.phone("101", behaviour)
    caller = lab.call("+12125550101")
    took = caller.wait_for("ended").at - caller.wait_for("dialing").at
    assert took.total_seconds() >= 0.3

"""The configuration that the lab writes for a FreeSWITCH: whole, on loopback, and harmless."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ringbridge_lab import freeswitch, places
from ringbridge_lab.company import EXTENSIONS, Place
from ringbridge_lab.freeswitch import FreeSwitchCompany
from ringbridge_lab.installation import Installation

APPLICATIONS = {
    "answer",
    "att_xfer",
    "bind_digit_action",
    "bridge",
    "callcenter",
    "conference",
    "digit_action_set_realm",
    "execute_extension",
    "export",
    "hangup",
    "hash",
    "intercept",
    "pre_answer",
    "record",
    "playback",
    "read",
    "set",
    "transfer",
    "valet_park",
}
"""What the company's own dialplan may do: nothing that runs a program or asks another machine."""


@pytest.fixture
def company(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FreeSwitchCompany:
    """One that is written and never started; what labs keep is kept in the test's own folder."""
    monkeypatch.setattr(freeswitch, "kept_certificate", lambda: tmp_path / "cache" / "kept.pem")
    installed = Installation(("freeswitch",), tmp_path / "mod", tmp_path, "1.11.3")
    place = Place(tmp_path, "company", tmp_path / "run", installed, places.Ports(12000), places.Secrets.generate())
    made = FreeSwitchCompany(place)
    made.write()
    return made


def files(company: FreeSwitchCompany) -> dict[str, ElementTree.Element]:
    etc = company.place.own / "etc"
    return {str(path.relative_to(etc)): ElementTree.parse(path).getroot() for path in etc.rglob("*.xml")}


def test_every_file_is_xml_with_nothing_left_to_fill_in(company: FreeSwitchCompany) -> None:
    for path in (company.place.own / "etc").rglob("*.xml"):
        ElementTree.parse(path)
        assert not re.search(r"@[A-Z][A-Z0-9_]+@", path.read_text(encoding="utf-8")), path
        assert path.stat().st_mode & 0o077 == 0, path


def test_it_listens_on_loopback_only(company: FreeSwitchCompany) -> None:
    bound = [
        (name, param.get("name"), param.get("value"))
        for name, root in files(company).items()
        for param in root.iter("param")
        if str(param.get("name")) in {"sip-ip", "rtp-ip", "listen-ip", "ext-sip-ip", "ext-rtp-ip", "ws-binding"}
    ]
    assert len(bound) == 5
    assert {value for *_, value in bound} == {"127.0.0.1"}


def test_its_own_dialplan_runs_no_program(company: FreeSwitchCompany) -> None:
    for name, root in files(company).items():
        if name.startswith("dialplan/") and name != "dialplan/ringbridge.xml":
            used = {str(action.get("application")) for action in root.iter("action")}
            assert used and used <= APPLICATIONS, name


FEW = {
    "desk@company": ["106", "107"],
    "behind@company": ["101"],
    "next@company": ["101", "102"],
    "offer@company": ["105"],
    "pair@company": ["110"],
}
"""Queues of a few phones only."""


def test_each_queue_has_an_agent_for_each_phone(company: FreeSwitchCompany) -> None:
    root = files(company)["autoload_configs/callcenter.conf.xml"]
    contacts = {agent.get("name"): str(agent.get("contact")) for agent in root.iter("agent")}
    for queue in root.iter("queue"):
        named = [tier.get("agent") for tier in root.iter("tier") if tier.get("queue") == queue.get("name")]
        reached = [re.findall(r"(?:user|loopback)/(\d+)", contacts[agent])[0] for agent in named]
        assert reached == FEW.get(str(queue.get("name")), list(EXTENSIONS))


def test_the_certificate_is_kept_for_the_next_lab(company: FreeSwitchCompany, tmp_path: Path) -> None:
    certs = company.place.own / "var" / "certs"
    company.settle()
    assert not (tmp_path / "cache" / "kept.pem").exists()
    (certs / "dtls-srtp.pem").write_text("key and certificate", encoding="utf-8")
    company.settle()
    kept = tmp_path / "cache" / "kept.pem"
    assert kept.read_text(encoding="utf-8") == "key and certificate" and kept.stat().st_mode & 0o077 == 0

    (certs / "dtls-srtp.pem").unlink()
    company.write()
    assert sorted(path.name for path in certs.iterdir()) == ["dtls-srtp.pem", "wss.pem"]

"""The files that go into a company's FreeSWITCH: read as XML, since a slip there costs money or opens a door."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

import ringbridge_dialplan as dialplan
from bridge.pbx.esl.act_orders import ACTED
from bridge.pbx.esl.hearing import CUSTOM, EVENTS, SUBCLASSES
from bridge.pbx.esl.inspection import DIALPLAN_VERSION

PLAN = ET.fromstring(dialplan.freeswitch_dialplan())
APPLICATIONS = {
    *("answer", "bridge", "callcenter", "event", "execute_extension", "hangup", "log", "play_and_get_digits"),
    *("playback", "say", "set", "sleep", "unset"),
}
FUNCTIONS = {"cond", "expr", "hash", "strepoch"}
FROM_OUTSIDE = {
    "rb_attempt",
    "rb_first",
    "rb_leg",
    "rb_agent",
    "rb_number",
    "rb_dial",
    "rb_caller",
    "rb_agent_ring",
    "rb_customer_ring",
}
GOOD = {
    "rb_attempt": "f44868bd-339b-40cb-a91b-6931e2120fb5",
    "rb_first": "agent",
    "rb_leg": "agent",
    "rb_agent": "user/101@example.com",
    "rb_number": "+16465550101",
    "rb_dial": "sofia/gateway/trunk/+16465550101",
    "rb_caller": "",
    "rb_agent_ring": "15",
    "rb_customer_ring": "25",
}
EVIL = ("a b", "x,1", "x|y", "x)", "x(", "${x}", "{a=b}x/y", "[a=b]x/y", "x'y", 'x"y', "x\\y", "x^y", "x=y", "x&y")


def extension(name: str) -> ET.Element:
    found = PLAN.find(f"./context/extension[@name='ringbridge-{name}']")
    assert found is not None, name
    return found


def conditions(name: str) -> list[tuple[str, str]]:
    return [(c.get("field", ""), c.get("expression", "")) for c in extension(name).iter("condition")]


def steps(name: str, kind: str = "action") -> list[tuple[str, str]]:
    return [(a.get("application", ""), a.get("data", "")) for a in extension(name).iter(kind)]


def test_the_contexts_and_their_extensions_are_in_order() -> None:
    assert [context.get("name") for context in PLAN] == [
        "ringbridge-go",
        "ringbridge-confirm",
        "ringbridge-place",
        "ringbridge-queue",
    ]
    dials = [e for context in PLAN[:2] for e in context]
    names = [(e.get("name"), e.get("continue") == "true") for e in dials]
    # What checks must come before what dials, and must not be jumped over: FreeSWITCH stops at the first that fits.
    assert names == [
        ("ringbridge-version", False),
        ("ringbridge-unchecked", True),
        ("ringbridge-check", True),
        ("ringbridge-shown", True),
        ("ringbridge-invalid", False),
        ("ringbridge-customer", False),
        ("ringbridge-agent", False),
        ("ringbridge-unconfirmed", True),
        ("ringbridge-may-ask", True),
        ("ringbridge-may-not-ask", False),
        ("ringbridge-pressed", False),
        ("ringbridge-not-pressed", False),
        ("ringbridge-ask", False),
    ]


def test_who_is_asked_gets_to_the_agent_by_1_alone() -> None:
    to_agent = [e.get("name") for e in PLAN.iter("extension") for a in e.iter("action")
                if a.get("application") == "execute_extension" and "ringbridge-go" in a.get("data", "")]  # fmt: skip
    assert to_agent == ["ringbridge-pressed"]
    assert conditions("pressed") == [("destination_number", "^pressed-1\\z")]
    assert conditions("not-pressed") == [("destination_number", "^pressed-")]
    sound = dict(conditions("may-ask"))["${rb_confirm}"].replace("\\z", "\\Z")
    assert re.search(sound, "lab/notice.wav")
    assert not any(re.search(sound, evil + ".wav") for evil in ("", "a b", "../x", "x,y", "${x}", "a//b", "x|y"))


QUEUE = PLAN[3]


def fitting(number: str, **variables: str) -> list[str]:
    """The extensions of the queue's key that FreeSWITCH may choose for a step, by the conditions without a function."""
    found = []
    for one in QUEUE:
        for condition in one:
            field, pattern = condition.get("field", ""), condition.get("expression", "")
            if condition.get("break") == "never" or "(" in field:
                continue
            values = re.sub(r"\$\{(\w+)\}", lambda name: variables.get(name[1], ""), field)
            said = number if field == "destination_number" else values
            if not re.search(pattern.replace("\\z", "\\Z"), said):
                break
        else:
            found.append((one.get("name") or "").removeprefix("ringbridge-"))
    return found


@pytest.mark.parametrize(
    ("step", "variables", "chosen"),
    [
        ("wait", {"rb_queue": "support@example.com"}, "wait"),
        ("turn", {"rb_over": "no"}, "turn"),
        ("turn", {"rb_over": "yes"}, None),
        ("left-EXIT_WITH_KEY", {}, "key"),
        ("left-TIMEOUT", {}, "left"),
        ("left-", {}, "left"),
        ("step-confirm", {}, "confirm-number"),
        ("step-line", {}, None),
        ("key-1", {}, "yes"),
        ("key-2", {}, "another"),
        ("key-", {}, "no-key"),
        ("key-11", {}, "no-key"),
        ("step-type", {"rb_tries": "2"}, "type"),
        ("step-type", {"rb_tries": "3"}, None),
        ("typed-6465550101", {}, "typed"),
        ("typed-646555", {}, None),
        ("typed-", {}, "typed-nothing"),
        ("step-send", {"rb_wish": "+16465550101"}, "send"),
        ("step-send", {"rb_wish": "1,Event-Name=x"}, None),
        ("answer-2-yes-2", {}, "thanks"),
        ("answer-2-yes-1", {}, None),
        ("answer-12-yes-2", {}, None),
        ("answer-2-no-2", {}, "refused"),
        ("answer-2-back-2", {}, None),
        ("answer-2-", {}, None),
        ("poll", {"rb_question": "2", "rb_answer": "yes-2"}, "poll"),
        ("poll", {"rb_question": "2", "rb_answer": "yes-1"}, None),
    ],
)
def test_each_step_of_the_queues_key_leads_where_it_should(
    step: str, variables: dict[str, str], chosen: str | None
) -> None:
    """None: nothing is done there, or what is for a condition that is not met, and the caller's wait goes on."""
    assert fitting(step, **variables)[:1] == ([chosen] if chosen else [])


def test_nobody_is_placed_in_a_queue_before_the_checks_and_the_receipt() -> None:
    names = [(e.get("name"), e.get("continue") == "true") for e in PLAN[2]]
    assert names == [
        ("ringbridge-no-place", True),
        ("ringbridge-may-wait", True),
        ("ringbridge-may-not-wait", False),
        ("ringbridge-queue-domain", True),
        ("ringbridge-place", False),
    ]
    assert conditions("may-not-wait") == [("${rb_may_wait}", "^no\\z")]
    checks = dict(conditions("may-wait"))
    assert all(pattern.startswith("^") and pattern.endswith("\\z") for pattern in checks.values())
    queue = checks["${rb_queue}"].replace("\\z", "\\Z")
    assert re.search(queue, "support-1")
    assert not any(re.search(queue, evil) for evil in (*EVIL, "", "a@b", "a\n", "a" * 65))
    bare, last = list(extension("place").iter("condition"))
    assert len(bare) == 0 and (bare.get("field"), bare.get("expression")) == ("${rb_may_wait}", "^yes\\z")
    assert "insert_ifempty/ringbridge/${rb_attempt}-agent/" in last.get("field", "")
    assert [name for name, _ in steps("place")].count("callcenter") == 1
    assert "callcenter" not in {name for name, _ in steps("place", "anti-action")}


def test_nobody_is_dialled_or_thanked_by_the_queues_key_unless_ringbridge_said_yes() -> None:
    assert not {a.get("application") for a in QUEUE.iter("action")} & {"bridge", "transfer", "hash"}
    ends = [e.get("name") for e in QUEUE for a in e.iter("action") if a.get("application") == "hangup"]
    assert ends == ["ringbridge-thanks"]


def test_no_application_or_function_beyond_the_few_that_are_needed() -> None:
    """No system, lua, curl or transfer: what is not in the list is not in the plan."""
    found = [step for kind in ("action", "anti-action") for step in PLAN.iter(kind)]
    assert {step.get("application") for step in found} == APPLICATIONS
    text = dialplan.freeswitch_dialplan()
    assert set(re.findall(r"\$\{([a-z_]+)\(", text)) == FUNCTIONS
    assert "$${" not in text
    assert "X-PRE-PROCESS" not in text
    inline = [step for step in found if step.get("inline")]
    assert {step.get("application") for step in inline} == {"set"}


def test_the_version_that_check_asks_for_is_the_files() -> None:
    assert steps("version")[0] == ("log", f"NOTICE Ringbridge dialplan {DIALPLAN_VERSION}")


def test_every_variable_from_outside_is_checked_by_a_whole_pattern() -> None:
    checked = set()
    for field, pattern in conditions("check"):
        names = re.findall(r"\$\{(\w+)\}", field)
        checked |= set(names)
        assert pattern.startswith("^") and pattern.endswith("\\z"), pattern
        whole = pattern.removesuffix("\\z") + "\\Z"

        def filled(values: dict[str, str], field: str = field) -> str:
            return re.sub(r"\$\{(\w+)\}", lambda found: values[found[1]], field)

        assert re.search(whole, filled(GOOD)), field
        for name in names:
            for evil in (*EVIL, GOOD[name] + "\n", GOOD[name] + "\nx", GOOD[name] + ",x=y"):
                assert not re.search(whole, filled(GOOD | {name: evil})), (name, evil)
    assert checked == FROM_OUTSIDE
    assert steps("check") == [("set", "rb_checked=yes")]
    assert steps("unchecked")[0] == ("set", "rb_checked=no")


@pytest.mark.parametrize(("leg", "first"), [("customer", "agent"), ("agent", "customer")])
def test_nothing_is_dialled_before_check_and_receipt(leg: str, first: str) -> None:
    assert conditions(leg) == [
        ("${rb_checked}/${rb_first}", f"^yes/{first}\\z"),
        (f"${{hash(insert_ifempty/ringbridge/${{rb_attempt}}-{leg}/${{strepoch()}}-dialed)}}", "^[+]OK"),
    ]
    bare, last = list(extension(leg).iter("condition"))
    assert len(bare) == 0, "what stands in the first condition would run without a receipt"
    assert last.get("break") is None
    assert [name for name, _ in steps(leg)].count("bridge") == 1
    refused = steps(leg, "anti-action")
    assert [name for name, _ in refused] == ["event", "hangup"]
    assert "Ringbridge-Result=refused" in refused[0][1]
    assert "bridge" not in {step.get("application") for e in PLAN.iter("extension") for step in e.iter("anti-action")}


@pytest.mark.parametrize(("leg", "target"), [("customer", "${rb_dial}"), ("agent", "${rb_agent}")])
def test_a_second_leg_says_whose_it_is(leg: str, target: str) -> None:
    (data,) = (data for name, data in steps(leg) if name == "bridge")
    found = re.fullmatch(r"\{(.*)\}(\$\{rb_\w+\})", data)
    assert found and found[2] == target
    variables = dict(pair.split("=", 1) for pair in found[1].split(","))
    assert variables["rb_attempt"] == variables["sip_h_X-Ringbridge-Attempt"] == "${rb_attempt}"
    assert variables["rb_leg"] == leg
    assert variables["originate_timeout"] == f"${{rb_{leg}_ring}}"
    # The attempt's id is the customer's channel; an agent may have two phones, and two channels cannot have one id.
    assert variables.get("origination_uuid") == ("${rb_attempt}" if leg == "customer" else None)
    # The customer's receipt turns as they answer; an agent's says no more than that the phone was dialled.
    answered = "hash:insert/ringbridge/${rb_attempt}-customer/${strepoch()}-answered"
    assert variables.get("execute_on_answer_ringbridge") == (answered if leg == "customer" else None)
    # Early media is no answer: neither for the ring time, nor for who is told that two people talk.
    early = {name: value for name, value in variables.items() if "early_media" in name}
    assert early in ({"bridge_early_media": "true", "ignore_early_media": "false"}, {"ignore_early_media": "true"})
    settings = dict(pair.split("=", 1) for name, pair in steps(leg) if name == "set")
    # Whatever the directory says of the first leg's phone, the call ends with its other side.
    assert settings["hangup_after_bridge"] == settings["continue_on_fail"] == "true"


def test_unchecked_values_are_only_looked_at() -> None:
    for name in ("version", "unchecked", "check", "invalid"):
        assert all("${" not in data for _, data in steps(name)), name


def test_the_users_are_the_smallest_that_freeswitch_can_express() -> None:
    text = dialplan.freeswitch_users(reader_secret="r" * 32, command_secret="c" * 32)
    assert "@" not in text
    domain = ET.fromstring(text)[0]
    assert domain.get("name") == dialplan.FREESWITCH_DOMAIN
    shared = {p.get("name"): p.get("value") for p in domain.findall("./params/param")}
    assert shared == {
        "sip-forbid-register": "true",
        "allow-empty-password": "false",
        "dial-string": "error/CALL_REJECTED",
        "esl-allowed-log": "false",
    }
    users = {
        user.get("id"): {p.get("name"): p.get("value") or "" for p in user.iter("param")}
        for user in domain.iter("user")
    }
    assert set(users) == {"ringbridge", "ringbridge-dial"}
    reader, commander = users["ringbridge"], users["ringbridge-dial"]
    # A SIP password would make a phone of it.
    assert set(reader) == set(commander) == {"esl-password", "esl-allowed-events", "esl-allowed-api"}
    assert reader["esl-allowed-events"].split() == [*EVENTS, CUSTOM, *SUBCLASSES]
    assert reader["esl-allowed-api"].split() == ["show", "status", "strepoch", "uuid_dump", "callcenter_config"]
    assert commander["esl-allowed-events"] == "BACKGROUND_JOB"
    own = "expand originate hash uuid_kill strepoch xml_locate sofia show"
    assert commander["esl-allowed-api"] == f"{own} {' '.join(ACTED)}"


@pytest.mark.parametrize("secret", ["c" * 32, None])
def test_the_reply_to_a_sign_in_is_not_cut(secret: str | None) -> None:
    """FreeSWITCH writes it into 512 bytes; cut, it has no end, and whoever signs in waits for one."""
    domain = ET.fromstring(dialplan.freeswitch_users(reader_secret="r" * 32, command_secret=secret))
    for user in domain.iter("user"):
        values = {p.get("name"): p.get("value") for p in user.iter("param")}
        reply = (
            f"~Reply-Text: +OK accepted\nAllowed-Events: {values['esl-allowed-events']}\n"
            f"Allowed-API: {values['esl-allowed-api']}\nAllowed-LOG: false\n\n"
        )
        assert len(reply) < 512, user.get("id")


def test_observe_has_no_user_that_may_dial() -> None:
    text = dialplan.freeswitch_users(reader_secret="r" * 32, command_secret=None)
    assert [user.get("id") for user in ET.fromstring(text).iter("user")] == ["ringbridge"]
    assert "originate" not in text


@pytest.mark.parametrize("secret", ["", "a\nb", 'a"/><x y="', "a&b", "a b", "$${domain}", "x" * 129, "@DOMAIN@"])
def test_a_secret_that_could_mean_something_is_refused(secret: str) -> None:
    with pytest.raises(ValueError):
        dialplan.freeswitch_users(reader_secret=secret, command_secret="good")
    with pytest.raises(ValueError):
        dialplan.freeswitch_users(reader_secret="good", command_secret=secret)


def test_the_list_of_addresses_lets_nobody_else_in() -> None:
    found = ET.fromstring(re.sub(r"<!--.*?-->", "", dialplan.freeswitch_acl("192.0.2.7"), flags=re.DOTALL).strip())
    assert (found.tag, found.get("default")) == ("list", "deny")
    assert [node.get("cidr") for node in found] == ["127.0.0.1/32", "192.0.2.7/32"]
    for wrong in ("", "any", "192.0.2.7/33", '1.1.1.1"/>'):
        with pytest.raises(ValueError):
            dialplan.freeswitch_acl(wrong)


def test_the_sample_queue_names_phones_and_not_detours() -> None:
    config = ET.fromstring(re.sub(r"<!--.*?-->", "", dialplan.freeswitch_queue(), flags=re.DOTALL).strip())
    assert config.get("name") == "callcenter.conf"
    contacts = [agent.get("contact", "") for agent in config.iter("agent")]
    assert contacts and all(re.fullmatch(r"(\[[^\]]*\])?user/\w+@[\w.]+", contact) for contact in contacts)


def test_every_file_of_the_folder_is_installed_with_the_package() -> None:
    folder = Path(dialplan.__file__).parent / "freeswitch"
    named = (
        dialplan.FREESWITCH_DIALPLAN,
        dialplan.FREESWITCH_USERS,
        dialplan.FREESWITCH_ACL,
        dialplan.FREESWITCH_QUEUE,
    )
    assert sorted(path.name for path in folder.iterdir()) == sorted(named)

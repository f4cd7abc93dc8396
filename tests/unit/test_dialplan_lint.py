"""The files that go into a company's PBX: read as text, since a slip there costs money or opens a door."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

import ringbridge_dialplan
from bridge.pbx.ami.hearing import HEARD, REPORTED, UNHEARD
from bridge.pbx.ami.inspection import DIALPLAN_VERSION
from ringbridge_lab import lab as laboratory

PLAN = ringbridge_dialplan.asterisk_dialplan()
LAB_FILES = sorted(Path(laboratory.__file__).parent.glob("*/*.conf"))
FOREVER_ALLOWED = {
    "Dial",
    "ExecIf",
    "Gosub",
    "GotoIf",
    "Goto",
    "Hangup",
    "NoOp",
    "Return",
    "Set",
    "UserEvent",
}
ACTING = {
    "Answer",
    "BridgeAdd",
    "ChanSpy",
    "MixMonitor",
    "MusicOnHold",
    "ParkedCall",
    "PickupChan",
    "Playback",
    "Wait",
}
"""What `ringbridge-act` may do beside (and SoftHangup, to its own music); the other contexts may not."""
FUNCTIONS = {"CALLERID", "CDR_PROP", "CHANNEL", "DB", "DB_DELETE", "DB_EXISTS", "FILTER", "IF", "LOCK", "PJSIP_HEADER"}
FUNCTIONS |= {"LEN", "REGEX", "UNLOCK"}
FROM_OUTSIDE = {
    "RB_ATTEMPT",
    "RB_UNTIL",
    "RB_FIRST",
    "RB_AGENT",
    "RB_NUMBER",
    "RB_DIAL",
    "RB_CALLER",
    "RB_AGENT_RING",
    "RB_CUSTOMER_RING",
}
ACT = "ringbridge-act"
ASK = "ringbridge-confirm"
PLACE = "ringbridge-place"
QUEUE = ("ringbridge-queue", "ringbridge-queue-key")
GOOD = {
    "RB_COMMAND": ["f44868bd-339b-40cb-a91b-6931e2120fb5"],
    "RB_UNTIL": ["1790000000"],
    "RB_LEG": ["1795374259.1", "pbx-east-1795374259.1", "f44868bd-339b-40cb-a91b-6931e2120fb5"],
    "RB_CHANNEL": ["PJSIP/101-0000002a", "DAHDI/i1/4-1", "Local/101@agents-00000001;1", "IAX2/trunk-4"],
    "RB_SOUND": ["beep", "en/digits/1", "custom/please_wait-2"],
    "RB_FILE": ["ringbridge/pbx-1795374259.1-1795374260.wav"],
    "RB_LOT": ["default", "lot_2"],
    "RB_SLOT": ["701"],
}
"""What an action may need, each with values as they come."""
NEEDS = {
    "hold": {"begin"},
    "play": {"begin", "RB_SOUND"},
    "rest": {"begin"},
    "held": {"leg"},
    "tell-one": {"leg"},
    "tell-both": {"leg"},
    "record": {"leg", "RB_FILE"},
    "listen": {"leg"},
    "whisper": {"leg"},
    "barge": {"leg"},
    "pickup": {"channel"},
    "retrieve": {"begin", "RB_LOT", "RB_SLOT"},
    "third": {"channel"},
}
"""By which checks each extension of `ringbridge-act` begins, before it does anything."""


@dataclass(frozen=True)
class Step:
    context: str
    extension: str
    priority: str
    label: str | None
    application: str
    arguments: str


def parse(text: str) -> list[Step]:
    """Every priority of a dialplan; a line that is none is a fault."""
    steps: list[Step] = []
    context = extension = ""
    for number, line in enumerate(text.splitlines(), 1):
        line = re.sub(r"(^|\s);.*", "", line).strip()
        if not line:
            continue
        if header := re.fullmatch(r"\[([a-z-]+)\]", line):
            context = header[1]
            continue
        found = re.fullmatch(
            r"(?:exten => (?P<exten>[^,]+),(?P<first>1)|same => (?P<next>n)(?:\((?P<label>\w+)\))?)"
            r",(?P<app>\w+)\((?P<args>.*)\)",
            line,
        )
        assert found, f"line {number} is no priority: {line}"
        extension = found["exten"] or extension
        steps.append(
            Step(context, extension, found["first"] or "n", found["label"], found["app"], found["args"])
        )
    return steps


STEPS = parse(PLAN)


def extension(context: str, name: str) -> list[Step]:
    return [step for step in STEPS if (step.context, step.extension) == (context, name)]


def test_the_contexts_are_those_that_ringbridge_originates_into() -> None:
    ours = {"ringbridge-leg", "ringbridge-answered", "ringbridge-go"}
    assert {step.context for step in STEPS} == {*ours, ASK, PLACE, ACT, *QUEUE}
    assert extension("ringbridge-leg", "first") and extension("ringbridge-go", "second")


def test_no_application_or_function_beyond_the_few_that_are_needed() -> None:
    """No System, no SHELL, no FILE, no CURL, no Exec: what is not in the list is not in the plan."""
    assert {step.application for step in STEPS if step.context not in (ASK, ACT, *QUEUE)} == FOREVER_ALLOWED
    asking = {step.application for step in STEPS if step.context == ASK}
    assert asking == {"Background", "Goto", "GotoIf", "Gosub", "Hangup", "Set", "UserEvent", "WaitExten"}
    waiting = {step.application for step in STEPS if step.context in QUEUE}
    assert waiting <= FOREVER_ALLOWED - {"Dial"} | {"Answer", "Playback", "Queue", "Read", "Verbose", "Wait"}
    acting = {step.application for step in STEPS if step.context == ACT}
    assert acting == FOREVER_ALLOWED - {"NoOp"} | ACTING
    used = set(re.findall(r"\b([A-Z][A-Z_]+)\(", "\n".join(step.arguments for step in STEPS)))
    assert used == FUNCTIONS


def test_brackets_match_on_every_line() -> None:
    for step in STEPS:
        for opening, closing in ("()", "{}", "[]"):
            text = re.sub(r'"[^"]*"', "", step.arguments)
            assert text.count(opening) == text.count(closing), step


def test_the_version_that_check_asks_for_is_the_files() -> None:
    marker = extension("ringbridge-leg", "version")[0]
    assert (marker.application, marker.arguments) == ("NoOp", f"Ringbridge dialplan {DIALPLAN_VERSION}")


def test_every_goto_has_somewhere_to_go() -> None:
    known = {(step.context, step.extension) for step in STEPS}
    for step in STEPS:
        for context, name in re.findall(r"(ringbridge-\w+)[,^]([^,^]+)[,^]1", step.arguments):
            assert (context, name) in known or name in ("${RB_NUMBER}", "${GOSUB_RETVAL}"), step
        if step.application == "GotoIf":
            target = step.arguments.rpartition("?")[2]
            if re.fullmatch(r"\w+", target):
                labels = {other.label for other in extension(step.context, step.extension)}
                assert target in labels, step


def test_every_way_ends(subtests: object = None) -> None:
    ends = {"Hangup", "Return", "Goto"}
    for context, name in {(step.context, step.extension) for step in STEPS}:
        assert extension(context, name)[-1].application in ends, (context, name)


def test_nothing_is_dialled_before_check_and_receipt() -> None:
    dialling = {(step.context, step.extension) for step in STEPS if step.application == "Dial" and step.context != ACT}
    assert dialling == {("ringbridge-leg", "agent"), ("ringbridge-leg", "_[+0-9]!")}
    for context, name in dialling:
        steps = extension(context, name)
        at = next(i for i, step in enumerate(steps) if step.application == "Dial")
        before = [(step.application, step.arguments) for step in steps[:at]]
        late = '"${RB_LEG}" = "${RB_FIRST}" & ${EPOCH} > ${RB_UNTIL}'
        gates = [
            ("Gosub", "ringbridge-leg,check,1"),
            ("GotoIf", '$["${GOSUB_RETVAL}" != "ok"]?ringbridge-leg,invalid,1'),
            ("GotoIf", f"$[{late}]?ringbridge-leg,stale,1"),
            ("Gosub", "ringbridge-leg,receipt,1"),
            ("GotoIf", '$["${GOSUB_RETVAL}" != "ok"]?ringbridge-leg,refused,1'),
        ]
        assert before[1:6] == gates, "the leg's name, then the gates, then anything else"
        assert before[0][0] == "Set" and before[0][1].startswith("RB_LEG=")


def test_who_is_asked_gets_to_the_agent_by_1_alone() -> None:
    steps = [(step.application, step.arguments) for step in extension(ASK, "ask")]
    assert steps[:3] == [
        ("Gosub", "ringbridge-leg,check,1"),
        ("GotoIf", '$["${GOSUB_RETVAL}" != "ok"]?ringbridge-leg,invalid,1'),
        ("GotoIf", '$[${REGEX("^customer$" ${RB_FIRST})} = 0]?ringbridge-leg,invalid,1'),
    ]
    sound = re.search(r'"(\^.*\$)" \$\{RB_CONFIRM\}', steps[3][1])
    assert sound and all(re.fullmatch(sound[1], good) for good in GOOD["RB_SOUND"])
    assert not any(re.fullmatch(sound[1], evil) for evil in ("", "a b", "x,1", "x&y", "${X}", "../x", "x)", "a//b"))
    ways = {step.extension for step in STEPS if step.context == ASK and "ringbridge-go" in step.arguments}
    assert ways == {"1"}


def test_every_variable_from_outside_is_checked_by_a_whole_pattern() -> None:
    checks = [step for step in extension("ringbridge-leg", "check") if step.application == "GotoIf"]
    patterns = {}
    for step in checks:
        found = re.fullmatch(r'\$\[\$\{REGEX\("(\^.*\$)" \$\{(\w+)\}\)\} = 0\]\?bad', step.arguments)
        assert found, step
        patterns[found[2]] = found[1]
    assert set(patterns) == FROM_OUTSIDE
    for name, pattern in patterns.items():
        for evil in (
            "a b",
            "x,1",
            "x&y",
            "x|y",
            "x)",
            "x(",
            "${X}",
            "$[1]",
            'x"',
            "x;y",
            "x\\y",
            "x\ny",
            "x^y",
            "x?y",
        ):
            assert not re.fullmatch(pattern, evil), (name, evil)
    good = {
        "RB_ATTEMPT": "f44868bd-339b-40cb-a91b-6931e2120fb5",
        "RB_UNTIL": "1790000000",
        "RB_FIRST": "customer",
        "RB_AGENT": "PJSIP/101",
        "RB_NUMBER": "+16465550101",
        "RB_DIAL": "PJSIP/+16465550101@trunk",
        "RB_CALLER": "",
        "RB_AGENT_RING": "15",
        "RB_CUSTOMER_RING": "25",
    }
    for name, value in good.items():
        assert re.fullmatch(patterns[name], value), name
    # The one pattern for numbers, everywhere (DESIGN section 10).
    assert patterns["RB_NUMBER"].replace("[+]", r"\+") == r"^\+?[0-9]{3,15}$"


def test_an_action_dials_nobody_but_its_own_music() -> None:
    assert [step.arguments for step in STEPS if step.application == "Dial" and step.context == ACT] == [
        "Local/music@ringbridge-act/n,5"
    ]


def checks(name: str) -> dict[str, str]:
    """The pattern of each variable that an extension of `ringbridge-act` looks at."""
    found = {}
    for step in extension(ACT, name):
        match = re.match(r'\$\[\$\{REGEX\("(\^.*\$)" \$\{(RB_\w+)\}\)\} = 0\]\?', step.arguments)
        if step.application == "GotoIf" and match:
            found[match[2]] = match[1].replace("\\\\;", ";")
    return found


def act_patterns() -> dict[str, str]:
    """All of them."""
    names = (*NEEDS, "begin", "leg", "channel")
    return {variable: pattern for name in names for variable, pattern in checks(name).items()}


def test_an_action_begins_with_its_checks() -> None:
    """Nothing happens, and no value reaches an application, before the whole of it was matched."""
    names = {step.extension for step in STEPS if step.context == ACT}
    assert names == {*NEEDS, "music", "unhold", "over", "stale", "invalid", "begin", "leg", "channel"}
    for name, needs in NEEDS.items():
        [first] = needs & {"begin", "leg", "channel"}
        steps = extension(ACT, name)
        assert (steps[0].application, steps[0].arguments) == ("Gosub", f"{ACT},{first},1")
        gate = f'$["${{GOSUB_RETVAL}}" != "ok"]?{ACT},${{GOSUB_RETVAL}},1'
        assert (steps[1].application, steps[1].arguments) == ("GotoIf", gate)
        own = needs - {first}
        assert set(checks(name)) == own
        for step in steps[2 : 2 + len(own)]:
            assert step.application == "GotoIf" and step.arguments.endswith(f"= 0]?{ACT},invalid,1")
        checked = {"RB_COMMAND", "RB_UNTIL", *own, *checks("begin"), *checks(first)}
        used = set(re.findall(r"\$\{(RB_\w+)\}", "\n".join(step.arguments for step in steps)))
        assert used <= checked, name


def test_the_checks_let_only_plain_values_through() -> None:
    patterns = act_patterns()
    assert set(patterns) == set(GOOD)
    for variable, pattern in patterns.items():
        for good in GOOD[variable]:
            assert re.fullmatch(pattern, good), (variable, good)
        for evil in ("", "a b", "x,1", "x&y", "x|y", "x)", "${X}", "$[1]", 'x"', "x\\y", "x\ny", "x^y", "x?y", "../x"):
            assert not re.fullmatch(pattern, evil), (variable, evil)
    assert not re.fullmatch(patterns["RB_CHANNEL"], "PJSIP/101;rm")
    assert not re.fullmatch(patterns["RB_FILE"], "ringbridge/../x.wav")


def test_python_and_dialplan_check_alike() -> None:
    from bridge.pbx.ami.orders import ACT_VALUES

    assert set(act_patterns()) == {*ACT_VALUES, "RB_COMMAND", "RB_UNTIL"}
    for variable, good in GOOD.items():
        if variable in ACT_VALUES:
            assert all(ACT_VALUES[variable].fullmatch(value) for value in good), variable


def test_unchecked_values_meet_only_regex_and_filter() -> None:
    """Before the check, a value may not stand in an expression, where its quotes would be code."""
    gated = {
        ("ringbridge-leg", name) for name in ("agent", "customer", "_[+0-9]!", "over", "refused", "stale", "receipt")
    }
    gated |= {(ASK, name) for name in ("prompt", "t", "i")}
    gated |= {(PLACE, "stay")}
    gated |= {(ACT, name) for name in (*NEEDS, "over", "stale", "begin")}
    for step in STEPS:
        if (step.context, step.extension) in gated or step.context in QUEUE:
            continue
        bare = re.sub(r'\$\{(?:REGEX\("[^"]*" |FILTER\([a-f0-9z-]+,)\$\{RB_\w+\}\)\}', "", step.arguments)
        assert "${RB_" not in bare, step


def test_nobody_is_placed_in_a_queue_before_the_checks_and_the_receipt() -> None:
    steps = extension(PLACE, "line")
    assert steps[0].arguments == "ringbridge-leg,check,1" and steps[-1].arguments == "ringbridge-place,stay,1"
    assert all(step.arguments.endswith("?ringbridge-leg,invalid,1") for step in steps[1:-1])
    asked = dict(re.findall(r'REGEX\("([^"]+)" \$\{(RB_\w+)\}', " ".join(step.arguments for step in steps)))
    patterns = {variable: pattern for pattern, variable in asked.items()}
    assert set(patterns) == {"RB_FIRST", "RB_AGENT", "RB_JOINED"}
    assert re.fullmatch(patterns["RB_AGENT"], "Queue/support-1")
    for evil in ("PJSIP/101", "Queue/", "Queue/a,1", "Queue/a&b", "Queue/a b", "Queue/${x}", "Queue/" + "a" * 65):
        assert not re.fullmatch(patterns["RB_AGENT"], evil), evil
    # The one way into the queue is there, behind the receipt.
    stay = [(step.application, step.arguments) for step in extension(PLACE, "stay")]
    receipt = stay.index(("Gosub", "ringbridge-leg,receipt,1"))
    assert stay[receipt + 1][1] == '$["${GOSUB_RETVAL}" != "ok"]?ringbridge-leg,${GOSUB_RETVAL},1'
    assert stay.index(("Gosub", "ringbridge-queue,line,1")) > receipt
    assert {step.context for step in STEPS if "ringbridge-queue,line,1" in step.arguments} == {*QUEUE[:1], PLACE}


def test_what_a_waiting_caller_says_is_filtered_before_anything_else() -> None:
    """Who is on the phone, and how `wait` was called, meet FILTER first; keys are digits by themselves."""
    steps = [step for step in STEPS if step.context in QUEUE]
    outside = [step for step in steps if re.search(r"\$\{(ARG\d|CALLERID\(num\)|RB_REST)", step.arguments)]
    assert len(outside) == 6
    value = r"\$\{(ARG\d|CALLERID\(num\)|RB_KEY|RB_REST)\}"
    for step in outside:
        assert re.fullmatch(rf"RB_\w+=\$\{{FILTER\([^,$]+,({value})+\)\}}", step.arguments), step
    said = [step for step in steps if step.application == "UserEvent"]
    assert [step.arguments for step in said] == [
        "RingbridgeCallback,Queue: ${RB_QUEUE},Number: ${RB_WISH},Question: ${RB_QUESTION}"
    ]


def test_thanks_are_said_to_nobody_whose_wish_is_not_kept() -> None:
    ways = [step for step in STEPS if "ringbridge-queue,thanks,1" in step.arguments]
    assert [step.arguments for step in ways] == [
        '$["${RB_ANSWER}" = "yes-${RB_QUESTION}"]?ringbridge-queue,thanks,1'
    ]


def test_test_and_set_happen_under_one_lock_that_is_always_given_back() -> None:
    steps = extension("ringbridge-leg", "receipt")
    flow = [step.arguments for step in steps]
    lock = next(i for i, text in enumerate(flow) if "${LOCK(ringbridge)}" in text)
    test = next(i for i, text in enumerate(flow) if "DB_EXISTS(ringbridge/${RB_KEY})" in text)
    mark = next(i for i, text in enumerate(flow) if text == "DB(ringbridge/${RB_KEY})=${EPOCH}-dialed")
    gives_back = [i for i, text in enumerate(flow) if "UNLOCK(ringbridge)" in text]
    assert lock < test < mark < gives_back[0] < gives_back[1]
    returned = [step.arguments for step in steps if step.application == "Return"]
    assert returned == ["ok", "refused"]


def test_the_customers_receipt_turns_as_they_answer_and_nobody_elses() -> None:
    dials = {step.extension: step.arguments for step in STEPS if step.application == "Dial" and step.context != ACT}
    turned = {name: "U(ringbridge-answered^${RB_ATTEMPT})" in text for name, text in dials.items()}
    assert turned == {"agent": False, "_[+0-9]!": True}
    steps = [(step.application, step.arguments) for step in extension("ringbridge-answered", "s")]
    assert steps == [("Set", "DB(ringbridge/${ARG1}-customer)=${EPOCH}-answered"), ("Return", "")]


def test_the_attempts_id_travels_in_the_invite() -> None:
    dials = [step.arguments for step in STEPS if step.application == "Dial" and step.context != ACT]
    assert dials and all("b(ringbridge-leg^header^1(${RB_ATTEMPT}))" in text for text in dials)
    (header, _) = extension("ringbridge-leg", "header")
    assert "PJSIP_HEADER(add,X-Ringbridge-Attempt)=${ARG1}" in header.arguments


def test_the_ami_users_have_the_smallest_classes() -> None:
    text = ringbridge_dialplan.asterisk_manager(reader_secret="r" * 32, command_secret="c" * 32)
    assert "@" not in re.sub(r"(?m)^;.*$", "", text)
    users = {
        name: dict(re.findall(r"(?m)^(\w+) =[ \t]*(.*)$", body))
        for name, body in re.findall(r"(?ms)^\[([\w-]+)\]\n(.*?)(?=^\[|\Z)", text)
    }
    assert set(users) == {"ringbridge", "ringbridge-dial"}
    assert users["ringbridge"]["read"] == "system,call,agent,user"
    assert users["ringbridge"]["write"] == "reporting"
    assert users["ringbridge-dial"]["read"] == ""
    assert users["ringbridge-dial"]["write"] == "originate,call,agent,reporting"
    for user in users.values():
        assert (user["deny"], user["permit"]) == ("0.0.0.0/0.0.0.0", "127.0.0.1/255.255.255.255")


@pytest.mark.parametrize("secret", ["", "a\nwrite = all", "a;b", "a b", "x" * 129, "a\0b", "@READER_SECRET@"])
def test_a_secret_that_could_end_its_line_is_refused(secret: str) -> None:
    with pytest.raises(ValueError):
        ringbridge_dialplan.asterisk_manager(reader_secret=secret, command_secret="good")


@pytest.mark.parametrize("path", LAB_FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_lab_listens_on_loopback_only(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for key, value in re.findall(r"(?m)^(bind|bindaddr|media_address)\s*=\s*(\S+)", text):
        assert value.split(":")[0] == "127.0.0.1", key
    assert not re.search(r"\b(System|TrySystem|SHELL|AGI|CURL)\b\(", text)


def test_the_event_filter_holds_back_only_what_nobody_hears() -> None:
    manager = ringbridge_dialplan.asterisk_manager(reader_secret="r" * 16, command_secret="c" * 16)
    [pattern] = re.findall(r"^eventfilter = !(.*)$", manager, re.MULTILINE)
    [names] = re.findall(r"\^Event: \((.*)\)\[\[:cntrl:\]\]", pattern)
    held_back = set(names.split("|"))
    assert held_back <= UNHEARD
    assert held_back.isdisjoint({*HEARD, *REPORTED, "FullyBooted"})
    # Half of what a busy PBX says.
    assert held_back >= {"VarSet", "Newexten", "DeviceStateChange", "QueueMemberStatus", "NewConnectedLine"}
    matches = re.compile(pattern.replace("[[:cntrl:]]", r"[\x00-\x1f]")).search
    rest = "\r\nCallerIDName: x Event: VarSet\r\nCallerIDNum: ^Event: CEL\r\n\r\n"
    assert not [name for name in (*HEARD, *REPORTED, "VarSetting", "CELs") if matches(f"Event: {name}{rest}")]
    assert all(matches(f"Event: {name}{rest}") for name in held_back)

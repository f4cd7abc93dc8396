"""`ringbridge check` of a FreeSWITCH that keeps it out or lets it see little: what it says to change works there."""

from __future__ import annotations

from bridge.pbx.esl.inspection import inspect
from bridge.pbx.findings import Finding, Verdict
from bridge.pbx.sim.esl import FakeFreeSWITCH
from bridge.settings import Pbx

SECRET = "a-secret-of-some-length"
READER, DIALLER = "ringbridge@ringbridge", "ringbridge-dial@ringbridge"


def looked(server: FakeFreeSWITCH, **more: object) -> dict[str, Finding]:
    pbx = Pbx.model_validate({"name": "main", "kind": "freeswitch", "port": server.port, "secret": SECRET, **more})
    return {finding.about: finding for finding in inspect(pbx, observe=False, watch_seconds=0)}


def test_a_refused_address_is_named_with_what_freeswitch_reads_a_list_again_by() -> None:
    """`reloadxml` does not: seen on 1.11, whose lists change with `reloadacl` alone."""
    with FakeFreeSWITCH({"": SECRET}) as server:
        server.rejects = True
        found = looked(server)
    assert set(found) == {"reachable"}
    assert found["reachable"].verdict is Verdict.FAIL
    assert "(127.0.0.1)" in found["reachable"].meaning
    assert 'cidr="127.0.0.1/32"' in found["reachable"].change and "reloadacl" in found["reachable"].change


def test_what_a_command_user_lacks_is_the_list_that_init_writes() -> None:
    """With less than that, check itself could not see the dialplan next time."""
    with FakeFreeSWITCH({READER: SECRET, DIALLER: SECRET}) as server:
        server.allowed_api[DIALLER] = {"originate"}
        server.allowed_events[DIALLER] = {"BACKGROUND_JOB"}
        found = looked(server, username=READER, command_username=DIALLER, command_secret=SECRET)
    assert found["command user's permissions"].verdict is Verdict.FAIL
    whole = "expand originate hash uuid_kill strepoch xml_locate sofia show"
    assert whole in found["command user's permissions"].change
    assert found["contexts"].verdict is Verdict.WARN and whole in found["contexts"].change


def test_the_event_sockets_own_password_is_answered_with_what_init_needs() -> None:
    with FakeFreeSWITCH({"": SECRET}) as server:
        found = looked(server)
    assert found["event user's permissions"].verdict is Verdict.WARN
    assert f'username = "{READER}"' in found["event user's permissions"].change

"""init and uninstall on a FreeSWITCH: two files come and go, and nothing else is touched."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner, Result

import ringbridge_dialplan as dialplan
from bridge.cli import cli
from bridge.domain.errors import Invalid, RingbridgeError, SettingsError
from bridge.services import freeswitch_setup
from bridge.services.pbx_setup import Flavour
from bridge.settings import load

ROOT = """\
<?xml version="1.0"?>
<document type="freeswitch/xml">
  <section name="dialplan"><X-PRE-PROCESS cmd="include" data="dialplan/*.xml"/></section>
  <section name="directory"><X-PRE-PROCESS cmd="include" data="directory/*.xml"/></section>
</document>
"""
SOCKET = """\
<configuration name="event_socket.conf"><settings>
  <param name="listen-ip" value="127.0.0.1"/>
  <param name="password" value="not-the-default"/>
</settings></configuration>
"""
LUA = '<param name="xml-handler-bindings" value="configuration,dialplan,directory,languages"/>\n'
USERS, PLAN = "directory/ringbridge-users.xml", "dialplan/ringbridge.xml"

Run = Callable[..., Result]


def files(folder: Path) -> dict[str, str]:
    """Every file but the backups."""
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".before-ringbridge-" not in path.name
    }


@pytest.fixture
def pbx(tmp_path: Path) -> Path:
    folder = tmp_path / "etc" / "freeswitch"
    for name in ("autoload_configs", "dialplan", "directory"):
        (folder / name).mkdir(parents=True)
    (folder / "freeswitch.xml").write_text(ROOT, encoding="utf-8")
    (folder / "autoload_configs" / "event_socket.conf.xml").write_text(SOCKET, encoding="utf-8")
    (folder / "dialplan" / "default.xml").write_text('<include><context name="default"/></include>\n', encoding="utf-8")
    return folder


@pytest.fixture
def run(tmp_path: Path, pbx: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("RINGBRIDGE_CONFIG", str(tmp_path / "ringbridge.toml"))
    nowhere = str(tmp_path / "no-asterisk")

    def call(command: str, *arguments: str, answers: str | None = None) -> Result:
        result = CliRunner().invoke(
            cli,
            [command, "--asterisk-dir", nowhere, "--freeswitch-dir", str(pbx), *arguments],
            input=answers,
            standalone_mode=False,
        )
        if result.exception is not None and not isinstance(result.exception, Exception):
            raise result.exception
        return result

    return call


def test_init_and_uninstall_are_inverse(run: Run, pbx: Path) -> None:
    before = files(pbx)
    assert run("init", "--yes", "--mode", "dial").return_value == 0
    after = files(pbx)
    assert set(after) - set(before) == {USERS, PLAN}
    assert {name: after[name] for name in before} == before, "no file of the PBX is changed"
    assert after[PLAN] == dialplan.freeswitch_dialplan()
    assert stat.S_IMODE((pbx / USERS).stat().st_mode) == 0o640
    assert run("uninstall", "--yes").return_value == 0
    assert files(pbx) == before
    kept = [path.name for path in pbx.rglob("*.before-ringbridge-*")]
    assert kept and not any(name.endswith(".xml") for name in kept), "FreeSWITCH reads every .xml of these folders"


def test_what_init_wrote_are_settings_that_load(run: Run, pbx: Path, tmp_path: Path) -> None:
    run("init", "--yes", "--mode", "dial", "--name", "hq", "--dial", "sofia/gateway/carrier/{number}")
    hq = load(tmp_path / "ringbridge.toml", {}).find_pbx("hq")
    assert (hq.kind, hq.port, hq.context) == ("freeswitch", 8021, "default")
    assert (hq.username, hq.command_username) == ("ringbridge@ringbridge", "ringbridge-dial@ringbridge")
    assert hq.trunks == ("sofia/gateway/*", "sofia/external")
    passwords = {
        user.get("id"): user.find("./params/param[@name='esl-password']").get("value")  # type: ignore[union-attr]
        for user in ET.fromstring((pbx / USERS).read_text(encoding="utf-8")).iter("user")
    }
    assert passwords == {"ringbridge": hq.read_secret(), "ringbridge-dial": hq.read_command_secret()}
    assert hq.read_secret() != hq.read_command_secret()


def test_a_second_run_writes_nothing(run: Run, tmp_path: Path) -> None:
    run("init", "--yes", "--mode", "dial")
    before = files(tmp_path)
    assert "nothing to write" in run("init", "--yes").output
    assert files(tmp_path) == before


def test_nothing_is_changed_without_a_yes(run: Run, tmp_path: Path) -> None:
    before = files(tmp_path)
    result = run("init", answers="\n" * 8 + "n\n")
    assert result.return_value == 1
    assert "Nothing was changed" in result.output
    assert run("init", "--dry-run").return_value == 0
    assert files(tmp_path) == before


def test_secrets_are_not_shown(run: Run, tmp_path: Path) -> None:
    shown = run("init", "--yes", "--mode", "dial").output + run("uninstall", "--dry-run").output
    pbx = load(tmp_path / "ringbridge.toml", {}).find_pbx("main")
    assert "esl-password" in shown
    assert pbx.read_secret() not in shown
    assert pbx.read_command_secret() not in shown


def test_observe_puts_no_user_there_that_may_dial(run: Run, pbx: Path) -> None:
    run("init", "--yes", "--mode", "observe")
    assert "originate" not in (pbx / USERS).read_text(encoding="utf-8")
    assert not (pbx / PLAN).exists()
    run("init", "--yes", "--mode", "dial")
    assert "originate" in (pbx / USERS).read_text(encoding="utf-8")
    assert (pbx / PLAN).exists()


def test_a_fusionpbx_gets_the_users_and_is_told_what_to_paste(run: Run, pbx: Path) -> None:
    (pbx / "autoload_configs" / "lua.conf.xml").write_text(LUA, encoding="utf-8")
    assert freeswitch_setup.detect(pbx) is Flavour.FUSIONPBX
    before = files(pbx)
    shown = run("init", "--yes", "--mode", "dial").output
    assert set(files(pbx)) - set(before) == {USERS}
    assert "Dialplan Manager" in shown
    pasted = "".join(part.partition("----- to here -----")[0] for part in shown.split("----- from here -----\n")[1:])
    names = [extension.get("name") for extension in ET.fromstring(f"<context>{pasted}</context>")]
    whole = [extension.get("name") for extension in ET.fromstring(dialplan.freeswitch_dialplan()).iter("extension")]
    assert names == whole
    run("uninstall", "--yes")
    assert files(pbx) == before


def test_a_commented_binding_is_no_fusionpbx(pbx: Path) -> None:
    (pbx / "autoload_configs" / "lua.conf.xml").write_text(f"<!-- {LUA} -->", encoding="utf-8")
    assert freeswitch_setup.detect(pbx, marks=()) is Flavour.FREESWITCH


def test_for_a_pbx_elsewhere_the_files_are_shown_and_nothing_of_it_is_written(
    run: Run, pbx: Path, tmp_path: Path
) -> None:
    before = files(pbx)
    shown = run("init", "--yes", "--mode", "dial", "--host", "192.0.2.10", "--permit", "192.0.2.20").output
    assert files(pbx) == before
    main = load(tmp_path / "ringbridge.toml", {}).find_pbx("main")
    assert main.read_secret() in shown and main.read_command_secret() in shown
    assert '<context name="ringbridge-go">' in shown
    assert '<node type="allow" cidr="192.0.2.20/32"/>' in shown


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--permit", "nowhere"),
        ("--permit", '1.2.3.4"/>'),
        ("--flavour", "freepbx"),
        ("--dial", "sofia/x"),
        ("--host", "a b"),
    ],
)
def test_a_wrong_value_is_a_sentence_and_writes_nothing(
    run: Run, tmp_path: Path, option: str, value: str
) -> None:
    before = files(tmp_path)
    where = () if option == "--host" else ("--host", "192.0.2.10")
    result = run("init", "--yes", *where, option, value)
    assert isinstance(result.exception, RingbridgeError)
    assert files(tmp_path) == before


def test_settings_with_the_event_sockets_own_password_stay_so(run: Run, pbx: Path, tmp_path: Path) -> None:
    (tmp_path / "ringbridge.toml").write_text(
        '[[pbx]]\nname = "main"\nkind = "freeswitch"\nport = 8021\nsecret = "long"\n', encoding="utf-8"
    )
    run("init", "--yes", "--mode", "dial")
    assert (pbx / PLAN).exists() and not (pbx / USERS).exists()


def test_a_folder_without_a_freeswitch_is_a_sentence_and_writes_nothing(run: Run, tmp_path: Path) -> None:
    """Not taken for a PBX on another machine: whoever names a folder means this one."""
    before = files(tmp_path)
    for command in ("init", "uninstall"):
        result = run(command, "--yes", "--freeswitch-dir", str(tmp_path / "nowhere"))
        assert isinstance(result.exception, Invalid)
        assert "--freeswitch-dir" in str(result.exception)
    assert files(tmp_path) == before


def test_through_a_tunnel_no_address_has_to_be_let_in(run: Run) -> None:
    shown = run("init", "--yes", "--flavour", "remote", "--mode", "dial").output
    assert '<user id="ringbridge-dial">' in shown
    assert "network-lists" not in shown


def test_secrets_of_settings_that_are_there_go_into_the_pbx(run: Run, pbx: Path, tmp_path: Path) -> None:
    own = '[[pbx]]\nname = "main"\nkind = "freeswitch"\nusername = "ringbridge@ringbridge"\nsecret = "long-and-mine"\n'
    (tmp_path / "ringbridge.toml").write_text(own, encoding="utf-8")
    run("init", "--yes", "--mode", "observe")
    refused = run("init", "--yes", "--mode", "dial").exception
    assert isinstance(refused, SettingsError)
    assert "command_secret_file" in str(refused) and "command_username" in str(refused)
    more = 'command_username = "ringbridge-dial@ringbridge"\ncommand_secret = "also-mine"\n'
    (tmp_path / "ringbridge.toml").write_text(own + more, encoding="utf-8")
    assert run("init", "--yes", "--mode", "dial").exception is None
    text = (pbx / USERS).read_text(encoding="utf-8")
    assert 'value="long-and-mine"' in text and 'value="also-mine"' in text
    assert not (tmp_path / "secrets").exists()


def test_a_secret_file_elsewhere_is_made_and_not_shown(run: Run, pbx: Path, tmp_path: Path) -> None:
    mine = tmp_path / "anywhere.txt"
    (tmp_path / "ringbridge.toml").write_text(
        '[dialing]\nmode = "observe"\n[[pbx]]\nname = "main"\nkind = "freeswitch"\nusername = "ringbridge@ringbridge"\n'
        f'command_username = "ringbridge-dial@ringbridge"\nsecret_file = "{mine}"\n',
        encoding="utf-8",
    )
    shown = run("init", "--yes", "--mode", "dial")
    assert isinstance(shown.exception, SettingsError)
    shown = run("init", "--yes", "--mode", "observe")
    secret = mine.read_text(encoding="utf-8")
    assert f'value="{secret}"' in (pbx / USERS).read_text(encoding="utf-8")
    assert secret not in shown.output and stat.S_IMODE(mine.stat().st_mode) == 0o600


def test_a_port_that_fs_cli_does_not_know_is_in_the_command(run: Run) -> None:
    assert "    fs_cli -P 8022 -x reloadxml" in run("init", "--yes", "--port", "8022").output
    assert "    fs_cli -P 8022 -x reloadxml" in run("uninstall", "--yes").output


def test_what_is_wrong_with_the_pbx_itself_is_told(pbx: Path) -> None:
    assert freeswitch_setup.hints(pbx) == []
    socket = pbx / "autoload_configs" / "event_socket.conf.xml"
    socket.write_text(SOCKET.replace("127.0.0.1", "::").replace("not-the-default", "ClueCon"), encoding="utf-8")
    (pbx / "freeswitch.xml").write_text(ROOT.replace("directory/*.xml", "directory/default.xml"), encoding="utf-8")
    (pbx / "autoload_configs" / "modules.conf.xml").write_text('<load module="mod_event_socket"/>', encoding="utf-8")
    told = " ".join(freeswitch_setup.hints(pbx))
    for word in ("every FreeSWITCH is installed with", "every address", "directory/*.xml", "mod_hash"):
        assert re.search(re.escape(word), told), word
    assert "mod_event_socket is not loaded" not in told

"""init shows first, writes after a yes, and uninstall leaves the PBX's files as they were."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bridge.cli import cli
from bridge.domain.errors import RingbridgeError
from bridge.services import pbx_setup
from bridge.settings import load

EXTENSIONS = "; ours\n[general]\nstatic = yes\n\n[from-internal]\nexten => 1,1,Answer()\n; caf\udce9\n"
MANAGER = "[general]\nenabled = yes\nbindaddr = 127.0.0.1\ntimestampevents = yes\n"

Run = Callable[..., Result]


def files(folder: Path) -> dict[str, str]:
    """Every file but the backups."""
    return {
        str(path.relative_to(folder)): path.read_bytes().decode("utf-8", "surrogateescape")
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".before-ringbridge-" not in path.name
    }


@pytest.fixture
def pbx(tmp_path: Path) -> Path:
    folder = tmp_path / "etc" / "asterisk"
    folder.mkdir(parents=True)
    (folder / "extensions.conf").write_bytes(EXTENSIONS.encode("utf-8", "surrogateescape"))
    (folder / "manager.conf").write_text(MANAGER, encoding="utf-8")
    return folder


@pytest.fixture
def run(tmp_path: Path, pbx: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("RINGBRIDGE_CONFIG", str(tmp_path / "ringbridge.toml"))

    def call(command: str, *arguments: str, answers: str | None = None) -> Result:
        result = CliRunner().invoke(
            cli, [command, "--asterisk-dir", str(pbx), *arguments], input=answers, standalone_mode=False
        )
        if result.exception is not None and not isinstance(result.exception, Exception):
            raise result.exception
        return result

    return call


def test_init_and_uninstall_are_inverse(run: Run, pbx: Path, tmp_path: Path) -> None:
    before = files(pbx)
    assert run("init", "--yes", "--mode", "dial").return_value == 0
    after = files(pbx)
    assert set(after) - set(before) == {"ringbridge.conf", "ringbridge-manager.conf"}
    assert after["extensions.conf"].endswith(before["extensions.conf"])
    assert "#tryinclude ringbridge.conf\n" in after["extensions.conf"]
    assert stat.S_IMODE((pbx / "ringbridge-manager.conf").stat().st_mode) == 0o640
    assert run("uninstall", "--yes").return_value == 0
    assert files(pbx) == before
    assert list(pbx.glob("manager.conf.before-ringbridge-*"))


def test_what_init_wrote_are_settings_that_load(run: Run, tmp_path: Path) -> None:
    told = ("--name", "hq", "--dial", "PJSIP/{number}@carrier", "--caller-id", "+12125550100")
    run("init", "--yes", "--mode", "dial", *told)
    settings = load(tmp_path / "ringbridge.toml", {})
    pbx = settings.find_pbx("hq")
    assert (pbx.trunks, pbx.caller_ids, settings.dialing.mode) == (("PJSIP/carrier",), ("+12125550100",), "dial")
    assert len(pbx.read_secret()) >= 32
    assert pbx.read_secret() != pbx.read_command_secret()
    for file in (pbx.secret_file, pbx.command_secret_file, tmp_path / "ringbridge.toml"):
        assert file is not None
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_second_run_writes_nothing(run: Run, pbx: Path, tmp_path: Path) -> None:
    run("init", "--yes", "--mode", "dial")
    before = files(tmp_path)
    result = run("init", "--yes")
    assert "nothing to write" in result.output
    assert files(tmp_path) == before


def test_a_pbx_is_added_to_settings_whose_numbers_somebody_changed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade runs `init` again, whatever was written into the file since."""
    run("init", "--yes", "--mode", "dial")
    settings = tmp_path / "ringbridge.toml"
    settings.write_text(settings.read_text() + "max_cps = 50\nmax_channels = 9\n", encoding="utf-8")
    before = files(tmp_path)
    assert run("init", "--yes", "--dry-run").exception is None
    run("init", "--yes")
    assert files(tmp_path) == before


def test_an_old_dialplan_is_written_anew(run: Run, pbx: Path, tmp_path: Path) -> None:
    run("init", "--yes", "--mode", "dial")
    before = files(tmp_path)
    path = pbx / "ringbridge.conf"
    path.write_text(path.read_text().replace("Ringbridge dialplan 6", "Ringbridge dialplan 5"), encoding="utf-8")
    assert "Ringbridge dialplan 6" in run("init", "--yes", "--dry-run").output
    run("init", "--yes")
    assert files(tmp_path) == before


def test_nothing_is_changed_without_a_yes(run: Run, pbx: Path, tmp_path: Path) -> None:
    before = files(tmp_path)
    result = run("init", answers="\n" * 9 + "n\n")
    assert result.return_value == 1
    assert "Nothing was changed" in result.output
    assert run("init", "--dry-run").return_value == 0
    assert files(tmp_path) == before


def test_secrets_are_not_shown(run: Run, tmp_path: Path) -> None:
    shown = run("init", "--yes", "--mode", "dial").output
    pbx = load(tmp_path / "ringbridge.toml", {}).find_pbx("main")
    assert pbx.read_secret() not in shown
    assert pbx.read_command_secret() not in shown


def test_observe_puts_no_user_there_that_may_dial(run: Run, pbx: Path) -> None:
    run("init", "--yes", "--mode", "observe")
    text = (pbx / "ringbridge-manager.conf").read_text(encoding="utf-8")
    assert "[ringbridge]" in text
    assert "originate" not in text
    assert not (pbx / "ringbridge.conf").exists()
    run("init", "--yes", "--mode", "dial")
    assert "originate" in (pbx / "ringbridge-manager.conf").read_text(encoding="utf-8")
    assert (pbx / "ringbridge.conf").exists()


def test_freepbx_files_that_are_rewritten_are_left_alone(run: Run, pbx: Path) -> None:
    (pbx / "extensions_additional.conf").write_text("; generated\n", encoding="utf-8")
    (pbx / "extensions_custom.conf").write_text("", encoding="utf-8")
    before = files(pbx)
    run("init", "--yes", "--mode", "dial")
    after = files(pbx)
    assert {name for name in after if after[name] != before.get(name)} == {
        "extensions_custom.conf",
        "manager_custom.conf",
        "ringbridge.conf",
        "ringbridge-manager.conf",
    }
    run("uninstall", "--yes")
    # FreePBX includes it by name: an empty file is what it expects.
    assert files(pbx) == {**before, "manager_custom.conf": ""}


def test_a_manager_d_that_is_included_is_used(run: Run, pbx: Path) -> None:
    (pbx / "manager.conf").write_text(MANAGER + '#include "manager.d/*.conf"\n', encoding="utf-8")
    before = files(pbx)
    run("init", "--yes")
    assert set(files(pbx)) - set(before) == {"manager.d/ringbridge.conf"}
    assert files(pbx)["manager.conf"] == before["manager.conf"]
    run("uninstall", "--yes")
    assert files(pbx) == before


def test_a_pbx_elsewhere_is_told_what_to_paste(run: Run, pbx: Path, tmp_path: Path) -> None:
    before = files(pbx)
    shown = run("init", "--yes", "--mode", "dial", "--host", "192.0.2.10", "--permit", "192.0.2.20").output
    assert files(pbx) == before
    assert load(tmp_path / "ringbridge.toml", {}).find_pbx("main").read_secret() in shown
    assert "permit = 192.0.2.20/255.255.255.255" in shown
    assert "[ringbridge-leg]" in shown


def test_a_value_that_could_mean_something_to_asterisk_is_refused(run: Run, pbx: Path) -> None:
    before = files(pbx)
    result = run("init", "--yes", "--permit", "127.0.0.1/8\nsecret=x")
    assert result.exception is not None
    assert files(pbx) == before


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--host", ""),
        ("--host", "a b"),
        ("--bind", "8080"),
        ("--region", "Germany"),
        ("--trunk", "PJSIP/my trunk"),
        ("--caller-id", "Acme"),
    ],
)
def test_nothing_is_written_that_ringbridge_itself_would_refuse(
    run: Run, pbx: Path, tmp_path: Path, option: str, value: str
) -> None:
    before = files(tmp_path)
    result = run("init", "--yes", option, value)
    assert isinstance(result.exception, RingbridgeError)
    assert files(tmp_path) == before


def test_a_file_that_cannot_be_written_is_a_sentence(run: Run, pbx: Path) -> None:
    (pbx / "ringbridge-manager.conf").mkdir()
    result = run("init", "--yes")
    assert "run this as a user who may" in str(result.exception)


def test_what_keeps_the_ami_closed_is_told(pbx: Path) -> None:
    assert pbx_setup.manager_hints(pbx) == []
    (pbx / "manager.conf").write_text("[general]\nenabled = no\n[x]\nenabled = yes\n", encoding="utf-8")
    assert "enabled = yes" in pbx_setup.manager_hints(pbx)[0]

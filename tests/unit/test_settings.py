"""Settings: one sentence for each fault, and the environment over the file."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from bridge.domain.errors import SettingsError
from bridge.settings import Settings, load, settings_path

PBX = '[[pbx]]\nname = "hq"\nsecret = "s"\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "ringbridge.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_environment_goes_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, '[http]\nbind = "127.0.0.1:1"\n' + PBX.replace("hq", "head-office"))
    settings = load(
        path,
        {
            "RINGBRIDGE_HTTP__BIND": "127.0.0.1:2",
            "RINGBRIDGE_PBX__HEAD_OFFICE__PORT": "5039",
            "RINGBRIDGE_PBX__HEAD_OFFICE__TRUNKS": '["PJSIP/a", "PJSIP/b"]',
            "RINGBRIDGE_PBX__HEAD_OFFICE__SECRET": "0123456",
            "RINGBRIDGE_DIALING__REGIONS": '["US", "CA"]',
            "RINGBRIDGE_DATA_DIR": "elsewhere",
            "RINGBRIDGE_LONG": "1",
        },
    )
    assert settings.dialing.regions == ("US", "CA")
    assert settings.find_pbx("head-office").read_secret() == "0123456"
    assert settings.http.bind == "127.0.0.1:2"
    assert settings.find_pbx("head-office").port == 5039
    assert settings.find_pbx("head-office").trunks == ("PJSIP/a", "PJSIP/b")
    assert settings.data_dir == tmp_path / "elsewhere"


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("RINGBRIDGE_HTTP__COLOUR", "1", "http.colour"),
        ("RINGBRIDGE_HTTP__THREADS", "many", "http.threads"),
        ("RINGBRIDGE_DIALING__REGIONS", "US", "regions|dialing"),
        ("RINGBRIDGE_PBX__HQ__TRUNKS", "[1", "pbx.0.trunks"),
    ],
)
def test_a_fault_in_the_environment_is_a_sentence_too(tmp_path: Path, variable: str, value: str, told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        load(write(tmp_path, PBX), {variable: value})


def test_one_user_of_the_pbx_is_enough(tmp_path: Path) -> None:
    one = load(write(tmp_path, PBX + 'username = "rb"\n'), {}).find_pbx("hq")
    assert (one.command_username, one.read_command_secret()) == ("rb", "s")
    two = load(write(tmp_path, PBX + 'username = "rb"\ncommand_secret = "t"\n'), {}).find_pbx("hq")
    assert (two.command_username, two.read_command_secret()) == ("ringbridge-dial", "t")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[http", "is not TOML"),
        ('[http]\nbind = "8080"', "http.bind"),
        ("[http]\ncolour = 1", "http.colour"),
        (PBX + PBX, "same name"),
        (PBX + 'dial = "PJSIP/trunk"', "pbx.0.dial"),
        (PBX + 'dial = "PJSIP/{number}@trunk,30,U(x)"', "pbx.0.dial"),
        (PBX + 'context = "a b"', "pbx.0.context"),
        (PBX + "port = 70000", "pbx.0.port"),
        ('[dialing]\nmode = "yes"', "dialing.mode"),
    ],
)
def test_a_fault_names_its_key_in_one_sentence(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(SettingsError, match=told) as caught:
        load(write(tmp_path, text), {})
    assert "\n" not in caught.value.message and "Value error" not in caught.value.message


def test_a_secret_in_a_faulty_file_is_not_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load(write(tmp_path, '[[pbx]]\nname = "hq"\nsecret = ["hunter2"]\nport = "x"'), {})
    assert "hunter2" not in caught.value.message


def test_a_file_that_is_named_and_missing_is_a_sentence(tmp_path: Path) -> None:
    path = settings_path({"RINGBRIDGE_CONFIG": str(tmp_path / "none.toml")})
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        load(path, {})


def test_a_secret_comes_from_its_file_and_its_absence_is_told(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hush\n", encoding="utf-8")
    settings = load(write(tmp_path, f'[[pbx]]\nname = "hq"\nsecret_file = "{tmp_path}/secret"\n'), {})
    assert settings.find_pbx("hq").read_secret() == "hush"
    with pytest.raises(SettingsError, match="neither command_secret nor command_secret_file"):
        settings.find_pbx("hq").read_command_secret()
    with pytest.raises(SettingsError, match="no PBX named 'other'; known: hq"):
        settings.find_pbx("other")


def test_a_secrets_file_lies_where_the_settings_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    (tmp_path / "its-secret").write_text("word\n", encoding="utf-8")
    path = write(tmp_path, '[[pbx]]\nname = "main"\nsecret_file = "its-secret"\n')
    assert load(path, {}).find_pbx("main").read_secret() == "word"


def test_the_key_is_made_once_and_for_the_owner_only(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    key = settings.secret_key()
    assert len(key) == 32
    assert settings.secret_key() == key
    assert stat.S_IMODE((tmp_path / "data" / "secret.key").stat().st_mode) == 0o600


def test_the_private_socket_fits_whatever_the_data_directory_is_called(tmp_path: Path) -> None:
    assert Settings(data_dir=Path("/data")).redis_url == "unix:///data/redis.sock"
    long = Settings(data_dir=tmp_path / ("d" * 120))
    assert len(str(long.redis_socket)) <= 107
    assert long.redis_socket == Settings(data_dir=tmp_path / ("d" * 120)).redis_socket
    assert long.redis_socket != Settings(data_dir=tmp_path / ("e" * 120)).redis_socket


FREESWITCH = '[[pbx]]\nname = "fs"\nkind = "freeswitch"\n'


def test_a_freeswitch_has_defaults_of_its_own(tmp_path: Path) -> None:
    bare = load(write(tmp_path, FREESWITCH + 'secret = "s"\n'), {}).find_pbx("fs")
    assert (bare.port, bare.username, bare.command_username, bare.context) == (8021, "", "", "default")
    assert bare.dial == "sofia/gateway/trunk/{number}"
    assert bare.trunks == ("sofia/gateway/*", "sofia/external")
    assert bare.read_command_secret() == "s"
    own = 'port = 8022\nusername = "rb@pbx"\nsecret = "s"\n'
    own += 'dial = "sofia/gateway/a/{number}"\ntrunks = ["sofia/gateway/a"]\n'
    named = load(write(tmp_path, FREESWITCH + own), {}).find_pbx("fs")
    assert (named.port, named.username, named.command_username) == (8022, "rb@pbx", "rb@pbx")
    assert (named.dial, named.trunks) == ("sofia/gateway/a/{number}", ("sofia/gateway/a",))


def test_the_password_of_every_freeswitch_is_refused_unless_allowed(tmp_path: Path) -> None:
    path = write(tmp_path, FREESWITCH + 'secret = "ClueCon"\n')
    for read in ("read_secret", "read_command_secret"):
        with pytest.raises(SettingsError, match="allow_default_password = true") as refused:
            getattr(load(path, {}).find_pbx("fs"), read)()
        assert "ClueCon" not in refused.value.message
    allowed = load(path, {"RINGBRIDGE_PBX__FS__ALLOW_DEFAULT_PASSWORD": "true"}).find_pbx("fs")
    assert allowed.read_secret() == allowed.read_command_secret() == "ClueCon"
    (tmp_path / "secret").write_text("ClueCon\n", encoding="utf-8")
    with pytest.raises(SettingsError, match="installed with"):
        load(write(tmp_path, FREESWITCH + f'secret_file = "{tmp_path}/secret"\n'), {}).find_pbx("fs").read_secret()


@pytest.mark.parametrize("user", ["a b@c", "a@b c", "a@b:c", "@b", "a\\nb@c", "a@b@c"])
def test_a_user_that_could_be_read_as_something_else_is_refused(tmp_path: Path, user: str) -> None:
    with pytest.raises(SettingsError, match="no \"user@domain\""):
        load(write(tmp_path, FREESWITCH + f'secret = "s"\nusername = "{user}"\n'), {})

"""Settings: one TOML file, overridden by the environment.

The file is `$RINGBRIDGE_CONFIG`, else `ringbridge.toml` in the working directory, else
`/etc/ringbridge/ringbridge.toml`. `RINGBRIDGE_<SECTION>__<KEY>` overrides a key of a section,
`RINGBRIDGE_PBX__<NAME>__<KEY>` a key of the PBX of that name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as PydanticSettingsError

from bridge.domain.errors import SettingsError

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")]
Host = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:%-]{1,253}$")]
Region = Annotated[str, Field(pattern=r"^[A-Z]{2}$")]
Trunk = Annotated[str, Field(pattern=r"^\S{1,120}$")]
CallerId = Annotated[str, Field(pattern=r"^\+?[0-9]{3,15}$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Http(_Section):
    """Where the web part listens."""

    bind: str = "127.0.0.1:8080"
    public_url: str | None = None
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks whose X-Forwarded-For is believed."""
    threads: int = Field(default=16, ge=1, le=256)

    @field_validator("bind")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        host, colon, port = value.rpartition(":")
        if not (host and colon and port.isdigit() and int(port) < 65536):
            raise ValueError('must be "address:port", such as "127.0.0.1:8080"')
        return value

    @property
    def url(self) -> str:
        """The address to tell people."""
        return (self.public_url or f"http://{self.bind}").rstrip("/")


class RedisSection(_Section):
    """Redis; without a url, `ringbridge up` starts a private server."""

    url: SecretStr | None = None


class Database(_Section):
    """The database; without a url, SQLite in the data directory."""

    url: SecretStr | None = None


class Log(_Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["console", "json"] = "console"


class Dialing(_Section):
    """Rules for every dial of ours."""

    mode: Literal["dial", "observe"] = "dial"
    """`observe` listens and pops, and never dials."""
    regions: tuple[Region, ...] = ("US",)
    """Regions (ISO 3166) that may be dialled where a site names none of its own."""
    agent_ring_seconds: int = Field(default=15, ge=5, le=120)
    customer_ring_seconds: int = Field(default=25, ge=5, le=120)
    command_deadline_seconds: int = Field(default=10, ge=2, le=60)
    wrapup_seconds: int = Field(default=120, ge=0, le=3600)
    """After so long an agent in wrap-up is ready; 0: when they say so."""


_FILES = frozenset({"secret_file", "command_secret_file", "tls_ca"})
_FREESWITCH = {
    "port": 8021,
    "username": "",
    "context": "default",
    "dial": "sofia/gateway/trunk/{number}",
    "trunks": ("sofia/gateway/*", "sofia/external"),
}
"""Where a FreeSWITCH's settings begin, key by key; without a username it is the event socket's own password."""
_FREESWITCH_USER = re.compile(r"([^\s:@]+(@[A-Za-z0-9_.-]+)?)?")
DEFAULT_FREESWITCH_PASSWORD = "ClueCon"


class Pbx(_Section):
    """One PBX that Ringbridge stands beside."""

    name: Name
    kind: Literal["asterisk", "freeswitch"] = "asterisk"
    host: Host = "127.0.0.1"
    port: int = Field(default=5038, ge=1, le=65535)
    username: str = "ringbridge"
    """The user that reads events. On a FreeSWITCH `user@domain` of its directory, or empty."""
    secret: SecretStr | None = None
    secret_file: Path | None = None
    command_username: str = "ringbridge-dial"
    """The user that sends commands; in observe mode it is never used. Where the settings name neither this user nor its
    secret, `username` sends the commands too."""
    command_secret: SecretStr | None = None
    command_secret_file: Path | None = None
    allow_default_password: bool = False
    """Let a FreeSWITCH have the password that every FreeSWITCH is installed with."""
    tls: bool = False
    tls_ca: Path | None = None
    """A certificate authority to trust besides the system's, for a PBX that signs its own."""
    context: str = Field(default="from-internal", pattern=r"^[A-Za-z0-9_-]{1,79}$")
    """The dialplan context in which agents' phones dial."""
    dial: str = "PJSIP/{number}@trunk"
    """How a customer's number is dialled."""
    trunks: tuple[Trunk, ...] = ("PJSIP/trunk",)
    """Patterns (shell-style) of the devices that lead outside."""
    caller_ids: tuple[CallerId, ...] = ()
    mirror_queues: bool = False
    """Keep agents' states and the PBX's queues alike."""
    max_cps: float = Field(default=5, gt=0, le=500)
    max_channels: int = Field(default=50, ge=1)

    @field_validator("dial")
    @classmethod
    def _dial_template(cls, value: str) -> str:
        if value.count("{number}") != 1:
            raise ValueError("must hold {number} once, such as PJSIP/{number}@trunk or sofia/gateway/trunk/{number}")
        if not set(value.replace("{number}", "")) <= set(
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/@:._+-"
        ):
            raise ValueError("may hold letters, digits and / @ : . _ + - only")
        return value

    @model_validator(mode="before")
    @classmethod
    def _freeswitch_defaults(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("kind") == "freeswitch":
            return {**_FREESWITCH, **values}
        return values

    @model_validator(mode="before")
    @classmethod
    def _one_user_for_both(cls, values: Any) -> Any:
        own = {"command_username", "command_secret", "command_secret_file"}
        if isinstance(values, dict) and not own & values.keys():
            if values.get("kind") == "freeswitch":
                return {**values, "command_username": values.get("username", "")}
            if values.get("username"):
                return {**values, "command_username": values["username"]}
        return values

    @model_validator(mode="after")
    def _freeswitch_users(self) -> Self:
        if self.kind == "freeswitch":
            for user in (self.username, self.command_username):
                if not _FREESWITCH_USER.fullmatch(user):
                    raise ValueError(f'{user!r} is no "user@domain" of a FreeSWITCH directory')
        return self

    def read_secret(self) -> str:
        """The secret of the event user. Raises SettingsError where none is set or readable, or it is the default."""
        return self._own(_secret(self.name, "secret", self.secret, self.secret_file))

    def read_command_secret(self) -> str:
        """The secret of the command user. Raises as `read_secret`."""
        if self.command_secret is None and self.command_secret_file is None and self.command_username == self.username:
            return self.read_secret()
        return self._own(_secret(self.name, "command_secret", self.command_secret, self.command_secret_file))

    def _own(self, secret: str) -> str:
        if self.kind == "freeswitch" and secret == DEFAULT_FREESWITCH_PASSWORD and not self.allow_default_password:
            raise SettingsError(
                f"PBX {self.name!r} has the password that every FreeSWITCH is installed with; change it in "
                "event_socket.conf.xml and here, or set allow_default_password = true"
            )
        return secret


def _secret(pbx: str, key: str, value: SecretStr | None, file: Path | None) -> str:
    if value is not None:
        return value.get_secret_value()
    if file is None:
        raise SettingsError(f"PBX {pbx!r} has neither {key} nor {key}_file in the settings")
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SettingsError(
            f"the file {file} of {key}_file of PBX {pbx!r} cannot be read: {error.strerror}"
        ) from None


class Settings(_Section):
    """Everything an operator may set."""

    data_dir: Path = Path("data")
    http: Http = Http()
    redis: RedisSection = RedisSection()
    database: Database = Database()
    log: Log = Log()
    dialing: Dialing = Dialing()
    pbx: tuple[Pbx, ...] = ()
    _key: bytes | None = PrivateAttr(None)

    @field_validator("pbx")
    @classmethod
    def _names_differ(cls, value: tuple[Pbx, ...]) -> tuple[Pbx, ...]:
        names = [pbx.name for pbx in value]
        if len(set(names)) < len(names):
            raise ValueError("two PBXs have the same name")
        return value

    def find_pbx(self, name: str) -> Pbx:
        """The PBX of that name. Raises SettingsError."""
        for pbx in self.pbx:
            if pbx.name == name:
                return pbx
        known = ", ".join(p.name for p in self.pbx) or "none"
        raise SettingsError(f"the settings have no PBX named {name!r}; known: {known}")

    @property
    def database_url(self) -> str:
        """An SQLAlchemy URL."""
        if self.database.url is not None:
            return self.database.url.get_secret_value()
        return f"sqlite:///{self.data_dir / 'ringbridge.db'}"

    @property
    def redis_url(self) -> str:
        """The server set, else the private server's socket in the data directory."""
        if self.redis.url is not None:
            return self.redis.url.get_secret_value()
        return f"unix://{self.redis_socket}"

    @property
    def redis_socket(self) -> Path:
        """The private server's socket: in the data directory, or where its path is too long for a socket (107 bytes),
        under a short name in the system's directory for temporary files that every process derives alike.
        """
        path = self.data_dir / "redis.sock"
        if len(os.fsencode(path)) <= 100:
            return path
        mark = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
        return Path(tempfile.gettempdir(), f"ringbridge-{os.getuid()}-{mark}", "redis.sock")

    def _make_key(self, path: Path) -> None:
        """Appears whole or not at all: a reader in between would sign with half a key, or an empty one."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(secrets.token_hex(32))
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(part, path)
        finally:
            part.unlink()

    def secret_key(self) -> bytes:
        """The key that signs tokens; made once, in the data directory, readable by the owner only."""
        if self._key is not None:
            return self._key
        path = self.data_dir / "secret.key"
        try:
            if not path.exists():
                self._make_key(path)
            key = bytes.fromhex(path.read_text(encoding="ascii").strip())
            if len(key) < 32:
                raise ValueError("it is too short")
            self._key = key
            return key
        except (OSError, ValueError) as error:
            raise SettingsError(f"the key file {path} cannot be read or made: {error}") from None


def settings_path(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The settings file in use, None where there is none."""
    named = environ.get("RINGBRIDGE_CONFIG")
    if named:
        return Path(named)
    for path in (Path("ringbridge.toml"), Path("/etc/ringbridge/ringbridge.toml")):
        if path.is_file():
            return path
    return None


def load(path: Path | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the file and the environment. Raises SettingsError with one sentence per fault."""
    path = path or settings_path(environ)
    raw: dict[str, Any] = {}
    if path is not None:
        try:
            raw = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise SettingsError(f"the settings file {path} cannot be read: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"the settings file {path} is not TOML: {error}") from None
    _override(raw, environ)
    base = path.resolve().parent if path is not None else Path.cwd()
    raw["data_dir"] = str(base / str(raw.get("data_dir", "data")))
    entries = raw.get("pbx")
    for entry in entries if isinstance(entries, list) else []:
        for key in _FILES & entry.keys() if isinstance(entry, dict) else ():
            entry[key] = str(base / str(entry[key]))
    return checked(raw, str(path or "environment"))


def checked(raw: Mapping[str, Any], source: str) -> Settings:
    """The settings that these tables say. Raises SettingsError, with `source` named in its sentence."""
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg'].removeprefix('Value error, ')}"
            for fault in error.errors(include_input=False, include_url=False)
        )
        raise SettingsError(f"the settings ({source}) are wrong: {faults}") from None


class _Environment(BaseSettings):
    """The sections that the environment may override; its PBXs are found by name, which no schema says."""

    model_config = SettingsConfigDict(env_prefix="RINGBRIDGE_", env_nested_delimiter="__")
    data_dir: str = ""
    http: Http = Http()
    redis: RedisSection = RedisSection()
    database: Database = Database()
    log: Log = Log()
    dialing: Dialing = Dialing()


def _override(raw: dict[str, Any], environ: Mapping[str, str]) -> None:
    """Put the environment's values over the file's. Raises SettingsError where a list or table is no JSON."""
    source = EnvSettingsSource(_Environment)
    source.env_vars = {variable.lower(): value for variable, value in environ.items()}
    try:
        found = source()
    except PydanticSettingsError as error:
        raise SettingsError(f"the environment's settings are wrong: {error}; lists are written as JSON") from None
    for section, values in found.items():
        raw[section] = {**raw.get(section, {}), **values} if isinstance(values, dict) else values
    for variable, value in environ.items():
        name, _, key = variable.lower().removeprefix("ringbridge_pbx__").partition("__")
        if not variable.startswith("RINGBRIDGE_PBX__") or not key:
            continue
        for pbx in raw.get("pbx", []):
            if str(pbx.get("name", "")).replace("-", "_") == name.replace("-", "_"):
                pbx[key] = _value(value)


def _value(text: str) -> Any:
    """A list is written as JSON; everything else is text that pydantic reads, a secret of digits too."""
    if text[:1] != "[":
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text

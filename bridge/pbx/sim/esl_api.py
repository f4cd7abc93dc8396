"""What the fake FreeSWITCH answers to API commands. Its hash is real: `insert_ifempty` tests and sets in one step."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import quote

from bridge.pbx.esl.codec import Event

_MODULES = ("callcenter", "commands", "dptools", "event_socket", "hash", "loopback", "sofia")
NO_CHANNEL = "-ERR No such channel!\n"
Answer = Callable[[str], "str | None"]
"""The arguments of an API command to its output; None where nothing is answered."""


class Api:
    """What the PBX knows; every attribute may be changed while it runs."""

    def __init__(self) -> None:
        self.version = "1.11.3-sim"
        self.channels: list[dict[str, str]] = []
        """Rows of `show channels as json`."""
        self.calls: list[dict[str, str]] = []
        self.queues: list[dict[str, str]] = []
        self.members: dict[str, list[dict[str, str]]] = {}
        """Rows of `callcenter_config queue list members`, by queue."""
        self.dumps: dict[str, Event] = {}
        """What `uuid_dump` says, by channel."""
        self.modules: set[str] = {f"mod_{name}" for name in _MODULES}
        """What `module_exists` affirms."""
        self.hash: dict[str, str] = {}
        """By `realm/key`."""
        self.answers: dict[str, Answer] = {}
        """By API command: what to answer instead."""
        self._keys = threading.Lock()

    def run(self, command: str) -> str | None:
        """What an API command puts out; None where it never says anything."""
        verb, _, arguments = command.partition(" ")
        usual: Answer = getattr(self, f"_api_{verb}", lambda _: f"-ERR {verb} Command not found!\n")
        return self.answers.get(verb, usual)(arguments)

    def _api_status(self, arguments: str) -> str:
        return f"UP 0 years, 0 days, 0 hours, 1 minute, 40 seconds\nFreeSWITCH (Version {self.version}) is ready\n"

    def _api_version(self, arguments: str) -> str:
        return f"FreeSWITCH Version {self.version}~64bit ( 64bit)\n"

    def _api_strepoch(self, arguments: str) -> str:
        return str(int(time.time()))

    def _api_expand(self, arguments: str) -> str | None:
        return self.run(arguments)

    def _api_module_exists(self, arguments: str) -> str:
        return "true" if arguments in self.modules else "false"

    def _api_originate(self, arguments: str) -> str:
        return f"+OK {uuid.uuid4()}\n"

    def _api_show(self, arguments: str) -> str:
        rows = {"channels as json": self.channels, "calls as json": self.calls}.get(arguments)
        if rows is None:
            return "-USAGE: channels|calls as json\n"
        # FreeSWITCH has two ways to say this, and the empty one ends its line.
        return json.dumps({"row_count": len(rows), "rows": rows}) if rows else '{"row_count": 0}\n'

    def _api_callcenter_config(self, arguments: str) -> str:
        words = arguments.split()
        if words == ["queue", "list"]:
            return table(self.queues)
        if words[:3] == ["queue", "list", "members"] and len(words) == 4:
            return table(self.members.get(words[3], []))
        return "-ERR Invalid!\n"

    def _api_uuid_dump(self, arguments: str) -> str:
        channel, _, encoding = arguments.partition(" ")
        event = self.dumps.get(channel)
        if event is None:
            return NO_CHANNEL
        return json.dumps(event) if encoding == "json" else "".join(f"{k}: {quote(v)}\n" for k, v in event.items())

    def _api_uuid_exists(self, arguments: str) -> str:
        return "true" if self._alive(arguments) else "false"

    def _api_uuid_kill(self, arguments: str) -> str:
        return "+OK\n" if self._alive(arguments) else NO_CHANNEL

    def _alive(self, arguments: str) -> bool:
        channel = arguments.partition(" ")[0]
        return channel in self.dumps or any(row.get("uuid") == channel for row in self.channels)

    def _api_hash(self, arguments: str) -> str:
        verb, realm, key, *value = f"{arguments}///".split("/")
        name = f"{realm}/{key}"
        with self._keys:
            if verb == "insert_ifempty" and name in self.hash:
                return "-ERR key already exists\n"
            if verb in ("insert", "insert_ifempty"):
                self.hash[name] = value[0]
                return "+OK\n"
            if verb == "delete":
                return "+OK\n" if self.hash.pop(name, None) is not None else "-ERR Not found\n"
            return self.hash.get(name, "") if verb == "select" else "-ERR Usage: hash\n"


def table(items: Sequence[Mapping[str, str]]) -> str:
    """Rows as mod_callcenter lists them."""
    if not items:
        return "+OK\n"
    lines = ["|".join(items[0]), *("|".join(item.values()) for item in items)]
    return "\n".join([*lines, "+OK\n"])

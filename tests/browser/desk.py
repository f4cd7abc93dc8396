"""A running Ringbridge without a PBX (web, pops, recorder), whose calls a test tells as a listener would."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rig import RedisServer, free_port, make_settings, until

from bridge.commands.rest import Rest
from bridge.live import keys
from bridge.live.connection import connect
from bridge.services import people
from bridge.store.database import open_database

PASSWORD = "correct horse battery"
DID = "+12125550110"
CALLER = "+16465550142"
SCRIPT = """\
## Before anything else

Ask for the **address**, and whether anyone smells gas. If they do, send them outside first and give the
emergency number on the card.

## What is it about?

Thank you, {{customer.name}}. May I ask what the heating does, or does not do, right now?

1. *No heat at all*: ask for the code on the display, and since when.
2. *Water on the floor*: ask them to close the main valve, and book today.
3. *Yearly service*: offer the next free week.

> I will put a technician down for you. Somebody from {{client.name}} rings you half an hour before.

## Close

Is {{customer.second_number}} still a good number to reach you? Then that is all I need. Thank you for calling
{{client.name}}.
"""


class Desk:
    """The processes, their data, and calls as the listener would tell of them."""

    def __init__(self, folder: Path, migrated: Path) -> None:
        self.folder = folder
        self.redis_server = RedisServer()
        self.redis_server.start()
        made = make_settings(folder, migrated, self.redis_server.url)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        config = folder / "ringbridge.toml"
        config.write_text(
            f'data_dir = "{folder}"\n[http]\nbind = "127.0.0.1:{self.port}"\n'
            f'[redis]\nurl = "{self.redis_server.url}"\n'
            '[[pbx]]\nname = "lab"\nsecret = "unused-secret"\ncommand_secret = "unused-secret"\n',
            encoding="utf-8",
        )
        self._environment = os.environ | {"RINGBRIDGE_CONFIG": str(config)}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._numbers = itertools.count(1)
        self.redis = connect(made)
        self.database = open_database(made)
        with self.database.begin() as db:
            values = {
                "username": "root",
                "password": PASSWORD,
                "role": "administrator",
                "name": "Root",
                "devices": [],
            }
            people.add(db, datetime.now(UTC), values)
        for name in ("pops", "recorder"):
            self.start(name)
        self.start_web()
        door = Rest(self.url)
        self.admin = door.signed_in("root", PASSWORD)
        door.close()
        self._furnish()

    def start(self, name: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-c", "from bridge.cli import main; main()", name],
                env=self._environment, stdout=log, stderr=log,
            )  # fmt: skip

    def stop(self, name: str, *, kill: bool = False) -> None:
        process = self._processes.pop(name)
        process.kill() if kill else process.terminate()
        process.wait(60)

    def start_web(self) -> None:
        """Returns when it answers: how long a page then takes to come back is the page's own matter."""
        self.start("api")
        until(self._answers, 60, "the web part")

    def close(self) -> None:
        self.admin.close()
        for name in list(self._processes):
            self.stop(name)
        self.database.close()
        self.redis.close()
        self.redis_server.remove()

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _furnish(self) -> None:
        post = self.admin.post
        card = {
            "website": "https://northwind.example", "address": "18 Harbor Road, Albany NY 12207",
            "hours": "Mon to Fri 8:00 to 18:00", "services": "Repair, yearly service, new boilers",
        }  # fmt: skip
        self.client = post("/api/v1/clients", {
            "name": "Northwind Heating", "timezone": "America/New_York", "card": card,
            "greeting": "Northwind Heating, good morning, this is {{agent.name}}. How can I help you?",
        })["id"]  # fmt: skip
        script = post("/api/v1/scripts", {"client_id": self.client, "name": "Inbound", "body": SCRIPT})["id"]
        post("/api/v1/dids", {"client_id": self.client, "number": DID, "script_id": script})
        post("/api/v1/customers", {
            "client_id": self.client, "name": "Dana Whitfield", "company": "Whitfield Bakery",
            "email": "dana@whitfield.example", "note": "Prefers calls before noon. Boiler on the roof: ladder.",
            "numbers": [CALLER], "reference": "K-20418",
        })  # fmt: skip
        self.agents: dict[str, str] = {}
        for username, name, role, devices in (
            ("maria", "Maria Fernández", "agent", ["PJSIP/101", "PJSIP/111"]),
            ("tom", "Tom Okafor", "agent", ["PJSIP/102"]),
            ("ines", "Ines Adler", "supervisor", []),
        ):
            row = post("/api/v1/agents", {
                "username": username, "password": PASSWORD, "name": name, "role": role, "devices": devices,
            })  # fmt: skip
            self.agents[username] = row["id"]

    # What the listener would publish.

    def say(self, call: str, type: str, **data: Any) -> None:
        seq = self.redis.incr(f"test:seq:{call}")
        fields = {
            "v": "1", "type": type, "call": call, "pbx": "lab", "seq": str(seq),
            "at": datetime.now(UTC).isoformat(), "data": json.dumps(data),
        }  # fmt: skip
        self.redis.xadd(keys.CALLS, fields)  # type: ignore[arg-type]

    def party(
        self, username: str | None = None, number: str | None = None, name: str | None = None
    ) -> dict[str, Any]:
        agent = self.agents[username] if username else None
        return {
            "device": "PJSIP/101" if agent else None,
            "extension": None,
            "number": number,
            "name": name,
            "agent": agent,
        }

    def ring(
        self, *usernames: str, number: str | None = CALLER, name: str | None = "WHITFIELD D", **more: Any
    ) -> str:
        """A new call to the client company that rings at these agents; its id."""
        call = f"lab-{int(datetime.now(UTC).timestamp())}.{next(self._numbers)}"
        data = {
            "direction": "inbound", "from": self.party(number=number, name=name), "to": self.party(number=DID),
            "attempt": None, "callback": None, "campaign": None, "client": self.client,
        }  # fmt: skip
        self.say(call, "call.started", **(data | more))
        self.say(call, "call.queued", queue="support", position=1)
        for username in usernames:
            self.say(call, "call.offered", party=self.party(username))
        return call

    def connect(self, call: str, username: str) -> None:
        self.say(call, "call.connected", parties=[self.party(number=CALLER), self.party(username)])

    def end(self, call: str, cause: str = "completed", talk_ms: int = 61000) -> None:
        self.say(
            call, "call.ended", cause=cause, q850=16, direction="inbound", answered_by="person", wait_ms=3000,
            talk_ms=talk_ms, ended_by=self.party(), to=self.party(number=DID), **{"from": self.party(number=CALLER)},
        )  # fmt: skip

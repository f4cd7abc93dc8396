"""People of the lab who call, answer, send on and hang up, as long as they are told to."""

from __future__ import annotations

import random
import threading
from itertools import count

from pair import Pair

from ringbridge_lab.errors import LabError
from ringbridge_lab.lab import Behaviour, Caller, Lab

PHONES = {"101": 0.3, "102": 0.8, "103": 0.4, "104": 1.5}
"""Who answers, after so many seconds; 105 never does."""


class People:
    """Some lives side by side: each calls, has its talk, and calls again. Own dials are given in between."""

    def __init__(self, pair: Pair, dice: random.Random, lives: int = 3) -> None:
        self.pair = pair
        self._dice = dice
        self._lives = lives
        self._rest = threading.Event()
        self._threads: list[threading.Thread] = []
        self._numbers = count(200)
        self.faults: list[str] = []
        for extension, after in PHONES.items():
            pair.lab.phone(extension, answer_after=after)
        pair.lab.phone("105", Behaviour.NO_ANSWER)

    def begin(self) -> None:
        """Everybody gets to work."""
        self._rest.clear()
        for life in range(self._lives):
            dice = random.Random(self._dice.random())
            self._threads.append(threading.Thread(target=self._live, args=(dice, life), daemon=True))
            self._threads[-1].start()

    def rest(self) -> None:
        """Nobody calls any more; who talks may finish."""
        self._rest.set()
        for thread in self._threads:
            thread.join(120)
        self._threads.clear()
        assert not self.faults, self.faults

    def _live(self, dice: random.Random, life: int) -> None:
        while not self._rest.is_set():
            try:
                dice.choice((self._direct, self._direct, self._queued, self._sent_on, self._dialled))(dice)
            except LabError:
                # A phone that was to press keys is in no call any more.
                continue
            except Exception as error:  # noqa: BLE001 - told to the test
                self.faults.append(repr(error))
                return

    def _call(self, dice: random.Random, to: str, talk: float) -> Caller:
        caller = f"+1646555{dice.randint(1000, 9999)}"
        return self.pair.lab.call(to, caller=caller, hangup_after=talk, ring=dice.uniform(1, 4))

    def _direct(self, dice: random.Random) -> None:
        call = self._call(dice, f"+12125550{dice.choice((101, 102, 103, 104, 105))}", dice.uniform(0.2, 4))
        call.wait_for("ended", seconds=60)

    def _queued(self, dice: random.Random) -> None:
        queue = dice.choice(("+12125550110", "+12125550120"))
        self._call(dice, queue, dice.uniform(1, 4)).wait_for("ended", seconds=60)

    def _sent_on(self, dice: random.Random) -> None:
        call = self._call(dice, "+12125550101", 5)
        call.wait_for("answered", seconds=60)
        self._rest.wait(dice.uniform(0.2, 1))
        self.pair.lab.press_phone("101", dice.choice(("##102", "##103", "##105")))
        call.wait_for("ended", seconds=60)

    def _dialled(self, dice: random.Random) -> None:
        number = f"+1{next(self._numbers)}55501{dice.choice(('01', '40', '60', '80', '15'))}"
        self.pair.dial(number, dice.choice(tuple(PHONES)), agent_first=dice.random() < 0.5)
        self._rest.wait(dice.uniform(1, 3))


def talk(lab: Lab, extension: str) -> Caller:
    """A call that goes on until somebody ends it."""
    call = lab.call(f"+12125550{extension}", caller=f"+1917555{extension}0")
    call.wait_for("answered", seconds=60)
    return call

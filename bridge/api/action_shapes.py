"""The shapes of requests about what is done to a call, and of their one answer."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from bridge.api.strict import Answer, Body, Line
from bridge.domain.actions import DIGITS, MAX_SOUND, SOUND, TO

Target = Annotated[
    Line,
    StringConstraints(pattern=f"^({TO})$", max_length=16),
    Field(
        description=(
            "an extension, or a number as your phone would dial it; with a plus or of seven digits and more it must be "
            "one that Ringbridge itself may dial"
        )
    ),
]
Sound = Annotated[
    Line,
    StringConstraints(pattern=f"^({SOUND})$", max_length=MAX_SOUND),
    Field(description="the name by which the PBX knows the file, without its ending, such as queue-thankyou"),
]


class Nothing(Body):
    """Nothing has to be said; the body may be left out."""

    may_be_absent: ClassVar[bool] = True


class Transfer(Body):
    to: Target
    kind: Literal["blind", "attended"] = "blind"


class Conference(Body):
    to: Target


class Redirect(Body):
    to: Target


class Play(Body):
    sound: Sound
    to: Literal["both", "customer", "agent"] = Field("both", description="who hears it")


class Digits(Body):
    digits: Annotated[Line, StringConstraints(pattern=f"^({DIGITS})$", max_length=32)]


class Record(Body):
    state: Literal["on", "paused", "off"]


class Accepted(Answer):
    """The outcome comes as an event `command` with this id."""

    command: str

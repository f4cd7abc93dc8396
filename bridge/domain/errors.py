"""One base for every error Ringbridge raises on purpose; a subclass's docstring is its message."""

from __future__ import annotations


class RingbridgeError(Exception):
    """Something went wrong in Ringbridge."""

    code = "error"
    status = 500

    def __init__(self, message: str | None = None, *, field: str | None = None, **details: object):
        self.message = message or (self.__doc__ or "").strip().splitlines()[0]
        self.field = field
        self.details = details
        super().__init__(self.message)


class Invalid(RingbridgeError):
    """A value is not acceptable."""

    code = "invalid"
    status = 422


class NotFound(RingbridgeError):
    """There is no such thing, or it is not yours to see."""

    code = "not_found"
    status = 404


class Forbidden(RingbridgeError):
    """You may not do this."""

    code = "forbidden"
    status = 403


class Conflict(RingbridgeError):
    """It is in another state than the request needs."""

    code = "conflict"
    status = 409


class RateLimited(RingbridgeError):
    """Too many requests; try again later."""

    code = "rate_limited"
    status = 429


class Unavailable(RingbridgeError):
    """A part that Ringbridge needs does not answer now."""

    code = "unavailable"
    status = 503


class StateError(RingbridgeError):
    """That change of state is not allowed."""

    code = "state"
    status = 409


class SettingsError(RingbridgeError):
    """The settings are incomplete or contradict each other."""

    code = "settings"

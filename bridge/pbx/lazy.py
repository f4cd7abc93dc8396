"""What a PBX said, read as far as somebody asks: what an AMI message and an ESL event have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, cast


class Lazy(Mapping[str, str]):
    """Headers by name. Whoever asks for one by `get` need not pay for all."""

    __slots__ = ()

    @abstractmethod
    def get(self, name: str, default: Any = None) -> Any:
        """A header's text."""

    @abstractmethod
    def _whole(self) -> Mapping[str, str]:
        """Every header."""

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return cast(str, value)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._whole())

    def __len__(self) -> int:
        return len(self._whole())

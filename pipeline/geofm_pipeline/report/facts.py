"""Typed access to the sections of card.json, whose parts may be absent, and of a kind nobody expected after an edit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Facts:
    """A JSON object; every accessor gives None or nothing instead of raising."""

    values: Mapping[str, object]

    @classmethod
    def load(cls, path: Path) -> Facts:
        """The object in a file; empty where there is no file.

        Raises
        ------
        ValueError
            When the file holds no JSON object.
        """
        if not path.exists():
            return cls(values={})
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError(f"{path.name} holds no JSON object")
        return cls(values=found)

    def __bool__(self) -> bool:
        return bool(self.values)

    def part(self, name: str) -> Facts:
        """A nested object, empty where there is none."""
        value = self.values.get(name)
        return Facts(values=value if isinstance(value, Mapping) else {})

    def number(self, name: str) -> float | None:
        """A number; a number written as text counts, NaN does not."""
        value = self.values.get(name)
        try:
            number = float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else None
        except ValueError:
            return None
        return None if number is None or number != number else number

    def count(self, name: str) -> int | None:
        """A whole number."""
        number = self.number(name)
        return None if number is None or number in (float("inf"), float("-inf")) else round(number)

    def text(self, name: str) -> str | None:
        """A value that is not empty, as text."""
        value = self.values.get(name)
        return None if value is None or value == "" or isinstance(value, (list, dict)) else str(value)

    def items(self, name: str) -> Sequence[object]:
        """A list, empty where there is none."""
        value = self.values.get(name)
        return value if isinstance(value, list) else []

    def rows(self, name: str) -> Sequence[Facts]:
        """The objects of a list."""
        return [Facts(values=item) for item in self.items(name) if isinstance(item, Mapping)]

    def counts(self, name: str) -> dict[str, int]:
        """Key → whole number of a nested object."""
        inner = self.part(name)
        found = {key: inner.count(key) for key in inner.values}
        return {key: value for key, value in found.items() if value is not None}

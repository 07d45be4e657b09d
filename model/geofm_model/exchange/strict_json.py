"""JSON objects read strictly: a field is there and of its type, and none is left over; messages name file and field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

from geofm_model.format import Json, JsonObject

T = TypeVar("T")


class Fields:
    """Fields of one JSON object, each taken once."""

    def __init__(self, fields: JsonObject, where: str) -> None:
        self.where = where
        self._fields = dict(fields)

    @classmethod
    def read(cls, path: Path) -> Fields:
        """That of a file; ValueError where it is none."""
        try:
            fields = json.loads(path.read_text())
        except FileNotFoundError:
            raise ValueError(f"{path} is missing: weights and their config.json travel together") from None
        except ValueError as error:
            raise ValueError(f"{path} is no JSON ({error}): get it again") from None
        if not isinstance(fields, dict):
            raise ValueError(f"{path} holds a {type(fields).__name__}, not an object: get it again")
        return cls(fields, str(path))

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def whole(self, name: str) -> int:
        """A whole number above 0."""
        value = self._take(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self._wrong(name, value, "a whole number above 0")
        return value

    def number(self, name: str) -> float:
        """A number."""
        value = self._take(name)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(name, value, "a number")
        return float(value)

    def truth(self, name: str) -> bool:
        """True or False."""
        value = self._take(name)
        if not isinstance(value, bool):
            raise self._wrong(name, value, "true or false")
        return value

    def text(self, name: str) -> str:
        """A string."""
        value = self._take(name)
        if not isinstance(value, str):
            raise self._wrong(name, value, "a string")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Strings."""
        return tuple(self._each(name, str, "strings"))

    def numbers(self, name: str) -> tuple[float, ...]:
        """Numbers."""
        return tuple(float(value) for value in self._each(name, (int, float), "numbers"))

    def part(self, name: str) -> Fields:
        """An object."""
        value = self._take(name)
        if not isinstance(value, dict):
            raise self._wrong(name, value, "an object")
        return Fields(value, f"{self.where}: {name}")

    def part_or_none(self, name: str) -> Fields | None:
        """An object, or None where it is null."""
        if self._fields.get(name, 0) is None:
            del self._fields[name]
            return None
        return self.part(name)

    def all_texts(self) -> dict[str, str]:
        """All fields that are left; those that are no strings as JSON."""
        left, self._fields = self._fields, {}
        return {name: value if isinstance(value, str) else json.dumps(value) for name, value in left.items()}

    def finish(self) -> None:
        """ValueError where fields are left: they might ask for something that is not done."""
        if self._fields:
            raise ValueError(
                f"{self.where} has unknown fields ({', '.join(sorted(self._fields))}): is it of a later version?"
            )

    def _take(self, name: str) -> Json:
        if name not in self._fields:
            raise ValueError(f"{self.where} has no field {name!r}: get it again, or add the field")
        return self._fields.pop(name)

    def _each(self, name: str, kind: type[T] | tuple[type[T], ...], words: str) -> list[T]:
        value = self._take(name)
        if not isinstance(value, list):
            raise self._wrong(name, value, f"a list of {words}")
        found = [item for item in value if isinstance(item, kind) and not isinstance(item, bool)]
        if len(found) != len(value):
            raise self._wrong(name, value, f"a list of {words}")
        return found

    def _wrong(self, name: str, value: Json, wanted: str) -> ValueError:
        return ValueError(f"{self.where}: {name} must be {wanted}, got {json.dumps(value)}")

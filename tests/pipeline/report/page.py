"""A parsed report: its texts and tables by section, and everything that a browser would load."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

_VOID = {"meta", "img", "input", "br", "link", "hr"}
_LOADS = {"src", "href", "srcset", "data", "action", "poster", "xlink:href", "background"}


@dataclass
class Page(HTMLParser):
    """Feed it the HTML once."""

    html: str
    sections: dict[str, str] = field(default_factory=dict)
    """Section id → its text, blanks collapsed."""
    tables: dict[str, list[list[list[str]]]] = field(default_factory=dict)
    """Section id → tables → rows → cells as text."""
    tags: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Every start tag with its attributes."""
    unclosed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._stack: list[str] = []
        self._section = "top"
        self.feed(self.html)
        self.close()
        self.unclosed = self._stack
        self.sections = {name: " ".join(words.replace("\u202f", " ").split()) for name, words in self.sections.items()}

    @classmethod
    def of(cls, path: Path) -> Page:
        return cls(path.read_text(encoding="utf-8"))

    @property
    def loads(self) -> list[str]:
        """What the page refers to outside itself or embeds."""
        return [value for _, attributes in self.tags for name, value in attributes.items() if name in _LOADS]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.tags.append((tag, attributes))
        if tag == "section":
            self._section = attributes["id"]
        tables = self.tables.setdefault(self._section, [])
        if tag == "table":
            tables.append([])
        if tag == "tr":
            tables[-1].append([])
        if tag in {"td", "th"}:
            tables[-1][-1].append("")
        if tag not in _VOID:
            self._stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._stack.pop() == tag, f"</{tag}> closes another element"
        if tag == "section":
            self._section = "end"

    def handle_data(self, data: str) -> None:
        if self._stack and self._stack[-1] in {"style", "script"}:
            return
        self.sections[self._section] = self.sections.get(self._section, "") + " " + data
        if "td" in self._stack or "th" in self._stack:
            self.tables[self._section][-1][-1][-1] += data.replace("\u202f", " ").replace("\u00a0", " ")

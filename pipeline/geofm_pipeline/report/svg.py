"""Inline SVG from small pieces. Every text and attribute value is escaped; colours are the page's CSS variables."""

from __future__ import annotations

from collections.abc import Iterable

from markupsafe import Markup, escape


def element(tag: str, *children: str | Markup, **attributes: str | float | None) -> Markup:
    """`<tag attributes>children</tag>`: `class_` becomes class, `stroke_width` stroke-width, None is left out."""
    words = [Markup(tag)]
    for name, value in attributes.items():
        if value is not None:
            text = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
            words.append(Markup('{}="{}"').format(Markup(name.rstrip("_").replace("_", "-")), text))
    inner = Markup("").join(escape(child) for child in children)
    return Markup("<{}>{}</{}>").format(Markup(" ").join(words), inner, Markup(tag))


def picture(width: float, height: float, title: str, children: Iterable[Markup], *, class_: str = "figure") -> Markup:
    """A whole figure of a size in its own units; `title` is what a screen reader says."""
    return element(
        "svg",
        element("title", title),
        *children,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_label=title,
        class_=class_,
        xmlns="http://www.w3.org/2000/svg",
    )


def group(children: Iterable[Markup], **attributes: str | float | None) -> Markup:
    """A `<g>`."""
    return element("g", *children, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A straight line."""
    return element("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=class_)


def text(x: float, y: float, words: str, *, anchor: str = "start", class_: str = "label") -> Markup:
    """Words at a place; `anchor` is start, middle or end."""
    return element("text", words, x=float(x), y=float(y), text_anchor=anchor, class_=class_)


def bar(x: float, y: float, width: float, height: float, class_: str, title: str | None = None) -> Markup:
    """A rectangle, with words that appear under the pointer."""
    children = [element("title", title)] if title else []
    return element("rect", *children, x=float(x), y=float(y), width=float(width), height=float(height), class_=class_)


def ticks(top: float, most: int = 4) -> list[float]:
    """Round numbers from 0 to at least `top`, at most `most` steps.

    >>> ticks(37)
    [0.0, 10.0, 20.0, 30.0, 40.0]
    """
    if top <= 0:
        return [0.0, 1.0]
    step = 1.0
    while step * most < top:
        step *= 2.5 if f"{step:e}".startswith("2") else 2
    return [step * i for i in range(int(-(-top // step)) + 1)]

"""Numbers in sentences."""


def counted(number: int, word: str) -> str:
    """`1 place`, `1,024 places`."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"

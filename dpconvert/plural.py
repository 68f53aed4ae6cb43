"""Numbers with their nouns, as they are told."""


def counted(number: int, noun: str) -> str:
    """`number` of a thing that takes an s, or es after an s, h or x: 1 class, 2000 classes."""
    ending = "" if number == 1 else "es" if noun[-1] in "shx" else "s"
    return f"{number} {noun}{ending}"

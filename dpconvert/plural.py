"""Numbers with their nouns, for messages."""


def counted(number: int, noun: str) -> str:
    """The number and the noun, with s, or es after an s, h or x, for the plural: 1 class, 2000 classes."""
    ending = "" if number == 1 else "es" if noun[-1] in "shx" else "s"
    return f"{number} {noun}{ending}"

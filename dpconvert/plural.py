"""Numbers with their nouns, for messages."""


def counted(number: int, noun: str) -> str:
    """Return the number with its noun; the plural adds s, or es after s, h or x: 1 class, 2000 classes, 2 epochs."""
    hissing = noun[-1] in "shx" and not noun.endswith("epoch")
    ending = "" if number == 1 else "es" if hissing else "s"
    return f"{number} {noun}{ending}"

"""What a licence is called elsewhere, by the name that a manifest gives it."""

from __future__ import annotations

import re

OTHER = "other"


def hub_name(name: str) -> str:
    """The identifier of the Hugging Face hub: `cc-by-4.0`, `cc0-1.0`; `other` for terms that have none."""
    plain = re.sub(r"[ _]+", "-", name.strip().casefold())
    if plain in ("cc0", "cc0-1.0"):
        return "cc0-1.0"
    return plain if re.fullmatch(r"cc-by(-nc)?(-sa|-nd)?-[234]\.[05]", plain) else OTHER


def sentence(name: str, url: str = "", note: str = "") -> str:
    """Name, address and note on one line."""
    return ", ".join(filter(None, [name or "not stated", f"<{url}>" if url else "", " ".join(note.split())]))

"""The names of licences on the Hugging Face Hub, from the names in manifests."""

from __future__ import annotations

import re

OTHER = "other"


def hub_name(name: str) -> str:
    """The identifier of the Hugging Face Hub, such as `cc-by-4.0`; `other` for terms without one."""
    plain = re.sub(r"[ _]+", "-", name.strip().casefold())
    if plain in ("cc0", "cc0-1.0"):
        return "cc0-1.0"
    return plain if re.fullmatch(r"cc-by(-nc)?(-sa|-nd)?-[234]\.[05]", plain) else OTHER


def sentence(name: str, url: str = "", note: str = "") -> str:
    """Name, address and note on one line."""
    return ", ".join(filter(None, [name or "not stated", f"<{url}>" if url else "", " ".join(note.split())]))

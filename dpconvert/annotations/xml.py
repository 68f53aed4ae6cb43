"""XML without entities, external or internal: what every XML format here is read with."""

from __future__ import annotations

from typing import Any

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring

from dpconvert.errors import ReadError


def root(data: bytes, name: str, tag: str) -> Any:
    """The root element, which must be called `tag`.

    Raises:
        ReadError: not XML, another kind of document, or one that defines entities.
    """
    try:
        element = fromstring(data, forbid_dtd=True)
    except DefusedXmlException:
        raise ReadError("XML that defines entities or a document type", where=name, remedy="export it again") from None
    except (ParseError, ValueError, LookupError) as error:
        raise ReadError(f"not XML: {error}", where=name) from None
    if element.tag != tag:
        raise ReadError("another kind of XML", where=name, expected=f"<{tag}>", found=f"<{element.tag}>")
    return element


def number(element: Any, attribute: str, name: str) -> float:
    """A finite number in an attribute.

    Raises:
        ReadError: absent or not a number.
    """
    text = element.get(attribute)
    try:
        value = float(str(text).replace(",", "."))
    except ValueError:
        value = float("nan")
    if not abs(value) < 1e9:
        raise ReadError(f"{attribute} of <{element.tag}> is no coordinate", where=name, found=repr(text)[:40])
    return value

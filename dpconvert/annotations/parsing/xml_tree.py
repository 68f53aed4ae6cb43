"""XML without entities, external or internal: what every XML format here is read with."""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import TreeBuilder

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import ParseError, XMLParser

from dpconvert.errors import ReadError, cut

MOST_TAGS = 2_500_000  # an element takes about 500 bytes
MOST_ATTRIBUTES = 64  # a tag, on average
FARTHEST = 1e9  # no image is larger; beyond, a coordinate is a fault


def root(data: bytes, name: str, tag: str, of: str = "") -> Any:
    """The root element, which must be called `tag`; if it holds anything, then also elements called `of`.

    Raises:
        ReadError: not XML, another kind of document, one that defines entities, or one too large to hold.
    """
    if data.count(b"<") > MOST_TAGS:
        raise ReadError(
            "too much XML", where=name, expected=f"at most {MOST_TAGS} tags", remedy="simplify the outlines"
        )
    if data.count(b"=") > MOST_ATTRIBUTES * (data.count(b"<") + MOST_ATTRIBUTES):
        raise ReadError("too many attributes", where=name, expected=f"about {MOST_ATTRIBUTES} a tag at most")
    try:
        parser = XMLParser(target=TreeBuilder(), forbid_dtd=True)
        parser.feed(data)
        element = parser.close()
    except DefusedXmlException:
        raise ReadError("XML that defines entities or a document type", where=name, remedy="export it again") from None
    except (ParseError, ValueError, LookupError) as error:
        raise ReadError(f"not XML: {error}", where=name) from None
    if element.tag != tag:
        raise ReadError("another kind of XML", where=name, expected=f"<{tag}>", found=f"<{cut(element.tag, 40)}>")
    if of and len(element) and element.find(of) is None:
        found = f"<{tag}> of <{cut(element[0].tag, 40)}>"
        raise ReadError("another kind of XML", where=name, expected=f"<{tag}> of <{of}>", found=found)
    return element


def number(element: Any, attribute: str, name: str) -> float:
    """A finite number in an attribute.

    Raises:
        ReadError: absent or not a number.
    """
    return parsed(element.get(attribute), f"{attribute} of <{element.tag}>", name)


def child_number(element: Any, tag: str, name: str) -> float:
    """A finite number in the text of a child.

    Raises:
        ReadError: absent or not a number.
    """
    return parsed(text(element, tag), f"<{tag}> of <{element.tag}>", name)


def text(element: Any, tag: str) -> str:
    """The text of a child without blanks around it; '' where there is no such child."""
    return (element.findtext(tag) or "").strip()


def parsed(value: str | None, what: str, name: str) -> float:
    """A finite number, with a point or a comma.

    Raises:
        ReadError: none.
    """
    try:
        found = float(str(value).replace(",", "."))
    except ValueError:
        found = float("nan")
    if not abs(found) < FARTHEST:
        raise ReadError(f"{what} is not a coordinate", where=name, found=repr(value)[:40])
    return found

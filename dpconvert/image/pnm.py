"""Netpbm's formats, PBM, PGM, PPM and PAM (https://netpbm.sourceforge.net/doc/): read the samples as they are stored.

Pillow scales samples to 8 or 16 bits when it opens a file, and does not read PAM.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dpconvert.image.base import Pixels
from dpconvert.image.guards.pixel_claims import check_claim
from dpconvert.image.rgb import ONE_IMAGE, KindError, Range, check_bits, to_rgb

MAGIC = re.compile(rb"P[1-7]\s")
WORD = re.compile(rb"(?:\s|#[^\n]*\n?)*([^\s#]+)")
COMMENT = re.compile(rb"#[^\n]*")
BITMAPS, PLAIN, PAM = b"P1 P4".split(), b"P1 P2 P3".split(), b"P7"
CHANNELS = {b"P1": 1, b"P2": 1, b"P3": 3, b"P4": 1, b"P5": 1, b"P6": 3}


@dataclass(frozen=True)
class Netpbm:
    """samples: (height, width, channels). white: the maximum sample. alpha: whether the last channel is opacity."""

    samples: NDArray[Any]
    white: int
    alpha: bool

    def rgb(self, scale: Range | None) -> Pixels:
        """Convert to RGB by the rule of dpconvert.image.rgb; samples are scaled to `white` unless it is 2^n - 1.

        Raises:
            KindError: the image uses few of its bits.
        """
        bits = self.white.bit_length()
        opacity: Any = "unassociated" if self.alpha else ""
        colours = self.samples[:, :, :-1] if self.alpha else self.samples
        if self.white + 1 == 1 << bits:
            check_bits(colours, bits, scale)
            return to_rgb(self.samples, bits=bits, opacity=opacity, scale=scale if bits > 8 else None)
        stated = scale if scale is not None and bits > 8 else (0, self.white)
        return to_rgb(self.samples.astype(np.uint16), opacity=opacity, scale=stated)


@dataclass(frozen=True)
class _Head:
    kind: bytes
    width: int
    height: int
    channels: int
    white: int
    alpha: bool
    at: int  # offset of the samples


def is_netpbm(start: bytes) -> bool:
    """Whether a file with these first bytes has one of these formats."""
    return MAGIC.match(start) is not None


def read(data: bytes) -> Netpbm:
    """Read the image of a file.

    Raises:
        KindError: the file contains several images.
        ValueError: the file is damaged or truncated.
    """
    head = _pam(data) if data.startswith(PAM) else _pnm(data)
    if min(head.width, head.height, head.channels, head.white) < 1 or head.white > 65535 or head.channels > 4:
        raise ValueError(f"a head of {head.width} x {head.height} x {head.channels} samples up to {head.white}")
    check_claim(head.width, head.height, len(data), head.channels / 8)
    shape = head.height, head.width, head.channels
    samples = _plain(data, head) if head.kind in PLAIN else _packed(data, head)
    if head.kind in BITMAPS:
        samples = 1 - samples  # 1 is black
    return Netpbm(samples.reshape(shape), head.white, head.alpha)


def _words(data: bytes, at: int, count: int) -> tuple[list[int], int]:
    words = []
    for _ in range(count):
        found = WORD.match(data, at)
        if found is None:
            raise ValueError("a head that is cut off")
        words.append(int(found[1]))
        at = found.end()
    return words, at


def _pnm(data: bytes) -> _Head:
    kind = data[:2]
    bitmap = kind in BITMAPS
    words, at = _words(data, 2, 2 if bitmap else 3)
    return _Head(kind, words[0], words[1], CHANNELS[kind], 1 if bitmap else words[2], alpha=False, at=at + 1)


def _pam(data: bytes) -> _Head:
    end = re.search(rb"^ENDHDR[ \t]*\n", data[: 1 << 16], re.MULTILINE)
    if end is None:
        raise ValueError("a head without an end")
    lines = [line.split(None, 1) for line in data[: end.start()].splitlines()[1:] if not line.startswith(b"#")]
    header = {line[0]: line[1] for line in lines if len(line) == 2}
    width, height, channels, white = (int(header.get(key, b"0")) for key in (b"WIDTH", b"HEIGHT", b"DEPTH", b"MAXVAL"))
    alpha = header.get(b"TUPLTYPE", b"").strip().endswith(b"_ALPHA") or channels in (2, 4)
    return _Head(PAM, width, height, channels, white, alpha, end.end())


def _packed(data: bytes, head: _Head) -> NDArray[Any]:
    row = -(-head.width // 8) if head.kind in BITMAPS else head.width * head.channels
    dtype = np.dtype(">u2") if head.white > 255 else np.dtype("u1")
    end = head.at + row * head.height * dtype.itemsize
    if len(data) < end:
        raise ValueError(f"cut off: its samples end at byte {end}, the file at {len(data)}")
    if is_netpbm(data[end : end + 3]):
        raise KindError("several images in one file, where one is expected", ONE_IMAGE)
    if head.kind in BITMAPS:
        packed = np.frombuffer(data, np.uint8, row * head.height, head.at).reshape(head.height, row)
        return np.unpackbits(packed, axis=1, count=head.width)
    return np.frombuffer(data, dtype, row * head.height, head.at).astype(dtype.newbyteorder("="))


def _plain(data: bytes, head: _Head) -> NDArray[Any]:
    text = COMMENT.sub(b"", data[head.at - 1 :])
    digits = b" ".join(re.findall(rb"[01]", text)) if head.kind in BITMAPS else text
    count = head.width * head.height * head.channels
    try:
        found = np.array(digits.split()[: count + 1], dtype=np.int64)
    except ValueError:
        raise ValueError("samples that are not numbers") from None
    if len(found) != count or not 0 <= found.min() <= found.max() <= head.white:
        raise ValueError(f"{len(found)} samples up to {found.max(initial=0)}, where {count} up to {head.white} belong")
    return found.astype(np.uint16 if head.white > 255 else np.uint8)

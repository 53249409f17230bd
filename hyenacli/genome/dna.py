"""DNA as the tool holds it everywhere: `bytes` of upper-case A C G T N."""

import hashlib

_INVALID = 0


def _normal_form() -> bytes:
    table = bytearray(256)  # 0 marks a byte that is not a nucleotide code
    for codes, base in ((b"A", b"A"), (b"C", b"C"), (b"G", b"G"), (b"TU", b"T"), (b"NRYSWKMBDHV", b"N")):
        for code in codes + codes.lower():
            table[code] = base[0]
    return bytes(table)


_NORMAL = _normal_form()
_NORMAL_LINES = bytes([*_NORMAL[: ord("\n")], ord("\n"), *_NORMAL[ord("\n") + 1 :]])
_COMPLEMENT = bytes.maketrans(b"ACGTN", b"TGCAN")


def normalise(raw: bytes) -> bytes:
    """Return upper case, with U read as T and every other IUPAC code as N; the length never changes.

    Raises:
        ValueError: a byte is not an IUPAC nucleotide code; the message names the first and its 0-based
            position.

    >>> normalise(b"acgURn")
    b'ACGTNN'
    >>> normalise(b"AC-T")
    Traceback (most recent call last):
    ...
    ValueError: '-' at position 2 is not a nucleotide code
    """
    sequence = raw.translate(_NORMAL)
    position = sequence.find(_INVALID)
    if position >= 0:
        raise ValueError(f"{chr(raw[position])!r} at position {position} is not a nucleotide code")
    return sequence


def normalised(raw: bytes) -> bytes | None:
    """Return what `normalise` does, or None where it refuses; faster than an exception, or looking twice.

    >>> normalised(b"acgU"), normalised(b"AC-T")
    (b'ACGT', None)
    """
    sequence = raw.translate(_NORMAL)
    return None if _INVALID in sequence else sequence


def normalised_lines(raw: bytes) -> list[bytes] | None:
    r"""Return what `normalised` makes of every line, the empty rest after the last included; None if of one.

    >>> normalised_lines(b"acg\nU\n"), normalised_lines(b"A\n-")
    ([b'ACG', b'T', b''], None)
    """
    text = raw.translate(_NORMAL_LINES)
    return None if _INVALID in text else text.split(b"\n")


def first_invalid(raw: bytes) -> int:
    """Return the 0-based position of the first byte that `normalise` refuses, -1 when there is none.

    >>> first_invalid(b"ACG*"), first_invalid(b"ACGU")
    (3, -1)
    """
    return raw.translate(_NORMAL).find(_INVALID)


def reverse_complement(sequence: bytes) -> bytes:
    """Return the other strand, 5' to 3', of a normalised sequence.

    >>> reverse_complement(b"AACGN")
    b'NCGTT'
    """
    return sequence.translate(_COMPLEMENT)[::-1]


def strandless_digest(sequence: bytes) -> bytes:
    """Return 16 bytes, equal for a normalised sequence and its reverse complement; b"" for an empty one.

    >>> strandless_digest(b"AACG") == strandless_digest(b"CGTT"), strandless_digest(b"")
    (True, b'')
    """
    smaller = min(sequence, reverse_complement(sequence))
    return hashlib.blake2b(smaller, digest_size=16).digest() if sequence else b""

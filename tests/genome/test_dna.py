import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyenacli.genome.dna import first_invalid, normalise, reverse_complement


def test_every_byte_has_exactly_one_reading() -> None:
    expected = dict(zip("ACGTU", "ACGTT", strict=True)) | dict.fromkeys("NRYSWKMBDHV", "N")
    for value in range(256):
        base = expected.get(chr(value).upper()) if value < 128 else None
        raw = b"AC" + bytes([value])
        if base is None:
            assert first_invalid(raw) == 2
            with pytest.raises(ValueError, match="position 2 is not a nucleotide code"):
                normalise(raw)
        else:
            assert first_invalid(raw) == -1
            assert normalise(raw) == b"AC" + base.encode()


def test_the_first_bad_character_is_named() -> None:
    with pytest.raises(ValueError, match=r"'-' at position 3 "):
        normalise(b"ACG-*")


@given(st.text("ACGTN").map(str.encode))
def test_reverse_complement_pairs_every_base(sequence: bytes) -> None:
    other = reverse_complement(sequence)
    assert reverse_complement(other) == sequence
    assert all(b"ACGTN"["TGCAN".index(chr(b))] == a for a, b in zip(sequence, reversed(other), strict=True))

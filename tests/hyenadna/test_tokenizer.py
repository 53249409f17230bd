import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hyenadna import ModelError, Tokenizer
from hyenadna.tokenizer import PAD, SEP, UNK, VOCABULARY


def test_the_published_vocabulary() -> None:
    assert " ".join(VOCABULARY) == "[CLS] [SEP] [BOS] [MASK] [PAD] [RESERVED] [UNK] A C G T N"
    assert (SEP, PAD, UNK) == (1, 4, 6)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("ACGTN", [7, 8, 9, 10, 11]),
        ("acgtn", [7, 8, 9, 10, 11]),
        ("Uu", [10, 10]),
        ("RYSWKMBDHVryswkmbdhv", [11] * 20),
        (".-* X\n", [6] * 6),
        ("[PAD]", [6, 6, 7, 11, 6]),
        ("é€A", [6, 6, 7]),
        ("", []),
    ],
)
def test_table(text: str, ids: list[int]) -> None:
    assert Tokenizer().encode(text).tolist() == ids
    assert Tokenizer(sep=True).encode(text).tolist() == [*ids, SEP]


def test_dtypes_and_bytes() -> None:
    tokenizer = Tokenizer(sep=True)
    assert tokenizer.encode(b"ACGT").dtype == torch.int64
    array = tokenizer.encode_array(b"AC\xff")
    assert (array.dtype, array.tolist()) == (np.uint8, [7, 8, 6, 1])


@given(st.text(alphabet="ACGTN"))
def test_decode_undoes_encode(text: str) -> None:
    assert Tokenizer().decode(Tokenizer().encode(text)) == text


def test_every_byte_has_one_id() -> None:
    ids = Tokenizer().encode_array(bytes(range(256)))
    assert len(ids) == 256
    assert sorted(set(ids.tolist())) == [6, 7, 8, 9, 10, 11]
    assert int((ids == UNK).sum()) == 256 - 2 * 16


@pytest.mark.parametrize("wrong", [-1, 12, 15])
def test_ids_without_a_token(wrong: int) -> None:
    with pytest.raises(ModelError, match=f"id {wrong} is not a token"):
        Tokenizer().decode([7, wrong])

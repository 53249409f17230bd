"""Files beside the weights with which transformers and MultiMolecule read a model rightly.

`modeling_hyenadna.py` is not imported here: it is copied into the exported folder.
"""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from hyenadna.config import HyenaConfig
from hyenadna.tokenizer import PAD, TABLE, UNK, VOCABULARY, A, T

MODELING = "modeling_hyenadna.py"
_N_SPECIAL = UNK + 1
_SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]"}


def write_transformers_files(config: HyenaConfig, folder: Path) -> None:
    """Write modelling code, tokenizer and generation settings of a model for transformers."""
    (folder / MODELING).write_bytes(files(__name__).joinpath(MODELING).read_bytes())
    _write(_tokenizer(), folder / "tokenizer.json")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config.l_max,
        "padding_side": "right",  # on the left, padding would be part of what the model reads
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        **_SPECIAL,
    }
    _write(settings, folder / "tokenizer_config.json")
    others = [token for token in range(config.n_vocab) if not A <= token <= T]
    _write(
        {"use_cache": False, "pad_token_id": PAD, "suppress_tokens": others},
        folder / "generation_config.json",
    )


def write_multimolecule_files(folder: Path) -> None:
    """Write tokenizer and generation settings for MultiMolecule: bare bases, and no cache."""
    nothing = dict.fromkeys(("bos_token", "eos_token", "cls_token", "sep_token"))
    settings = {"tokenizer_class": "DnaTokenizer", "alphabet": "streamline", **nothing}
    _write(settings, folder / "tokenizer_config.json")
    _write({"use_cache": False, "pad_token_id": 0}, folder / "generation_config.json")


def _tokenizer() -> dict[str, Any]:
    """Return tokenizer.json of the `tokenizers` library: `hyenadna.Tokenizer` by rules."""
    special = [
        {"id": i, "content": token, "special": True}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for i, token in enumerate(VOCABULARY[:_N_SPECIAL])
    ]
    spellings: dict[int, str] = {}
    for letter, token in enumerate(TABLE.tolist()):
        if token >= _N_SPECIAL:
            spellings[token] = spellings.get(token, "") + chr(letter)
    normalizers = [
        {"type": "Replace", "pattern": {"Regex": f"[{letters}]"}, "content": VOCABULARY[token]}
        for token, letters in spellings.items()
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": r"[\s\S]"},
            "behavior": "Isolated",
            "invert": False,
        },
        "post_processor": None,
        "decoder": {"type": "Fuse"},
        "model": {
            "type": "WordLevel",
            "vocab": {token: i for i, token in enumerate(VOCABULARY)},
            "unk_token": "[UNK]",
        },
    }


def _write(value: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")

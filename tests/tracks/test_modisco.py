"""What TF-MoDISco makes of what `hyena attribute --modisco` writes (`make modisco` installs it)."""

import os
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from examples.demo import HELD_OUT, SEED, draw_words, write_genome
from hyenacli.app import app
from tests.builders import random_dna, write_fasta

ENVIRONMENT = Path(os.environ.get("HYENA_MODISCO", Path(__file__).parents[2] / ".modisco"))
MODISCO = ENVIRONMENT / "bin" / "modisco"
LENGTH = 200


def run(*arguments: object) -> None:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output


@pytest.mark.slow
def test_modisco_finds_the_words_that_a_model_has_learnt(tmp_path: Path) -> None:
    if not MODISCO.exists():
        pytest.skip(f"{MODISCO} is absent: `make modisco` builds it")
    write_genome(tmp_path)
    sizes = ("--preset", "tiny-1k", "--d-model", 64, "--max-length", 256, "--lr", 3e-3)
    steps = ("--max-steps", 700, "--global-batch-size", 16, "--micro-batch-size", 16)
    model = tmp_path / "run"
    run("pretrain", tmp_path / "genome.fa", "-o", model, *sizes, *steps, "--valid-contigs", HELD_OUT, "-q")
    words = [word.tobytes().decode() for word in draw_words(np.random.default_rng(SEED))]
    # one word a sequence: more than in the genome would look like background to MoDISco
    sequences = []
    for number in range(300):
        bases, place, word = random_dna(LENGTH, number), 40 + number % 110, words[number % len(words)]
        sequences.append((f"s{number}", bases[:place] + word + bases[place + len(word) :]))
    fasta, folder = write_fasta(tmp_path / "s.fa", sequences), tmp_path / "modisco"
    outputs = ("-o", tmp_path / "a.npz", "--modisco", folder)
    run("attribute", fasta, "-m", model, "--method", "gradient", *outputs, "-q")
    files = ("-s", folder / "ohe.npz", "-a", folder / "attr.npz", "-o", folder / "motifs.h5")
    subprocess.run([MODISCO, "motifs", *files, "-n", "1000", "-w", str(LENGTH)], check=True)
    with h5py.File(folder / "motifs.h5") as motifs:
        patterns = [pattern["sequence"][:] for pattern in motifs["pos_patterns"].values()]
    consensus = ["".join("ACGT"[k] for k in pattern.argmax(axis=1)) for pattern in patterns]
    assert all(any(word in letters for letters in consensus) for word in words), consensus

"""The report of generated sequences, and the numbers in it by hand."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hyenacli.app import app
from hyenacli.evaluation.markov import MarkovModels, count_words
from hyenacli.generate.report import jensen_shannon, shared_words
from hyenacli.genome.dna import reverse_complement
from hyenadna import Tokenizer, save_model
from tests.builders import random_dna, write_fasta
from tests.toys import tiny_model

TOKENS = Tokenizer()


def words(text: str, k: int) -> Counter[str]:
    both = (text, reverse_complement(text.encode()).decode())
    return Counter(s[i : i + k] for s in both for i in range(len(s) - k + 1) if "N" not in s[i : i + k])


def divergence(first: Counter[str], second: Counter[str]) -> float:
    total = 0.0
    for word in first.keys() | second.keys():
        p, q = first[word] / first.total(), second[word] / second.total()
        total += sum(x * math.log2(2 * x / (p + q)) for x in (p, q) if x) / 2
    return total


@pytest.mark.parametrize("k", range(1, 7))
def test_divergence_of_words(k: int) -> None:
    texts = random_dna(300, 1, "ACGTN"), random_dna(500, 2, "AACGT")
    counts = [count_words([TOKENS.encode_array(text)], k, both_strands=True) for text in texts]
    expected = divergence(*(words(text, k) for text in texts))
    assert jensen_shannon(*counts) == pytest.approx(expected, abs=1e-12)


def test_words_shared_with_a_genome() -> None:
    genome = random_dna(2_000, 3)
    copied = genome[100:150], reverse_complement(genome[500:540].encode()).decode(), random_dna(60, 4)
    tokens = [TOKENS.encode_array(text) for text in (*copied, copied[0])]
    found = shared_words([tokens, []], [TOKENS.encode_array(genome)])
    assert found == [(20 + 10, 20 + 10 + 30), (0, 0)]


def test_markov_samples_have_the_words_of_their_source() -> None:
    source = TOKENS.encode_array("ACGGT" * 2_000)
    models = MarkovModels([source], order=3)
    samples = models.draw(3, [400, 0, 90], np.random.default_rng(0))
    assert [len(sample) for sample in samples] == [400, 0, 90]
    ours, theirs = (count_words(group, 4) for group in (samples, [source]))
    assert jensen_shannon(ours, theirs) < 0.05
    uniform = models.draw(0, [4_000], np.random.default_rng(0))
    assert count_words(uniform, 1) / 4_000 == pytest.approx([0.2, 0.2, 0.4, 0.2], abs=0.03)


def test_the_page_shows_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_model(tiny_model(), tmp_path / "model")
    genome = random_dna(3_000, 5)
    write_fasta(tmp_path / "g.fa", [("chr1", genome)])
    write_fasta(tmp_path / "p.fa", [("a", genome[:20]), ("long", genome[:200])])
    # a template that copies the genome shares its words
    line = (
        f"generate p.fa -m model -n 3 --template {genome[20:60]} -o x.tsv -q --report r.html --reference g.fa"
    )
    result = CliRunner().invoke(app, line.split())
    assert result.exit_code == 0, result.output
    page = (tmp_path / "r.html").read_text()
    assert "3 generated sequences" in page
    assert '<td>TOO_LONG</td><td class="n">3</td>' in page
    k_1 = divergence(words(genome[20:60], 1), words(genome, 1))
    assert f'<td>1</td><td class="n">{k_1:.5f}</td>' in page
    assert '<td class="n">10</td><td class="n">10</td><td class="n">100.00%</td>' in page
    assert page.count("<svg") == 2
    line = "generate p.fa -m model --length 5 -o x.tsv -q"
    assert CliRunner().invoke(app, f"{line} --report r.html".split()).exit_code == 0
    assert "CpG" in (tmp_path / "r.html").read_text()
    for flags, message in (
        ("--reference g.fa", "add --report FILE"),
        ("--report r.html --reference none.fa", "no such file"),
        ("--report r.html --shard 1/2", "a report needs every sequence"),
        ("--report -", "-: a report is an HTML page; give it the suffix .html"),
    ):
        result = CliRunner().invoke(app, f"{line} {flags}".split())
        assert result.exit_code in (1, 2)
        assert message in result.stderr

"""The functions give the numbers of the commands."""

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hyenacli import api
from hyenacli.app import app
from hyenacli.errors import UsageError
from hyenadna import HeadConfig, HyenaConfig, HyenaDNA, ModelError, Tokenizer, save_model
from tests.builders import random_dna, write_bed, write_fasta

GENOME = {"chr1": random_dna(300, seed=1), "chr2": random_dna(80, seed=2)}
VARIANTS = [
    ("1", 50, GENOME["chr1"][49], "A,C,GG"),
    ("chr2", 10, GENOME["chr2"][9:12], "T"),
    ("x", 1, "A", "C"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api")
    config = HyenaConfig(d_model=8, n_layer=2, d_inner=16, l_max=40, filter_order=8)
    save_model(HyenaDNA(config).eval(), folder / "model")
    tuned = HyenaDNA(config)
    tuned.set_head(HeadConfig("multiclass", 3, ("a", "b", "c")))
    save_model(tuned.eval(), folder / "tuned")
    write_fasta(folder / "genome.fa", GENOME.items())
    write_bed(folder / "regions.bed", [("chr1", 5, 100, "one", 0, "-"), ("2", 0, 30), ("chr3", 0, 5)])
    lines = ["chrom\tpos\tref\talt", *("\t".join(map(str, variant)) for variant in VARIANTS)]
    (folder / "variants.tsv").write_text("\n".join(lines) + "\n")
    return folder


def command(line: str, folder: Path) -> list[dict[str, str]]:
    with pytest.raises(SystemExit) as end:
        app([*line.format(folder).split(), "-o", f"{folder}/out.tsv", "-q"], prog_name="hyena")
    assert end.value.code == 0
    with (folder / "out.tsv").open() as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


@pytest.mark.parametrize("options", [{}, {"rc": "mean", "flank": 3, "layer": 1}])
def test_embed_equals_the_command(folder: Path, options: dict[str, Any]) -> None:
    flags = " ".join(f"--{name} {value}" for name, value in options.items())
    rows = command(f"embed {{0}}/regions.bed -f {{0}}/genome.fa -m {{0}}/model {flags}", folder)
    fasta, model = folder / "genome.fa", folder / "model"
    embedded = api.embed(folder / "regions.bed", model, fasta=fasta, **options)
    assert embedded.rows["id"] == [row["id"] for row in rows]
    assert embedded.rows["status"] == [row["status"] for row in rows] == ["OK", "OK", "NO_CONTIG"]
    assert np.isnan(embedded.vectors[2]).all()
    for vector, row in zip(embedded.vectors[:2], rows, strict=False):
        np.testing.assert_allclose(
            vector, [float(v) for k, v in row.items() if k.startswith("e")][-8:], rtol=1e-4
        )


def test_strings_bytes_and_tables_are_one(folder: Path) -> None:
    model = api.load(folder / "model")
    texts = ["ACGTACGTAA", "GATTACA" * 9, "AC-T", ""]
    embedded = api.embed(texts, model)
    assert embedded.rows["status"] == ["OK", "OK", "BAD_LETTER", "EMPTY"]
    assert embedded.rows["id"] == ["1", "2", "3", "4"]
    table = {"id": list("wxyz"), "dna": [text.encode() for text in texts]}
    again = api.embed(table, model, column="dna", batch_size=1)
    assert again.rows["id"] == list("wxyz")
    np.testing.assert_allclose(again.vectors, embedded.vectors, atol=1e-5)
    np.testing.assert_allclose(api.embed(texts[0], model).vectors, embedded.vectors[:1], atol=1e-6)
    assert api.embed(texts[:1], model, layer="all").vectors.shape == (1, 3, 8)
    assert api.embed([], model).vectors.shape == (0, 8)


def test_predict_equals_the_command(folder: Path) -> None:
    rows = command("predict {0}/regions.bed -f {0}/genome.fa -m {0}/tuned", folder)
    predicted = api.predict(folder / "regions.bed", folder / "tuned", fasta=folder / "genome.fa")
    assert list(predicted) == list(rows[0])
    assert predicted["prediction"] == [row["prediction"] for row in rows]
    np.testing.assert_allclose(predicted["p_b"][:2], [float(row["p_b"]) for row in rows[:2]], rtol=1e-4)
    assert api.predict(["ACGTT", "NNN"], folder / "tuned")["status"] == ["OK", "ALL_N"]


@pytest.mark.parametrize("source", ["file", "tuples", "table"])
@pytest.mark.parametrize("in_memory", [True, False])
def test_score_variants_equals_the_command(folder: Path, source: str, in_memory: bool) -> None:
    rows = command("score-variants {0}/variants.tsv -f {0}/genome.fa -m {0}/model --score llr,site", folder)
    names = ("chrom", "pos", "ref", "alt")
    table = dict(zip(names, zip(*VARIANTS, strict=True), strict=True))
    variants: Any = {"file": folder / "variants.tsv", "tuples": VARIANTS, "table": table}[source]
    genome: Any = GENOME if in_memory else folder / "genome.fa"
    scored = api.score_variants(variants, folder / "model", genome, score="llr,site")
    assert scored["alt"] == [row["alt"] for row in rows] == ["A", "C", "GG", "T", "C"]
    assert scored["HYENA_STATUS"] == [row["HYENA_STATUS"] for row in rows]
    for name in ("HYENA_LLR", "HYENA_SITE"):
        for value, row in zip(scored[name], rows, strict=True):
            assert value == (
                pytest.approx(float(row[name]), abs=1e-4) if row[name] not in ("", ".") else None
            )


def test_generate_equals_the_command(folder: Path) -> None:
    line = "generate {0}/regions.bed -f {0}/genome.fa -m {0}/model -n 2 --length 12 --stranded"
    flags = "--prompt-length 20 --forbid ACG --gc 20-80 --seed 5 --with-prompt"
    expected = command(f"{line} {flags}", folder)
    options: dict[str, Any] = {"fasta": folder / "genome.fa", "stranded": True, "prompt_length": 20}
    options |= {"length": 12, "samples": 2, "forbid": "ACG", "gc": "20-80", "seed": 5, "with_prompt": True}
    rows = api.generate(folder / "regions.bed", folder / "model", **options)
    assert rows["status"] == ["LENGTH"] * 4 + ["NO_CONTIG"] * 2
    for name, values in rows.items():
        texts = [row[name] for row in expected]
        if name in ("logp_sum", "logp_mean", "gc"):
            numbers = [float(text or "nan") for text in texts]
            np.testing.assert_allclose(values, numbers, rtol=1e-6)
        else:
            assert list(map(str, values)) == texts
    line = f"generate --prompt ACGT --length 5 -m {folder}/model"
    (row,) = command(line, folder)
    named = api.generate({"id": ["prompt"], "sequence": ["ACGT"]}, api.load(folder / "model"), length=5)
    assert named["sequence"] == [row["sequence"]]
    with pytest.raises(UsageError, match="no sequence meets the constraints"):
        api.generate("ACG", "nowhere", template="GAATTC", forbid="GAATTC")
    wrong: dict[str, Any]
    for wrong in (
        *({"samples": 0}, {"length": 0}, {"tries": 0}, {"seed": -1}, {"max_homopolymer": 0}),
        *({"no_repeat": 7}, {"top_k": 5}, {"top_p": 0.0}, {"min_p": 1.1}, {"temperature": -0.1}),
        *({"temperature": float("nan")}, {"prompt_length": 0}, {"prompt_length": -1}),
    ):
        ((name, value),) = wrong.items()
        with pytest.raises(UsageError, match=f"--{name.replace('_', '-')}: {value} is") as refused:
            api.generate("ACG", "nowhere", **wrong)
        assert "use " in str(refused.value)


def test_errors_name_the_remedy(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"no column 'sequence'; name one of: dna"):
        api.embed({"dna": ["A"]}, folder / "model")
    with pytest.raises(UsageError, match="holds a int; give sequences as str"):
        api.embed([1], folder / "model")  # type: ignore[list-item]
    with pytest.raises(UsageError, match="use `hyena embed"):
        api.embed("A", folder / "model", pool="none")


def refused(flag: str, what: str, calls: list[Callable[..., Any]], **wrong: Any) -> None:
    for call in calls:
        with pytest.raises(UsageError, match=f"^{flag}: {what}; "):
            call(**wrong)


@pytest.mark.parametrize("number", [0, -1])
def test_numbers_below_1_are_refused(folder: Path, number: int) -> None:
    what, model = f"{number} is out of range", folder / "model"
    windowed = [partial(api.embed, "ACGTACGT", model), partial(api.predict, "ACGTACGT", folder / "tuned")]
    refused("--window", what, windowed, window=number, stride=3)
    refused("--stride", what, windowed, window=3, stride=number)
    more = [partial(api.generate, "ACG", model), partial(api.score_variants, VARIANTS, model, GENOME)]
    refused("--batch-size", what, windowed + more, batch_size=number)
    refused("--threads", what, [partial(api.load, model)], threads=number)
    if number < 0:
        refused("--flank", what, [partial(api.embed, VARIANTS, model, fasta=GENOME)], flank=number)
    for name in ("window", "grid", "downstream"):
        refused(f"--{name}", what, more[1:], **{name: number})


def test_unknown_words_are_refused() -> None:
    both = [partial(verb, "ACGT", "nowhere") for verb in (api.embed, api.predict)]
    both.append(partial(api.score_variants, VARIANTS, "nowhere", GENOME))
    for word in ("both", "auto "):
        refused("--rc", f"unknown word '{word}'", both, rc=word)
    for word in ("fp16", "float16"):
        every = [*both, partial(api.generate, "ACGT", "nowhere")]
        refused("--dtype", f"unknown word '{word}'", every, dtype=word)


def test_flanks_need_a_genome(folder: Path) -> None:
    for source in ("ACGT", folder / "genome.fa"):
        with pytest.raises(UsageError, match="--flank: sequences are read whole; leave it out"):
            api.embed(source, "nowhere", flank=50)


def test_a_batch_is_padded_and_masked(folder: Path) -> None:
    batch = Tokenizer()(["ACG", "A", "acgtn"])
    assert batch.ids_BL.tolist() == [[7, 8, 9, 4, 4], [7, 4, 4, 4, 4], [7, 8, 9, 10, 11]]
    assert batch.mask_BL.sum(1).tolist() == [3, 1, 5]
    model = api.load(folder / "tuned")
    logits = model(batch.ids_BL, mask_BL=batch.mask_BL).head_logits
    assert logits is not None
    assert str(model.device) == "cpu"
    with pytest.raises(
        ModelError,
        match=r"one sequence, not a list; .*Tokenizer\(\)\(sequences\) makes a padded",
    ):
        Tokenizer().encode(["A", "C"])  # type: ignore[arg-type]

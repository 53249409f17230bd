"""Configurations of a model: its architecture, its head, and the seven published sizes."""

import reprlib
from dataclasses import dataclass
from typing import Literal, get_args

from .errors import ModelError, require

Task = Literal["binary", "multiclass", "multilabel", "regression"]
Pool = Literal["mean", "last", "max"]
Level = Literal["sequence", "nucleotide"]
_BASES = frozenset("ACGTN")
_MAX_SIZE = 1 << 24
"""Of every size of an architecture: float32, in which the filter counts positions, tells no more apart."""


@dataclass(frozen=True)
class HeadConfig:
    """A prediction head on the final hidden states.

    Attributes:
        task: what the outputs mean; it selects loss and metrics, never the arithmetic here.
        n_outputs: numbers per sequence (or per position at level "nucleotide").
        labels: the names of the outputs in order, or empty.
        pool: how positions become one vector; unused at level "nucleotide".
        level: one prediction per sequence or per position.
        bias: whether the linear layer has one (official decoders do, Hugging Face's `score` does not).
        rc: whether a prediction is the mean over a sequence and its reverse complement. The caller averages;
            the module reads one strand.
        window: bases that a prediction reads at once unless the user says otherwise; None for all it takes.
        average_windows: whether the prediction for a longer sequence is the mean of those for its windows.
            The caller averages.
        center: of each output of a regression, in the labels' unit; empty for 0.
        scale: what each output of a regression is multiplied by; empty for 1.
    """

    task: Task
    n_outputs: int
    labels: tuple[str, ...] = ()
    pool: Pool = "mean"
    level: Level = "sequence"
    bias: bool = True
    rc: bool = False
    window: int | None = None
    average_windows: bool = False
    center: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for field, kind in (("task", Task), ("pool", Pool), ("level", Level)):
            choices = get_args(kind)
            require(
                getattr(self, field) in choices,
                f"head {field} {reprlib.repr(getattr(self, field))} is not one of {choices}",
            )
        require(self.window is None or self.window >= 1, f"a window has bases, not {self.window}")
        require(self.n_outputs >= 1, f"a head needs at least one output, not {self.n_outputs}")
        require(
            len(self.labels) in (0, self.n_outputs),
            f"a head with {self.n_outputs} outputs cannot have {len(self.labels)} labels",
        )
        sizes = {len(self.center), len(self.scale)}
        require(
            sizes == {0} or (sizes == {self.n_outputs} and self.task == "regression"),
            "only a regression has a center and a scale, one for each output",
        )


@dataclass(frozen=True)
class DemonstrationsConfig:
    """Demonstrations: labelled sequences that a model reads before the one whose class is its next token.

    A class is a letter. The input is, for each shot, sequence [SEP] letter [SEP], then the query sequence and
    [SEP]; the caller puts it together (arXiv 2306.15794, in-context learning).

    Attributes:
        task: "binary" or "multiclass".
        labels: the names of the classes in order.
        letters: the letter of each, of A C G T N.
        shots: the demonstrations in order, each a sequence of A C G T N and the name of its class.
        max_length: most bases of a query sequence.
        rc: whether a prediction is the mean over a sequence and its reverse complement.
        temperature: what the logits of the letters are divided by.
    """

    task: Task
    labels: tuple[str, ...]
    letters: str
    shots: tuple[tuple[str, str], ...]
    max_length: int
    rc: bool = False
    temperature: float = 1.0

    def __post_init__(self) -> None:
        require(
            self.task in ("binary", "multiclass"),
            f"letters stand for classes, which a {self.task} task does not have",
        )
        require(
            len(set(self.labels)) == len(set(self.letters)) == len(self.labels) == len(self.letters) >= 2
            and set(self.letters) <= _BASES,
            f"letters {reprlib.repr(self.letters)} do not name the classes {reprlib.repr(self.labels)}",
        )
        for sequence, label in self.shots:
            require(label in self.labels, f"a demonstration has the unknown class {reprlib.repr(label)}")
            require(set(sequence) <= _BASES, "a demonstration has other letters than A C G T N")
        require(self.max_length >= 1, f"max_length must be at least 1, not {self.max_length}")
        require(self.temperature > 0, f"a temperature must be positive, not {self.temperature}")

    @property
    def head(self) -> HeadConfig:
        """Head configuration whose outputs mean what the logits of the letters mean."""
        return HeadConfig(self.task, len(self.labels), self.labels, pool="last", rc=self.rc)

    @property
    def longest(self) -> int:
        """Most tokens of an input: those of the shots, of the longest query sequence, and its [SEP]."""
        return sum(len(sequence) + 3 for sequence, _ in self.shots) + self.max_length + 1


@dataclass(frozen=True)
class HyenaConfig:
    """The architecture of one model (arXiv 2306.15794, section 3; Hyena order 2).

    Attributes:
        d_model: width D of the residual stream.
        n_layer: number of blocks.
        d_inner: width of the MLP.
        l_max: longest input in tokens. It is baked into the meaning of the weights: the filter is a function
            of n / l_max, so the same weights with another l_max are another model.
        vocab_size: tokens with a meaning; the embedding is padded to a multiple of `pad_vocab_multiple`.
        emb_dim: positional features per position: time and (emb_dim - 1) / 2 complex bands.
        filter_order: width of the filter MLP.
        n_inner_mlps: its hidden layers after the first.
        short_filter_order: taps of the short convolution.
        activation_freq: initial frequency of the filter's sines.
        embed_dropout: on the embedding, in training.
        resid_dropout: on the output that each mixer and MLP adds to the residual stream, in training.
        hyena_dropout: on the gated value before the long convolution, in training.
        layer_norm_eps: of every LayerNorm.
        window_shift: floor of the filter's decay window: 0.05 in every published inference code, 0.0 in the
            published training code.
        tied_head: LM logits through the embedding; otherwise through a matrix of their own.
        shared_freq: one vector of sine frequencies per filter; otherwise one per sine.
        head: a prediction head beside the LM head.
        demonstrations: those that the LM head predicts with, instead of a prediction head.
    """

    d_model: int
    n_layer: int
    d_inner: int
    l_max: int
    vocab_size: int = 12
    pad_vocab_multiple: int = 8
    emb_dim: int = 5
    filter_order: int = 64
    n_inner_mlps: int = 2
    short_filter_order: int = 3
    activation_freq: float = 10.0
    embed_dropout: float = 0.1
    resid_dropout: float = 0.0
    hyena_dropout: float = 0.0
    layer_norm_eps: float = 1e-5
    window_shift: float = 0.05
    tied_head: bool = True
    shared_freq: bool = True
    head: HeadConfig | None = None
    demonstrations: DemonstrationsConfig | None = None

    def __post_init__(self) -> None:
        counts = ("d_model", "n_layer", "d_inner", "vocab_size", "pad_vocab_multiple", "filter_order")
        least = dict.fromkeys((*counts, "short_filter_order"), 1) | {"l_max": 2, "n_inner_mlps": 0}
        for field, lowest in least.items():
            value = getattr(self, field)
            require(lowest <= value <= _MAX_SIZE, f"{field} must be {lowest} to {_MAX_SIZE:,}, not {value:,}")
        require(
            3 <= self.emb_dim <= _MAX_SIZE and self.emb_dim % 2 == 1,
            f"emb_dim must be odd and at least 3, not {self.emb_dim:,}",
        )
        for field in ("embed_dropout", "resid_dropout", "hyena_dropout"):
            value = getattr(self, field)
            require(0 <= value < 1, f"{field} must lie in [0, 1), not {value}")
        require(self.layer_norm_eps > 0, f"layer_norm_eps must be positive, not {self.layer_norm_eps}")
        if self.demonstrations is not None:
            require(self.head is None, "a model predicts with a head or with demonstrations, not with both")
            longest = self.demonstrations.longest
            require(
                longest <= self.l_max, f"demonstrations and a sequence of {longest:,} tokens exceed l_max"
            )

    @property
    def n_vocab(self) -> int:
        """Rows of the embedding and width of the logits: `vocab_size` rounded up."""
        return -(-self.vocab_size // self.pad_vocab_multiple) * self.pad_vocab_multiple

    @property
    def context(self) -> int:
        """Published context length: l_max less the room for two special tokens."""
        return self.l_max - 2


def _published(d_model: int, n_layer: int, context: int) -> HyenaConfig:
    return HyenaConfig(d_model=d_model, n_layer=n_layer, d_inner=4 * d_model, l_max=context + 2)


PRESETS: dict[str, HyenaConfig] = {
    "tiny-1k": _published(128, 2, 1024),
    "tiny-1k-d256": _published(256, 2, 1024),
    "tiny-16k": _published(128, 2, 16_384),
    "small-32k": _published(256, 4, 32_768),
    "medium-160k": _published(256, 8, 160_000),
    "medium-450k": _published(256, 8, 450_000),
    "large-1m": _published(256, 8, 1_000_000),
}

PUBLISHED_NAMES: dict[str, str] = {
    "tiny-1k": "hyenadna-tiny-1k-seqlen",
    "tiny-1k-d256": "hyenadna-tiny-1k-seqlen-d256",
    "tiny-16k": "hyenadna-tiny-16k-seqlen-d128",
    "small-32k": "hyenadna-small-32k-seqlen",
    "medium-160k": "hyenadna-medium-160k-seqlen",
    "medium-450k": "hyenadna-medium-450k-seqlen",
    "large-1m": "hyenadna-large-1m-seqlen",
}


def preset_name(name: str) -> str | None:
    """Return the preset of a name, or None: short or published, with or without `-hf` and publisher.

    >>> preset_name("hyenadna-tiny-1k-seqlen-hf"), preset_name("LongSafari/hyenadna-small-32k")
    ('tiny-1k', 'small-32k')
    """
    bare = name.removeprefix("LongSafari/").removeprefix("hyenadna-").removesuffix("-hf")
    for short, published in PUBLISHED_NAMES.items():
        if bare in (short, published.removeprefix("hyenadna-")):
            return short
    return None


def preset(name: str) -> HyenaConfig:
    """Return the architecture of a published model, by its short or its published name.

    Raises:
        ModelError: there is no such preset.

    >>> preset("tiny-1k").l_max, preset("hyenadna-large-1m-seqlen").d_model
    (1026, 256)
    """
    short = preset_name(name)
    if short is None:
        raise ModelError(f"there is no preset {name!r}", remedy=f"known: {', '.join(PRESETS)}")
    return PRESETS[short]

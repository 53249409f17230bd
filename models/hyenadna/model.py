"""The model.

B batch, L position, D width, V vocabulary rows, C head outputs.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .backbone import Backbone
from .config import DemonstrationsConfig, HeadConfig, HyenaConfig
from .engine import inference, training
from .errors import ModelError
from .heads import build_head
from .operator import HyenaFilter, HyenaOperator, Sin

if TYPE_CHECKING:
    from .adapters import Adapter

_STD = 0.02


@dataclass(frozen=True)
class HyenaOutput:
    """Result of one forward pass.

    Attributes:
        logits: (B, L, V) next-token scores. Columns 12-15 are no tokens, 0-6 are specials and 11 is N: mask
            all but 7-10 before sampling bases. All columns are in the published models' softmax.
        hidden: (B, L, D) after the final norm.
        hidden_states: the residual stream after each block, each (B, L, D), if asked to keep them.
        head_logits: (B, C), or (B, L, C) at level "nucleotide", where the model has a head.
    """

    logits: Tensor
    hidden: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    head_logits: Tensor | None = None


class HyenaDNA(nn.Module):
    """A HyenaDNA language model (arXiv 2306.15794), equal to the official one.

    Parameter names are the official ones without a wrapper's prefix. A new model has fresh weights by the
    official rule and is in training mode.

    Args:
        config: the architecture.
        generator: source of the fresh weights; torch's default generator without it.

    Attributes:
        adapter: what has been added to a frozen model, or None.

    >>> from hyenadna import HyenaDNA, preset
    >>> model = HyenaDNA(preset("tiny-1k"))
    >>> out = model(torch.randint(7, 11, (2, 50)))
    >>> out.logits.shape, out.hidden.shape, model.n_parameters
    (torch.Size([2, 50, 16]), torch.Size([2, 50, 128]), 436096)
    """

    def __init__(self, config: HyenaConfig, *, generator: torch.Generator | None = None):
        super().__init__()
        self.config = config
        self.backbone = Backbone(config)
        self.lm_head = None if config.tied_head else nn.Linear(config.d_model, config.n_vocab, bias=False)
        self.head = None if config.head is None else build_head(config.d_model, config.head)
        _initialise(self, config, generator)
        self.adapter: Adapter | None = None

    def forward(
        self, ids_BL: Tensor, *, hidden_states: bool = False, mask_BL: Tensor | None = None
    ) -> HyenaOutput:
        """Score every next token, as `plain` does, by the fast path for inference or for training.

        Args:
            ids_BL: (B, L) int64 token ids, L at most `longest_input`; pad on the right.
            hidden_states: keep the residual stream after each block.
            mask_BL: (B, L), true at real positions: for the head's pool only, since right padding cannot
                change a real position.

        Raises:
            ModelError: the ids are not (B, L), are empty, or too long.
        """
        self._check(ids_BL)
        hidden_BLD, residuals = self._states(ids_BL, hidden_states)
        return self._output(hidden_BLD, residuals, mask_BL)

    def plain(
        self, ids_BL: Tensor, *, hidden_states: bool = False, mask_BL: Tensor | None = None
    ) -> HyenaOutput:
        """Compute `forward` by definition: the arithmetic of the published code, in its order."""
        self._check(ids_BL)
        hidden_BLD, residuals = self.backbone(self.backbone.embed(ids_BL), hidden_states=hidden_states)
        return self._output(hidden_BLD, residuals, mask_BL)

    def hidden(self, ids_BL: Tensor) -> Tensor:
        """Compute the states (B, L, D) after the final norm, as in `forward`, without logits."""
        self._check(ids_BL)
        return self._states(ids_BL, hidden_states=False)[0]

    def stream_states(
        self, ids_BL: Tensor, layers: Sequence[int] = (inference.FINAL,)
    ) -> Iterator[inference.StateSlice]:
        """Yield the states of these layers slice by slice, for inputs whose states would not fit in memory.

        See `engine.inference.stream_states`.
        """
        self._check(ids_BL)
        return inference.stream_states(self, ids_BL, layers)

    def _states(self, ids_BL: Tensor, hidden_states: bool) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        if self.backbone.context is None and self.backbone.foreign_module() is not None:
            return self.backbone.forward(self.backbone.embed(ids_BL), hidden_states=hidden_states)
        if torch.is_grad_enabled() or self.training:
            x_BLD = self.backbone.embed(ids_BL)
            return training.run(self.backbone, x_BLD, hidden_states=hidden_states)
        return inference.read(self.backbone, ids_BL, hidden_states=hidden_states)

    def _check(self, ids_BL: Tensor) -> None:
        if ids_BL.ndim != 2:
            raise ModelError(f"token ids must be (batch, length), not {tuple(ids_BL.shape)}")
        self.backbone.check_length(ids_BL.shape[1])

    def _output(
        self, hidden_BLD: Tensor, residuals: tuple[Tensor, ...] | None, mask_BL: Tensor | None
    ) -> HyenaOutput:
        return HyenaOutput(
            logits=self.lm_logits(hidden_BLD),
            hidden=hidden_BLD,
            hidden_states=residuals,
            head_logits=None if self.head is None else self.head(hidden_BLD, mask_BL),
        )

    def lm_logits(self, hidden_BLD: Tensor) -> Tensor:
        """Compute next-token scores (B, L, V) of final hidden states, never in autocast's precision.

        Probabilities of bases differ by less than bfloat16 can tell apart, and it is a small product.
        """
        weight = self.lm_weight
        with inference.plain_precision(hidden_BLD.device):
            return functional.linear(hidden_BLD.to(weight.dtype), weight)

    @property
    def lm_weight(self) -> Tensor:
        """Matrix (V, D) of the LM head: the embedding itself when tied.

        Raises:
            ModelError: the module is not the one of this package, and may compute something else.
        """
        module = self.backbone.embeddings.word_embeddings if self.lm_head is None else self.lm_head
        if type(module) not in (nn.Embedding, nn.Linear):
            raise ModelError(
                f"the LM head is a {type(module).__qualname__}, which may compute more than its weights say",
                remedy="merge it into the weights first (peft: merge_and_unload)",
            )
        return module.weight

    @property
    def longest_input(self) -> int:
        """Most tokens of an input: `config.l_max` less the soft prompt."""
        return self.config.l_max - self.backbone.n_soft

    def set_head(self, config: HeadConfig, *, generator: torch.Generator | None = None) -> None:
        """Give the model a fresh head with weights drawn from `generator`.

        It replaces the head or the demonstrations that the model predicted with.
        """
        head = build_head(self.config.d_model, config)
        self.config = replace(self.config, head=config, demonstrations=None)
        _initialise(head, self.config, generator)
        self.head = head.to(self.lm_weight).train(self.training)

    def set_demonstrations(self, config: DemonstrationsConfig) -> None:
        """Make the model predict with its LM head after demonstrations, in place of any prediction head."""
        self.drop_head()
        self.config = replace(self.config, demonstrations=config)

    def keep_layers(self, count: int) -> None:
        """Keep the first `count` blocks alone, with the final norm after them.

        Raises:
            ModelError: the model has fewer, or an adapter, which belongs to the whole.
        """
        have = self.config.n_layer
        if not 1 <= count <= have:
            what = f"{count} layers cannot be kept of a model with {have}"
            raise ModelError(what, remedy=f"give 1 to {have}")
        if self.adapter is not None and count < have:
            raise ModelError("layers of a model with an adapter cannot be left out", remedy="merge it first")
        self.config = replace(self.config, n_layer=count)
        self.backbone.layers = self.backbone.layers[:count]

    def drop_head(self) -> None:
        """Leave the language model alone: no prediction head, no demonstrations."""
        self.config = replace(self.config, head=None, demonstrations=None)
        self.head = None

    def set_dropout(self, *, embed: float | None = None, resid: float | None = None) -> None:
        """Change the dropout of the embedding, or of the outputs that every block adds; None leaves it."""
        config = self.config
        embed = config.embed_dropout if embed is None else embed
        resid = config.resid_dropout if resid is None else resid
        self.config = replace(config, embed_dropout=embed, resid_dropout=resid)
        self.backbone.dropout.p = embed
        for block in self.backbone.blocks():
            block.dropout.p = resid

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return next(self.parameters()).device

    @property
    def n_parameters(self) -> int:
        """Numbers in all parameters, a shared one counted once; z, t and deltas are buffers."""
        return sum(parameter.numel() for parameter in self.parameters())

    def parameter_groups(self, lr: float, weight_decay: float) -> list[dict[str, Any]]:
        """Return parameter groups for an optimizer, as the published models were trained.

        The filter MLP and its frequencies have no weight decay, nor has a soft prompt; everything else has
        it, LayerNorms, biases and the filter's skip included. Frozen parameters are left out.
        """
        free: list[nn.Parameter] = []
        decayed: list[nn.Parameter] = []
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                kept = ".implicit_filter." in name or name.startswith("backbone.prompt.")
                (free if kept else decayed).append(parameter)
        groups = [
            {"params": decayed, "lr": lr, "weight_decay": weight_decay},
            {"params": free, "lr": lr, "weight_decay": 0.0},
        ]
        return [group for group in groups if group["params"]]


@torch.no_grad()
def _initialise(model: nn.Module, config: HyenaConfig, generator: torch.Generator | None = None) -> None:
    """Draw every parameter of `model` anew, in the order of its modules; none on the meta device.

    Linear weights (the filter MLP's too) and embeddings N(0, 0.02), biases 0; what writes into the residual
    stream (out_proj, fc2) N(0, 0.02 / sqrt(2 n_layer)); short convolution uniform within 1/sqrt(taps); skip
    N(0, 1); sine frequencies `activation_freq`; LayerNorm 1 and 0. (The Hugging Face port never applies the
    rule for out_proj and fc2; we follow the code the models were trained with.)

    Args:
        model: a module made of this package's parts.
        config: its architecture.
        generator: source of the numbers; torch's default one without it.
    """
    if next(model.parameters()).is_meta:
        return
    residual_std = _STD / math.sqrt(2 * config.n_layer)
    for name, module in model.named_modules():
        writes_residual = name.endswith(("mixer.out_proj", "mlp.fc2"))
        _fill(module, residual_std if writes_residual else _STD, config, generator)


def _fill(module: nn.Module, std: float, config: HyenaConfig, generator: torch.Generator | None) -> None:
    if isinstance(module, nn.Linear):
        module.weight.normal_(0, std, generator=generator)
        _zero(module.bias)
    elif isinstance(module, nn.Embedding):
        module.weight.normal_(0, std, generator=generator)
    elif isinstance(module, nn.LayerNorm):
        module.weight.fill_(1)
        _zero(module.bias)
    elif isinstance(module, Sin):
        module.freq.fill_(config.activation_freq)
    elif isinstance(module, HyenaFilter):
        module.bias.normal_(0, 1, generator=generator)
    elif isinstance(module, HyenaOperator):
        bound = 1 / math.sqrt(config.short_filter_order)
        for tensor in module.short_filter.parameters():
            tensor.uniform_(-bound, bound, generator=generator)


def _zero(bias: Tensor | None) -> None:
    if bias is not None:
        bias.zero_()

"""Embedding, the stack of pre-norm blocks, final norm.

B batch, L position, D width, I inner width.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from .adapters import LoraLinear, SoftPrompt
from .config import HyenaConfig
from .engine.convolution import SpectrumCache
from .errors import ModelError
from .operator import (
    ExponentialModulation,
    HyenaFilter,
    HyenaOperator,
    PositionalEmbedding,
    Sin,
    positional_features,
)

if TYPE_CHECKING:
    from .engine.mixer import ContextGroup


class Mlp(nn.Module):
    """fc2(gelu(fc1(x))) with the tanh approximation of GELU, as the official MLP."""

    def __init__(self, config: HyenaConfig):
        super().__init__()
        self.fc1 = nn.Linear(config.d_model, config.d_inner)
        self.fc2 = nn.Linear(config.d_inner, config.d_model)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Map (B, L, D) to (B, L, D), position by position."""
        inner_BLI: Tensor = self.fc1(x_BLD)
        out_BLD: Tensor = self.fc2(functional.gelu(inner_BLI, approximate="tanh"))
        return out_BLD


def normalise(norm: nn.LayerNorm, r_BLD: Tensor) -> Tensor:
    """Apply LayerNorm to the residual stream, which may be wider than the norm's dtype."""
    out_BLD: Tensor = norm(r_BLD.to(norm.weight.dtype))
    return out_BLD


class Block(nn.Module):
    """r += Hyena(LN r); r += MLP(LN r).

    The official block carries the MLP's output beside the residual and adds it at the start of the next
    block; the sums are the same ones in the same order.
    """

    def __init__(self, config: HyenaConfig, z_1LE: Tensor, t_1L1: Tensor):
        super().__init__()
        self.mixer = HyenaOperator(config, z_1LE, t_1L1)
        self.norm1 = nn.LayerNorm(config.d_model, eps=config.layer_norm_eps)
        self.mlp = Mlp(config)
        self.norm2 = nn.LayerNorm(config.d_model, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.resid_dropout)

    def forward(self, r_BLD: Tensor) -> Tensor:
        """Return the residual stream after this block, in the dtype it came in."""
        mixed_BLD: Tensor = self.dropout(self.mixer(normalise(self.norm1, r_BLD)))
        r_BLD = r_BLD + mixed_BLD
        fed_BLD: Tensor = self.dropout(self.mlp(normalise(self.norm2, r_BLD)))
        return r_BLD + fed_BLD


class Embeddings(nn.Module):
    """The token embedding under its official name."""

    def __init__(self, config: HyenaConfig):
        super().__init__()
        # without values, which are drawn later: on the meta device, drawing imports torch's compiler
        size = config.n_vocab, config.d_model
        self.word_embeddings = nn.Embedding(*size, _weight=torch.empty(size))


class Backbone(nn.Module):
    """Everything but the heads; attribute names are the official ones.

    `forward` is the plain definition; `HyenaDNA` runs the blocks through `engine`.

    Attributes:
        spectra: kept filter spectra of inference.
        activation_checkpointing: in training, keep only the input of each block and compute it again.
        context: the processes that share windows in training, each with a part of their positions, or None.
        prompt: a soft prompt, whose positions come before the tokens' and are in no output, or None.

    There is no attention mask: [PAD] is an ordinary token that influences everything to its right. Padding
    on the right therefore changes nothing, and padding on the left is part of the input.
    """

    def __init__(self, config: HyenaConfig):
        super().__init__()
        self.l_max = config.l_max
        z_1LE, t_1L1 = positional_features(config.l_max, config.emb_dim)
        self.embeddings = Embeddings(config)
        self.dropout = nn.Dropout(config.embed_dropout)
        self.layers = nn.ModuleList(Block(config, z_1LE, t_1L1) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.d_model, eps=config.layer_norm_eps)
        self.spectra = SpectrumCache()
        self.activation_checkpointing = False
        self.context: ContextGroup | None = None
        self.prompt: SoftPrompt | None = None

    def embed(self, ids_BL: Tensor) -> Tensor:
        """Return the token embeddings (B, L, D)."""
        x_BLD: Tensor = self.embeddings.word_embeddings(ids_BL)
        return x_BLD

    def forward(
        self, x_BLD: Tensor, *, hidden_states: bool = False
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """Run the blocks on embedded tokens.

        Args:
            x_BLD: embeddings. The residual stream is kept in float32, or float64 for a float64 model.
            hidden_states: keep the residual stream after each block.

        Returns:
            The states after the final norm, and the residual stream after each block if `hidden_states`, each
            (B, L, D).

        Raises:
            ModelError: the input is longer than `l_max`, for which the filters have no values.
        """
        self.check_length(x_BLD.shape[1])
        x_BLD = self.prompted(x_BLD)
        r_BLD: Tensor = self.dropout(x_BLD.to(torch.promote_types(x_BLD.dtype, torch.float32)))
        residuals = []
        for layer in self.layers:
            r_BLD = layer(r_BLD)
            if hidden_states:
                residuals.append(r_BLD[:, self.n_soft :])
        return normalise(self.ln_f, r_BLD[:, self.n_soft :]), tuple(residuals) if hidden_states else None

    @property
    def n_soft(self) -> int:
        """Positions of the soft prompt."""
        return 0 if self.prompt is None else len(self.prompt.vectors)

    def prompted(self, x_BLD: Tensor) -> Tensor:
        """Put the soft prompt before embedded tokens, (B, n_soft + L, D), with its dropout in training."""
        if self.prompt is None:
            return x_BLD
        out_BLD: Tensor = self.prompt(x_BLD)
        return out_BLD

    def check_length(self, length: int) -> None:
        """Raise ModelError unless there is a token, and room for all of them after the soft prompt."""
        if length < 1:
            raise ModelError("the input is empty", remedy="give at least one token")
        if length > self.l_max - self.n_soft:
            raise ModelError(
                f"the input has {length:,} tokens, but this model takes at most {self.describe_room()}",
                remedy="cut it into windows or use a model with a longer context",
            )

    def describe_room(self) -> str:
        """Describe how many tokens there is room for, and why not more."""
        beside = f" after a soft prompt of {self.n_soft:,} in {self.l_max:,}" if self.n_soft else ""
        return f"{self.l_max - self.n_soft:,}{beside}"

    def foreign_module(self, *, hooks: bool = True) -> str | None:
        """Return the name of the first module that is not one of this package's or has a hook, or None.

        Others have put it there: peft wraps layers, torch parametrises them. It may compute something else
        than its weights say, so that only calling it is right, as `forward` does.

        Args:
            hooks: count modules with hooks.
        """
        # torch's own walk of the modules would take longer than a short input
        modules: list[nn.Module | None] = [self]
        while modules:
            module = modules.pop()
            if module is None:
                continue
            if type(module) not in _KNOWN or (hooks and _is_hooked(module)):
                name = next(name for name, other in self.named_modules() if other is module)
                return f"backbone.{name} ({type(module).__module__}.{type(module).__qualname__})"
            modules += reversed(module._modules.values())  # noqa: SLF001
        return None

    def check_readable(self) -> None:
        """Raise ModelError if the engine, which reads the weights of modules, cannot read one."""
        if (foreign := self.foreign_module()) is not None:
            raise ModelError(
                f"{foreign} is wrapped or has a hook, which this way of reading a model would leave out",
                remedy="merge it into the weights first (peft: merge_and_unload), or call the model itself",
            )

    def blocks(self) -> list[Block]:
        """Return the layers in order, typed."""
        return [layer for layer in self.layers if isinstance(layer, Block)]

    def train(self, mode: bool = True) -> Self:
        """Set the mode; training frees the kept spectra, which would be out of date after every step."""
        if mode:
            self.spectra.drop()
        return super().train(mode)

    def positional(self) -> list[PositionalEmbedding]:
        """Return the positional features of every layer, in order."""
        return [layer.mixer.filter_fn.pos_emb for layer in self.blocks()]

    def share_positions(self) -> None:
        """Share one tensor between layers with equal z (and t): at l_max 1,000,002 a copy costs 24 MB."""
        first, *others = self.positional()
        for other in others:
            if other.z is not first.z and torch.equal(other.z, first.z):
                other.z = first.z
            if other.t is not first.t and torch.equal(other.t, first.t):
                other.t = first.t

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # moving a module replaces every buffer by a copy of its own, which would undo the sharing
        first, *others = self.positional()
        same_z = [other for other in others if other.z is first.z]
        same_t = [other for other in others if other.t is first.t]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for other in same_z:
            other.z = first.z
        for other in same_t:
            other.t = first.t
        return self


_KNOWN = {
    *(Backbone, Embeddings, Block, HyenaOperator, Mlp, HyenaFilter, PositionalEmbedding, Sin),
    *(ExponentialModulation, LoraLinear, SoftPrompt, nn.Embedding, nn.Dropout, nn.LayerNorm, nn.Linear),
    *(nn.Conv1d, nn.ModuleList, nn.Sequential),
}


def _is_hooked(module: nn.Module) -> bool:
    attributes = vars(module)
    return bool(
        "forward" in attributes
        or attributes["_forward_hooks"]
        or attributes["_forward_pre_hooks"]
        or attributes["_backward_hooks"]
        or attributes["_backward_pre_hooks"]
    )

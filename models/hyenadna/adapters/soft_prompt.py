"""Soft prompts: learned vectors that stand before the embedded tokens.

B sequence, L position of the tokens, n vector, D width.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from hyenadna.errors import ModelError

from .lora import attach, check_free
from .methods import Adapter, SoftPromptConfig

if TYPE_CHECKING:
    from hyenadna.model import HyenaDNA

_STD = 0.02


class SoftPrompt(nn.Module):
    """The vectors (n, D), as in `evals/soft_prompting_genomics.py` of the official code.

    Args:
        like: (V, D), a matrix of the same width, device and dtype.
        config: how many, and their dropout.
        generator: source of the vectors, N(0, 0.02); torch's default without it.
    """

    def __init__(self, like: Tensor, config: SoftPromptConfig, generator: torch.Generator | None = None):
        super().__init__()
        # drawn on the CPU, as LoRA's matrices
        vectors_nD = torch.empty(config.tokens, like.shape[1]).normal_(0, _STD, generator=generator)
        self.vectors = nn.Parameter(vectors_nD.to(like))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """Put the vectors before x, (B, n + L, D); dropout is the same for all sequences."""
        return _before(self.dropout(self.vectors), x_BLD)

    def read(self, x_BLD: Tensor) -> Tensor:
        """Put the vectors before x as `forward` does, without dropout."""
        return _before(self.vectors, x_BLD)


def add_soft_prompt(
    model: "HyenaDNA", config: SoftPromptConfig, *, base: str, generator: torch.Generator | None = None
) -> None:
    """Give a model a soft prompt in place, and freeze all but it and the head.

    Args:
        model: without an adapter.
        config: of the prompt.
        base: the model as it is now, as `load_model` takes it: the name its files will record.
        generator: source of the vectors; torch's default without it.

    Raises:
        ModelError: the model has an adapter already, or no room for a token after the prompt.
    """
    check_free(model)
    if config.tokens >= model.config.l_max:
        raise ModelError(
            f"a soft prompt of {config.tokens:,} tokens leaves no room in a model that takes "
            f"{model.config.l_max:,}",
            remedy="take fewer, or a model with a longer context",
        )
    like_VD = model.backbone.embeddings.word_embeddings.weight.detach()
    model.backbone.prompt = SoftPrompt(like_VD, config, generator).train(model.training)
    attach(model, Adapter(config, base))


def _before(vectors_nD: Tensor, x_BLD: Tensor) -> Tensor:
    return torch.cat([vectors_nD.to(x_BLD.dtype).expand(len(x_BLD), -1, -1), x_BLD], dim=1)

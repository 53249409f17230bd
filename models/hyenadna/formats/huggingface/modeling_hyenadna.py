# mypy: ignore-errors
"""HyenaDNA for Hugging Face transformers (4.57 and 5): the published arithmetic, in one file.

hyena copies this file into every model that it exports for transformers.

B batch, L position, D width, K the 3 D channels of the projection, C outputs; a leading 1 is broadcast.
"""

import math

import torch
from torch import nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import (
    BaseModelOutput,
    CausalLMOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)


class HyenaDNAConfig(PretrainedConfig):
    """The architecture, under the keys of the first Hugging Face port; `hyena_head` is hyena's head."""

    model_type = "hyenadna-hf"
    attribute_map = {  # noqa: RUF012  (a convention of transformers)
        "hidden_size": "d_model",
        "num_hidden_layers": "n_layer",
        "max_position_embeddings": "max_seq_len",
    }

    def __init__(
        self,
        d_model=128,
        n_layer=2,
        d_inner=512,
        vocab_size=12,
        pad_vocab_size_multiple=8,
        max_seq_len=1026,
        emb_dim=5,
        filter_order=64,
        num_inner_mlps=2,
        short_filter_order=3,
        activation_freq=10.0,
        layer_norm_epsilon=1e-5,
        window_shift=0.05,
        embed_dropout=0.1,
        resid_dropout=0.0,
        hyena_dropout=0.0,
        hyena_head=None,
        **others,
    ):
        self.d_model, self.n_layer, self.d_inner = d_model, n_layer, d_inner
        self.vocab_size, self.pad_vocab_size_multiple = vocab_size, pad_vocab_size_multiple
        self.max_seq_len, self.emb_dim, self.filter_order = max_seq_len, emb_dim, filter_order
        self.num_inner_mlps, self.short_filter_order = num_inner_mlps, short_filter_order
        self.activation_freq, self.layer_norm_epsilon = activation_freq, layer_norm_epsilon
        self.window_shift, self.hyena_head = window_shift, hyena_head
        self.embed_dropout, self.resid_dropout = embed_dropout, resid_dropout
        self.hyena_dropout = hyena_dropout
        others.setdefault("tie_word_embeddings", False)
        others.setdefault("pad_token_id", 4)
        super().__init__(**others)
        self.use_cache = False

    @property
    def n_vocab(self):
        """Rows of the embedding: `vocab_size` rounded up."""
        return -(-self.vocab_size // self.pad_vocab_size_multiple) * self.pad_vocab_size_multiple


class Sin(nn.Module):
    """sin(freq * x), with a learned frequency per feature."""

    def __init__(self, width, freq):
        super().__init__()
        self.freq = nn.Parameter(torch.full((1, width), float(freq)))

    def forward(self, x):
        return torch.sin(self.freq * x)


class PositionalEmbedding(nn.Module):
    """The positional features z (1, L, E) and the times t (1, L, 1), which come with the weights."""

    def __init__(self, length, emb_dim):
        super().__init__()
        self.register_buffer("z", torch.zeros(1, length, emb_dim))
        self.register_buffer("t", torch.zeros(1, length, 1))


class Modulation(nn.Module):
    """The decaying window, whose floor is `shift`."""

    def __init__(self, d_model, shift):
        super().__init__()
        self.shift = shift
        self.register_buffer("deltas", torch.zeros(1, 1, d_model))

    def forward(self, t_1L1, h_1LD):
        return h_1LD * (torch.exp(-t_1L1 * self.deltas.abs()) + self.shift)


class HyenaFilter(nn.Module):
    """The implicit filter of one layer, in float32 at least; its sines share their frequencies."""

    def __init__(self, config):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(config.d_model))
        self.pos_emb = PositionalEmbedding(config.max_seq_len, config.emb_dim)
        self.modulation = Modulation(config.d_model, config.window_shift)
        width, last = config.filter_order, 2 * config.num_inner_mlps + 2
        layers = {"0": nn.Linear(config.emb_dim, width), "1": Sin(width, config.activation_freq)}
        layers |= {str(i): nn.Linear(width, width) for i in range(2, last, 2)}
        layers[str(last)] = nn.Linear(width, config.d_model, bias=False)
        self.implicit_filter = nn.ModuleDict(layers)

    def forward(self, length):
        """Return the first `length` taps (D, L)."""
        h, sin = self.pos_emb.z[:, :length], self.implicit_filter["1"]
        *hidden, last = (layer for name, layer in self.implicit_filter.items() if name != "1")
        for layer in hidden:
            h = sin(layer(h))
        return self.modulation(self.pos_emb.t[:, :length], last(h))[0].T


class HyenaOperator(nn.Module):
    """Projection, short convolution, gate, long convolution, gate, projection."""

    def __init__(self, config):
        super().__init__()
        d, taps = config.d_model, config.short_filter_order
        self.in_proj = nn.Linear(d, 3 * d)
        self.out_proj = nn.Linear(d, d)
        self.short_filter = nn.Conv1d(3 * d, 3 * d, taps, groups=3 * d, padding=taps - 1)
        self.filter_fn = HyenaFilter(config)
        self.dropout = nn.Dropout(config.hyena_dropout)

    def forward(self, x_BLD):
        length = x_BLD.shape[1]
        s_BKL = self.short_filter(self.in_proj(x_BLD).transpose(1, 2))[..., :length]
        x0_BDL, x1_BDL, v_BDL = s_BKL.chunk(3, dim=1)
        gated_BDL = self.dropout(v_BDL * x1_BDL)
        with torch.autocast(x_BLD.device.type, enabled=False):
            y_BDL = self._convolve(gated_BDL).to(x0_BDL.dtype)
        return self.out_proj((y_BDL * x0_BDL).transpose(1, 2))

    def _convolve(self, v_BDL):
        k_DL = self.filter_fn(v_BDL.shape[-1])
        v_BDL = v_BDL.to(k_DL.dtype)
        n_fft = 2 * v_BDL.shape[-1]
        k_DF = torch.fft.rfft(k_DL, n=n_fft) / n_fft
        y_BDL = torch.fft.irfft(torch.fft.rfft(v_BDL, n=n_fft) * k_DF, n=n_fft, norm="forward")
        return y_BDL[..., : v_BDL.shape[-1]] + v_BDL * self.filter_fn.bias[:, None]


class Mlp(nn.Module):
    """fc2(gelu(fc1(x))), with the tanh approximation."""

    def __init__(self, config):
        super().__init__()
        self.fc1 = nn.Linear(config.d_model, config.d_inner)
        self.fc2 = nn.Linear(config.d_inner, config.d_model)

    def forward(self, x_BLD):
        return self.fc2(functional.gelu(self.fc1(x_BLD), approximate="tanh"))


class Block(nn.Module):
    """r += Hyena(LN r); r += MLP(LN r), with r in float32 at least."""

    def __init__(self, config):
        super().__init__()
        self.mixer = HyenaOperator(config)
        self.norm1 = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.mlp = Mlp(config)
        self.norm2 = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.dropout = nn.Dropout(config.resid_dropout)

    def forward(self, r_BLD):
        r_BLD = r_BLD + self.dropout(self.mixer(_normalise(self.norm1, r_BLD)))
        return r_BLD + self.dropout(self.mlp(_normalise(self.norm2, r_BLD)))


def _normalise(norm, r_BLD):
    return norm(r_BLD.to(norm.weight.dtype))


class Embeddings(nn.Module):
    """The token embedding under its published name."""

    def __init__(self, config):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.n_vocab, config.d_model)


class Backbone(nn.Module):
    """Embedding, blocks and final norm."""

    def __init__(self, config):
        super().__init__()
        self.embeddings = Embeddings(config)
        self.dropout = nn.Dropout(config.embed_dropout)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)


class HyenaDNAPreTrainedModel(PreTrainedModel):
    """What the models have in common."""

    config_class = HyenaDNAConfig
    base_model_prefix = "hyena"
    _keep_in_fp32_modules_strict = ["filter_fn"]  # noqa: RUF012  (a convention of transformers)

    def _init_weights(self, module):
        if isinstance(module, nn.Linear | nn.Embedding):
            module.weight.data.normal_(0, 0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            module.bias.data.zero_()


class HyenaDNAModel(HyenaDNAPreTrainedModel):
    """The backbone. It reads left to right and has no attention: padding belongs on the right."""

    def __init__(self, config):
        super().__init__(config)
        self.backbone = Backbone(config)
        self.post_init()

    def get_input_embeddings(self):
        return self.backbone.embeddings.word_embeddings

    def set_input_embeddings(self, value):
        self.backbone.embeddings.word_embeddings = value

    def forward(
        self,
        input_ids=None,
        attention_mask=None,  # noqa: ARG002  (padding on the right changes no base)
        inputs_embeds=None,
        output_hidden_states=None,
        return_dict=None,
        **_others,
    ):
        """Return states (B, L, D) after the final norm; with hidden states, the stream after every block."""
        x_BLD = self.get_input_embeddings()(input_ids) if inputs_embeds is None else inputs_embeds
        if x_BLD.shape[1] > self.config.max_seq_len:
            raise ValueError(f"{x_BLD.shape[1]} tokens, but the model takes {self.config.max_seq_len}")
        r_BLD = self.backbone.dropout(x_BLD.to(torch.promote_types(x_BLD.dtype, torch.float32)))
        streams = [r_BLD]
        for block in self.backbone.layers:
            r_BLD = block(r_BLD)
            streams.append(r_BLD)
        keep = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        output = BaseModelOutput(_normalise(self.backbone.ln_f, r_BLD), tuple(streams) if keep else None)
        return output.to_tuple() if return_dict is False else output


class HyenaDNAForCausalLM(HyenaDNAPreTrainedModel, GenerationMixin):
    """The language model. Every step of `generate` reads the whole sequence: there is no cache."""

    def __init__(self, config):
        super().__init__(config)
        self.hyena = HyenaDNAModel(config)
        self.lm_head = nn.Linear(config.d_model, config.n_vocab, bias=False)
        self.post_init()

    def get_output_embeddings(self):
        return self.lm_head

    def set_output_embeddings(self, value):
        self.lm_head = value

    def prepare_inputs_for_generation(self, input_ids, attention_mask=None, **_others):
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None, labels=None, **how):
        """Score every next token, (B, L, V); `labels` are the input ids, with -100 where none counts."""
        return_dict = how.pop("return_dict", None)
        out = self.hyena(input_ids, attention_mask, inputs_embeds, **how)
        logits = self.lm_head(out.last_hidden_state)
        loss = None
        if labels is not None:
            loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())
        output = CausalLMOutput(loss, logits, out.hidden_states)
        return output.to_tuple() if return_dict is False else output


class _Predictor(HyenaDNAPreTrainedModel):
    """The backbone and a linear head; of a regression, numbers in the unit of the labels."""

    def __init__(self, config):
        super().__init__(config)
        self.num_labels = config.num_labels
        head = config.hyena_head or {}
        self.pool = head.get("pool", "last")
        self.center, self.scale = head.get("center") or (), head.get("scale") or ()
        self.hyena = HyenaDNAModel(config)
        self.score = nn.Linear(config.d_model, config.num_labels, bias=head.get("bias", False))
        self.post_init()

    def project(self, states):
        logits = self.score(states)
        if not self.scale:
            return logits
        logits = logits.float() if logits.dtype != torch.float64 else logits
        return logits.new_tensor(self.center) + logits.new_tensor(self.scale) * logits

    def loss(self, logits, labels):
        if self.config.problem_type == "regression":
            kept = ~labels.isnan()
            return functional.mse_loss(logits.view_as(labels)[kept], labels[kept])
        if self.config.problem_type == "multi_label_classification":
            return functional.binary_cross_entropy_with_logits(logits, labels.float())
        return functional.cross_entropy(logits.flatten(0, -2), labels.flatten())


class HyenaDNAForSequenceClassification(_Predictor):
    """One prediction per sequence, from the pooled states of the positions with attention mask 1."""

    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None, labels=None, **how):
        """Return logits (B, C). Without a mask every position counts, [PAD] too."""
        return_dict = how.pop("return_dict", None)
        out = self.hyena(input_ids, attention_mask, inputs_embeds, **how)
        hidden_BLD = out.last_hidden_state
        mask_BL = hidden_BLD.new_ones(hidden_BLD.shape[:2]) if attention_mask is None else attention_mask
        logits = self.project(self._pooled(hidden_BLD, mask_BL.bool()))
        loss = None if labels is None else self.loss(logits, labels)
        output = SequenceClassifierOutput(loss, logits, out.hidden_states)
        return output.to_tuple() if return_dict is False else output

    def _pooled(self, hidden_BLD, mask_BL):
        mask_BL1 = mask_BL[..., None]
        if self.pool == "mean":
            return hidden_BLD.masked_fill(~mask_BL1, 0).sum(1) / mask_BL1.sum(1)
        if self.pool == "max":
            return hidden_BLD.masked_fill(~mask_BL1, -math.inf).amax(1)
        last_B = (torch.arange(mask_BL.shape[1], device=mask_BL.device) * mask_BL).amax(1)
        return hidden_BLD[torch.arange(len(last_B), device=last_B.device), last_B]


class HyenaDNAForTokenClassification(_Predictor):
    """A prediction per base."""

    def forward(self, input_ids=None, attention_mask=None, inputs_embeds=None, labels=None, **how):
        """Return logits (B, L, C)."""
        return_dict = how.pop("return_dict", None)
        out = self.hyena(input_ids, attention_mask, inputs_embeds, **how)
        logits = self.project(out.last_hidden_state)
        loss = None if labels is None else self.loss(logits, labels)
        output = TokenClassifierOutput(loss, logits, out.hidden_states)
        return output.to_tuple() if return_dict is False else output

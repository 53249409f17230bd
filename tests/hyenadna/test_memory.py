"""Peak memory of whole processes, as the tool promises it."""

import subprocess
import sys

import pytest

PEAK = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)"


def peak_gib(script: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", f"{script}\n{PEAK}"], check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def test_states_of_a_long_input_are_not_held_twice() -> None:
    """131,072 tokens of width 64: the residual stream and the gated values are 32 MiB each."""
    base = "import torch; from hyenadna import HyenaConfig, HyenaDNA"
    work = (
        "\nmodel = HyenaDNA(HyenaConfig(64, 2, 256, 140_000)).eval()"
        "\nfor piece in model.stream_states(torch.full((1, 131_072), 7)): pass"
    )
    assert peak_gib(base + work) - peak_gib(base) < 0.35


@pytest.mark.slow
def test_a_million_tokens_in_three_gib() -> None:
    script = (
        "import torch; from hyenadna import HyenaDNA, preset\n"
        "model = HyenaDNA(preset('large-1m')).eval()\n"
        "for piece in model.stream_states(torch.full((1, 1_000_002), 7)): pass"
    )
    assert peak_gib(script) < 3


@pytest.mark.slow
def test_training_on_131072_tokens_in_two_and_a_half_gib() -> None:
    script = (
        "import torch; from hyenadna import HyenaConfig, HyenaDNA\n"
        "from hyenadna.engine.training import next_token_loss\n"
        "model = HyenaDNA(HyenaConfig(256, 8, 1024, 131_074)).train()\n"
        "model.backbone.activation_checkpointing = True\n"
        "ids = torch.full((1, 131_073), 7)\n"
        "next_token_loss(model, ids[:, :-1], ids[:, 1:]).backward()"
    )
    assert peak_gib(script) < 2.6

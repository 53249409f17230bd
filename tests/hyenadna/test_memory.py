"""Peak memory of whole processes, as the tool promises it."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")

PEAK = """
# of this program alone: `ru_maxrss` starts from what the parent had when it forked
print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 2**20)
"""


def peak_gib(script: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", f"{script}\n{PEAK}"], check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def test_states_of_a_long_input_take_half_the_memory_of_the_plain_pass() -> None:
    """131,072 tokens of width 256: the residual stream and the gated values are 128 MiB each."""
    base = "import torch; from hyenadna import HyenaConfig, HyenaDNA\n"
    model = base + "model = HyenaDNA(HyenaConfig(256, 1, 1024, 140_000)).eval()\n"
    idle = peak_gib(base)
    fast = peak_gib(model + "for piece in model.stream_states(torch.full((1, 131_072), 7)): pass") - idle
    plain = peak_gib(model + "with torch.no_grad(): model.plain(torch.full((1, 131_072), 7))") - idle
    assert fast < plain / 2


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_million_tokens_in_three_gib() -> None:
    script = (
        "import torch; from hyenadna import HyenaDNA, preset\n"
        "model = HyenaDNA(preset('large-1m')).eval()\n"
        "for piece in model.stream_states(torch.full((1, 1_000_002), 7)): pass"
    )
    assert peak_gib(script) < 3


@pytest.mark.slow
@pytest.mark.timeout(1200)
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

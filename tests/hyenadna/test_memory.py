"""Peak memory of whole processes, as the tool promises it."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")

PEAK = """
def peak_gib():
    # of this program alone: `ru_maxrss` starts from what the parent had when it forked
    status = open("/proc/self/status")
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 2**20
"""


def peaks_gib(script: str) -> list[float]:
    """Run a script that prints peaks, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", PEAK + script], check=True, capture_output=True, text=True)
    return [float(peak) for peak in done.stdout.split()]


def test_states_of_a_long_input_take_half_the_memory_of_the_plain_pass() -> None:
    """32,768 tokens of width 256: the residual stream and the gated values are 32 MiB each."""
    idle, fast, plain = peaks_gib(
        "import torch; from hyenadna import HyenaConfig, HyenaDNA\n"
        "model, ids = HyenaDNA(HyenaConfig(256, 1, 1024, 32_768)).eval(), torch.full((1, 32_768), 7)\n"
        "print(peak_gib())\n"
        "for piece in model.stream_states(ids): pass\n"
        "print(peak_gib())\n"
        "with torch.no_grad(): model.plain(ids)\n"
        "print(peak_gib())"
    )
    assert fast - idle < (plain - idle) / 2


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_million_tokens_in_three_gib() -> None:
    script = (
        "import torch; from hyenadna import HyenaDNA, preset\n"
        "model = HyenaDNA(preset('large-1m')).eval()\n"
        "for piece in model.stream_states(torch.full((1, 1_000_002), 7)): pass\n"
        "print(peak_gib())"
    )
    assert peaks_gib(script)[0] < 3


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_training_on_131072_tokens_in_two_and_a_half_gib() -> None:
    script = (
        "import torch; from hyenadna import HyenaConfig, HyenaDNA\n"
        "from hyenadna.engine.training import next_token_loss\n"
        "model = HyenaDNA(HyenaConfig(256, 8, 1024, 131_074)).train()\n"
        "model.backbone.activation_checkpointing = True\n"
        "ids = torch.full((1, 131_073), 7)\n"
        "next_token_loss(model, ids[:, :-1], ids[:, 1:]).backward()\n"
        "print(peak_gib())"
    )
    assert peaks_gib(script)[0] < 2.6

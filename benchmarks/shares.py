"""What a fast pass spends its time on: `python -m benchmarks.shares`."""

from torch.profiler import ProfilerActivity, profile

from benchmarks.engine import CASES
from benchmarks.results import table, write_section

KINDS = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::addmm_"),
    "transforms": ("aten::_fft_r2c", "aten::_fft_c2r"),
    "exponentials and sines": ("aten::sigmoid_", "aten::exp", "aten::sin", "aten::cos"),
    "norms": ("aten::native_layer_norm", "aten::native_layer_norm_backward"),
    "copies and fills": ("aten::copy_", "aten::fill_", "aten::zero_", "aten::clone"),
    "products and sums of numbers": (
        *("aten::mul", "aten::mul_", "aten::addcmul", "aten::addcmul_", "aten::div_"),
        *("aten::add", "aten::add_", "aten::sub", "aten::sum"),
    ),
}
SHOWN = (
    "forward, tiny-1k, 32 x 1,024",
    "forward, small-32k, 32,770",
    "forward, medium-160k, 160,002",
    "training step, tiny-1k, 32 x 1,024",
    "training step, width 128 x 2 layers, 131,072",
)


def shares(case: str) -> list[float]:
    """The share of each of KINDS, and of the rest, in one fast pass."""
    work = CASES[case]["fast"]()
    work()
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        work()
    spent = {event.key: event.self_cpu_time_total for event in recorded.key_averages()}
    whole = sum(spent.values())
    known = [sum(spent.get(name, 0.0) for name in names) / whole for names in KINDS.values()]
    return [*known, 1 - sum(known)]


def main() -> None:
    """Measure, print and write RESULTS.md."""
    rows = [[case, *(f"{share:.0%}" for share in shares(case))] for case in SHOWN]
    text = table(("fast pass", *KINDS, "other"), rows)
    write_section("shares", f"## Where the time of a fast pass goes (`make bench`)\n\n{text}")


if __name__ == "__main__":
    main()

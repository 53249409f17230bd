"""Where the real genomes, variants, labelled sets and weights are that some comparisons need."""

import os
from pathlib import Path

from benchmarks.results import ROOT

DATA = Path(os.environ.get("HYENA_TEST_DATA", ROOT.parent / "shared")) / "data"
GENOMES, VARIANTS, LABELLED = DATA / "genomes", DATA / "variants", DATA / "labelled"
PUBLISHED_WEIGHTS = DATA / "checkpoints" / "hyenadna_tiny_1k_finetuned_state_dict.pt"
"""HyenaDNA's tiny-1k, fine-tuned by a third party on one of the GenomicBenchmarks sets."""

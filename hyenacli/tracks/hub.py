"""A UCSC track hub: three text files that tell a genome browser where bigWigs are and how to draw them.

https://genome.ucsc.edu/goldenPath/help/hgTrackHubHelp.html
"""

import os
from collections.abc import Sequence
from pathlib import Path

from hyenacli.inference.base_tracks import LETTERS
from hyenacli.writers.atomic import atomic_path

# The colours of letters in UCSC's logos.
_COLORS = {"A": "0,128,0", "C": "0,0,255", "G": "255,166,0", "T": "255,0,0"}
_LABELS = {"logp": "log p of the base", "entropy": "entropy (bits)", "information": "information (bits)"}


def write_hub(folder: Path, assembly: str, tracks: Sequence[Path], value: str, strand: str) -> None:
    """Write hub.txt, genomes.txt and trackDb.txt.

    One track is drawn as letters as high as its numbers; the four of a logo are stacked in the letters'
    colours. Files are named relative to the folder, so that both can be moved to a server together.

    Args:
        folder: made if it is missing.
        assembly: UCSC's name of the genome, as hg38.
        tracks: one bigWig, or those of A, C, G and T.
        value: what they show.
        strand: forward, reverse or mean.
    """
    folder.mkdir(parents=True, exist_ok=True)
    urls = [os.path.relpath(path, folder) for path in tracks]
    name, end = f"hyena_{value}", "" if strand == "mean" else f", {strand} strand"
    if len(urls) == 1:
        title = f"{_LABELS[value]}{end}"
        stanzas = [
            (
                f"track {name}\ntype bigWig\nlogo on\nbigDataUrl {urls[0]}\nshortLabel {value}\n"
                f"longLabel {title}\nvisibility full\nautoScale on\nmaxHeightPixels 128:48:16\n"
            )
        ]
    else:
        stanzas = [
            (
                f"track {name}\ntype bigWig\ncontainer multiWig\naggregate stacked\nshortLabel logo\n"
                f"longLabel heights of A, C, G and T in bits{end}\nvisibility full\nviewLimits 0:2\n"
                "maxHeightPixels 128:48:16\n"
            )
        ]
        stanzas += [
            f"track {name}_{letter}\nparent {name}\ntype bigWig\nbigDataUrl {url}\nshortLabel {letter}\n"
            f"longLabel height of {letter}\ncolor {_COLORS[letter]}\n"
            for letter, url in zip(LETTERS, urls, strict=True)
        ]
    hub = (
        "hub hyena\nshortLabel hyena\nlongLabel Predictions of a HyenaDNA model\n"
        "genomesFile genomes.txt\nemail none@example.org\n"
    )
    texts = {
        "hub.txt": hub,
        "genomes.txt": f"genome {assembly}\ntrackDb trackDb.txt\n",
        "trackDb.txt": "\n".join(stanzas),
    }
    for file, text in texts.items():
        with atomic_path(folder / file) as draft:
            draft.write_text(text)

"""Files of custom content for MultiQC: what a run or an output adds to a report of many.

A file holds one section with one sample, or two curves of one; MultiQC joins the sections of equal id.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hyenacli.console import finite
from hyenacli.readers.text import split_suffix
from hyenacli.writers.atomic import atomic_path

Points = Sequence[tuple[float, float]]
CURVES, NUMBERS = "hyena_loss_mqc.json", "hyena_metrics_mqc.json"
# What MultiQC cuts names at begins with a dot or an underscore, except for these.
_CUT = re.compile("ccs|Aligned|ReadsPerGene|Log(?=-final)")


def write_statuses(output: Path, verb: str, statuses: Mapping[str, int]) -> None:
    """Write OUTPUT.hyena_mqc.json: a bar of the records by status, named after the output.

    Args:
        output: what the verb wrote.
        verb: that made it.
        statuses: records of each.

    Raises:
        UserError: as `atomic_path`.
    """
    section = _section(verb, "statuses", "Records (alleles, of score-variants) by status; OK: computed.")
    pconfig = {"title": f"hyena {verb}: statuses", "ylab": "records"}
    _write_bar(output, section, pconfig, {"OK": 0, **statuses})


def merge_statuses(parts: Sequence[Path], output: Path) -> None:
    """Write OUTPUT.hyena_mqc.json with the sums of what the files of its parts say.

    Args:
        parts: outputs with files of their own.
        output: what they became.

    Raises:
        UserError: as `atomic_path`.
    """
    sections = [json.loads(statuses_path(part).read_text()) for part in parts]
    total: Counter[str] = Counter()
    for section in sections:
        for statuses in section["data"].values():
            total.update(statuses)
    _write_bar(output, sections[0], sections[0]["pconfig"], total)


def statuses_path(output: Path) -> Path:
    """Return the file beside an output that has its statuses."""
    return output.with_name(output.name + ".hyena_mqc.json")


def _write_bar(
    output: Path, section: Mapping[str, Any], pconfig: Mapping[str, str], statuses: Mapping[str, int]
) -> None:
    name = sample_name(split_suffix(output)[0])
    _write(statuses_path(output), section, "bargraph", pconfig, {name: statuses})


def write_curves(run: Path, kind: str, training: Points, held_out: Points) -> None:
    """Write the losses of a run by step.

    Args:
        run: its directory.
        kind: of the run, as pretraining.
        training: steps and their losses.
        held_out: steps and the loss on held-out data after each; may be empty.

    Raises:
        UserError: as `atomic_path`.
    """
    name = run_name(run)
    curves = {f"{name}-training": training, f"{name}-held-out": held_out}
    section = _section(kind, "loss", "Loss of the training steps, and on the held-out or validation data.")
    pconfig = {"title": f"hyena {kind}: loss", "xlab": "step", "ylab": "loss, nats"}
    data = {curve: finite(dict(points)) for curve, points in curves.items() if points}
    _write(run / CURVES, section, "linegraph", pconfig, data)


def write_numbers(run: Path, kind: str, numbers: Mapping[str, float]) -> None:
    """Write a row of numbers, such as metrics of splits, named after the run.

    Args:
        run: its directory.
        kind: of the run, as pretraining.
        numbers: by the title of their column; those that are not finite are left out.

    Raises:
        UserError: as `atomic_path`.
    """
    kept = {title: value for title, value in finite(numbers).items() if value is not None}
    pconfig = {"title": f"hyena {kind}: metrics"}
    section = _section(kind, "metrics", "What the run says of its model.")
    section["headers"] = {title: {"title": title, "format": "{:,.4g}"} for title in kept}
    _write(run / NUMBERS, section, "table", pconfig, {run_name(run): kept})


def run_name(run: Path) -> str:
    """Return the name of a run; of a trial, with that of the run that it belongs to.

    >>> run_name(Path("/data/lungs/trials/fold_1"))
    'lungs-fold-1'
    """
    path = run.resolve()
    owner = f"{path.parents[1].name}-" if path.parent.name == "trials" else ""
    return sample_name(owner + path.name)


def sample_name(text: str) -> str:
    """Return a name that MultiQC does not cut.

    It ends names at what looks like an extension (`.sorted`, `_counts`, `ccs`), and would so give two outputs
    one name. Other characters than letters and digits become hyphens.

    >>> sample_name("NA12878.sorted_counts"), sample_name("success_accs")
    ('NA12878-sorted-counts', 'success-aCCS')
    """
    return _CUT.sub(lambda word: word[0].swapcase(), re.sub(r"[\W_]+", "-", text).strip("-")) or "hyena"


def _section(verb: str, title: str, description: str) -> dict[str, Any]:
    return {
        "id": f"hyena_{verb.replace('-', '_').replace(' ', '_')}_{title}",
        "parent_id": "hyena",
        "parent_name": "hyena",
        "parent_description": "Genomic language models (HyenaDNA) on the command line.",
        "section_name": f"{verb}: {title}",
        "description": description,
    }


def _write(
    path: Path,
    section: Mapping[str, Any],
    plot_type: str,
    pconfig: Mapping[str, str],
    data: Mapping[str, Any],
) -> None:
    pconfig = {"id": f"{section['id']}_plot", **pconfig}
    with atomic_path(path) as draft:
        draft.write_text(json.dumps({**section, "plot_type": plot_type, "pconfig": pconfig, "data": data}))

"""How variants are scored, as the user says it: checked before any model is loaded."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hyenacli.errors import UsageError, nearest

if TYPE_CHECKING:
    from hyenacli.variants.scorer import ScoringOptions
    from hyenadna import HyenaDNA

# What there is, and how a file's header says it.
SCORES = {
    "llr": "{sum} of log p(ALT) - log p(REF) in nats, p over A C G T, {strands}, window {window}, grid "
    "{grid}; negative: ALT is less likely",
    "site": "log p(ALT) - log p(REF) in nats of the first differing base, given those before "
    "it, p over A C G T, {strands}; negative: ALT is less likely",
    "cosine": "Cosine distance of the mean embeddings of ALT and REF over {span}, {strands}",
    "l2": "Euclidean distance of the mean embeddings of ALT and REF over {span}, {strands}",
}
_LONGEST_WINDOW = 8192


@dataclass(frozen=True, kw_only=True)
class VariantPlan:
    """What is computed of an allele, for a model not yet known.

    Attributes:
        scores: some of `SCORES`.
        both_strands: take the mean of both strands; else the forward strand alone.
        window: bases read; None for the model's context, or what a soft prompt leaves of it, at most 8,192.
        grid: windows start at multiples of it; None for window / 8.
        downstream: positions scored from the site on; None for all to the window's end.
        max_allele: most bases of an allele that is scored; None for window / 4.
    """

    scores: tuple[str, ...] = ("llr",)
    both_strands: bool = True
    window: int | None = None
    grid: int | None = None
    downstream: int | None = None
    max_allele: int | None = None

    def recipe(self, model: "HyenaDNA") -> "ScoringOptions":
        """The same for a model.

        Raises:
            UsageError: the model takes no such window, or sites could lie beyond the window of this grid.
        """
        from hyenacli.variants.haplotypes import WindowRule
        from hyenacli.variants.scorer import ScoringOptions

        context, longest = model.config.context, model.longest_input
        window = self.window or min(context, longest, _LONGEST_WINDOW)
        if window > longest:
            room = model.backbone.describe_room() if model.backbone.n_soft else f"{context:,} bases"
            raise UsageError(
                f"the model takes at most {room}, not {window:,}",
                at="--window",
                remedy="choose a smaller window",
            )
        grid = self.grid or max(1, window // 8)
        if grid > window // 2:
            raise UsageError(
                f"a grid of {grid:,} leaves sites outside windows of {window:,}",
                at="--grid",
                remedy="make it at most half the window",
            )
        return ScoringOptions(WindowRule(window, grid, self.downstream), self.scores, self.both_strands)


def longest_allele(plan: VariantPlan, recipe: "ScoringOptions") -> int:
    """Most bases of an allele that is scored."""
    return plan.max_allele or max(1, recipe.rule.size // 4)


def descriptions(recipe: "ScoringOptions") -> dict[str, str]:
    """What each score is, in a sentence for a file's header."""
    rule = recipe.rule
    span = "the bases to the window's end" if rule.downstream is None else f"{rule.downstream} bases"
    words = {
        "sum": f"Sum over {span}, from the first that differs on,",
        "span": f"{span}, from the first that differs on",
        "strands": "mean of both strands" if recipe.both_strands else "forward strand",
        "window": str(rule.size),
        "grid": str(rule.grid),
    }
    return {name: SCORES[name].format(**words) for name in recipe.scores}


def make_plan(
    *,
    score: str,
    rc: str,
    window: int | None,
    grid: int | None,
    downstream: int | None,
    max_allele: int | None,
) -> VariantPlan:
    """A plan from the words of the command line.

    Raises:
        UsageError: an unknown word.
    """
    names = tuple(dict.fromkeys(name.strip() for name in score.split(",")))
    for name in names:
        if name not in SCORES:
            raise UsageError(f"unknown score '{name}'", at="--score", remedy=nearest(name, list(SCORES)))
    return VariantPlan(
        scores=names,
        both_strands=rc == "mean",
        window=window,
        grid=grid,
        downstream=downstream,
        max_allele=max_allele,
    )

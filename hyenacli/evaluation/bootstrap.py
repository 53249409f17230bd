"""Metrics of items with whole-number weights, many sets of weights at once.

A bootstrap draw is a weight for every sequence: how often it was drawn. Sorting does not depend on weights,
so it is done once for all draws; the plain value of a metric is the draw in which every weight is 1.

Legend of shape suffixes: N sequences, P items (a label with its prediction; one sequence has one, or many at
nucleotide level), D draws, C classes, G distinct values in order.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
# Sums of int32 run several times as fast as wider or real ones, and `take` as other ways to pick columns.
Weights = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]

# A draw whose variance is this share of its mean square has rounding only: all its values are the same.
_CONSTANT = 1e-13


class Confusion:
    """Confusion matrices of classes, one per draw.

    Args:
        sequence_P: the sequence of each item.
        truth_P: the class of each item, 0 to C - 1.
        predicted_P: the predicted class.
        classes: C.
    """

    def __init__(self, sequence_P: Ints, truth_P: Ints, predicted_P: Ints, classes: int):
        self._sequence_P, self._classes = sequence_P, classes
        self._cell_P = truth_P * classes + predicted_P

    def counts(self, weights_DN: Weights) -> Floats:
        """Count items (D, C, C) by true class (rows) and predicted class (columns)."""
        cells = self._classes**2
        counts = [np.bincount(self._cell_P, w_N[self._sequence_P], minlength=cells) for w_N in weights_DN]
        return np.array(counts, dtype=np.float64).reshape(-1, self._classes, self._classes)

    def metrics(self, weights_DN: Weights) -> dict[str, Floats]:
        """Compute accuracy, balanced accuracy, Matthews' correlation and macro F1, each (D,).

        Recall is averaged over the classes that occur, F1 over those that occur or are predicted. The
        correlation (Gorodkin's, for any number of classes) is 0 where all items or all predictions are of
        one class. All are NaN in a draw without items.
        """
        counts_DCC = self.counts(weights_DN)
        right_DC = np.diagonal(counts_DCC, axis1=1, axis2=2)
        true_DC, predicted_DC = counts_DCC.sum(axis=2), counts_DCC.sum(axis=1)
        all_D, right_D = true_DC.sum(axis=1), right_DC.sum(axis=1)
        covariance_D = right_D * all_D - (true_DC * predicted_DC).sum(axis=1)
        spread_D = np.sqrt((all_D**2 - (true_DC**2).sum(axis=1)) * (all_D**2 - (predicted_DC**2).sum(axis=1)))
        mcc_D = np.where(all_D > 0, ratio(covariance_D, spread_D, otherwise=0.0), np.nan)
        return {
            "accuracy": ratio(right_D, all_D),
            "balanced_accuracy": mean(ratio(right_DC, true_DC).T),
            "mcc": mcc_D,
            "macro_f1": mean(ratio(2 * right_DC, true_DC + predicted_DC).T),
        }


class Ranking:
    """Areas that measure how well scores rank positive items first.

    Args:
        sequence_P: the sequence of each item.
        positive_P: which items are positive.
        scores_P: higher is more positive; equal scores are equal, whatever the order of the items.
    """

    def __init__(self, sequence_P: Ints, positive_P: Bools, scores_P: Floats):
        order_P = np.argsort(-scores_P, kind="stable")
        self._sequence_P = sequence_P[order_P]
        self._positives = np.flatnonzero(positive_P[order_P])
        ends = _ends(scores_P[order_P])
        # only the G scores that some positive item has matter
        group = np.searchsorted(ends, self._positives)
        self._last_G = _ends(group)
        group_G = group[self._last_G]
        self._upto_G, self._before_G = ends[group_G], np.append(-1, ends)[group_G]

    def areas(self, weights_DN: Weights) -> tuple[Floats, Floats]:
        """Compute the area under the ROC curve and average precision, each (D,).

        NaN where all items of a draw are positive, or none.
        """
        weights_DP = np.take(weights_DN, self._sequence_P, axis=1)
        all_D = weights_DP.sum(axis=1, dtype=np.int32)
        (true_DG,) = _sums_to(np.take(weights_DP, self._positives, axis=1), self._last_G)
        upto_DG, before_DG = _sums_to(weights_DP, self._upto_G, self._before_G)
        gained_DG = np.diff(true_DG, axis=1, prepend=0).astype(np.float64)
        positives_D = gained_DG.sum(axis=1)
        negatives_D = all_D - positives_D
        # a positive item loses to the others before its score, and to half of those with the same score
        ahead_DG = (upto_DG + before_DG + gained_DG) / 2 - true_DG
        pairs_D = positives_D * negatives_D
        auroc_D = ratio(pairs_D - (gained_DG * ahead_DG).sum(axis=1), pairs_D)
        precision_D = (gained_DG * true_DG / np.maximum(upto_DG, 1)).sum(axis=1)
        return auroc_D, ratio(np.where(pairs_D > 0, precision_D, np.nan), positives_D)


class Agreement:
    """Correlation and error of predicted numbers.

    Args:
        sequence_P: the sequence of each item.
        truth_P: the numbers.
        predicted_P: what was predicted for them.
    """

    def __init__(self, sequence_P: Ints, truth_P: Floats, predicted_P: Floats):
        self._sequence_P = sequence_P
        self._truth, self._predicted = _Ranks(truth_P), _Ranks(predicted_P)
        error_P = predicted_P - truth_P
        # shifted towards 0 so that sums of squares lose no digits; a constant becomes exactly 0
        x_P, y_P = (_centred(values_P) for values_P in (truth_P, predicted_P))
        self._moments_P7 = np.stack(
            [np.ones_like(x_P), x_P, y_P, x_P * x_P, y_P * y_P, x_P * y_P, error_P * error_P], axis=1
        )

    def metrics(self, weights_DN: Weights) -> dict[str, Floats]:
        """Compute Pearson, Spearman (ties share their mean rank), R2 and mean squared error, each (D,).

        Correlations are NaN where truth or predictions of a draw are constant, R2 where the truth is.
        """
        weights_DP = np.take(weights_DN, self._sequence_P, axis=1)
        n_D, x_D, y_D, xx_D, yy_D, xy_D, error_D = (weights_DP @ self._moments_P7).T
        xx_D, yy_D = _squares(xx_D, x_D, n_D), _squares(yy_D, y_D, n_D)
        covariance_D = xy_D - ratio(x_D * y_D, n_D)
        middle_D1 = (n_D[:, None] + 1) / 2
        a_DP, b_DP = (ranks.of(weights_DP) - middle_D1 for ranks in (self._truth, self._predicted))
        aa_D, bb_D, ab_D = (
            (weights_DP * left_DP * right_DP).sum(axis=1)
            for left_DP, right_DP in ((a_DP, a_DP), (b_DP, b_DP), (a_DP, b_DP))
        )
        return {
            "pearson": np.clip(ratio(covariance_D, np.sqrt(xx_D) * np.sqrt(yy_D)), -1, 1),
            "spearman": np.clip(ratio(ab_D, np.sqrt(aa_D) * np.sqrt(bb_D)), -1, 1),
            "r2": 1 - ratio(error_D, xx_D),
            "mse": ratio(error_D, n_D),
        }


class _Ranks:
    """Ranks of the same values under different weights."""

    def __init__(self, values_P: Floats):
        self._order_P = np.argsort(values_P, kind="stable")
        ordered_P = values_P[self._order_P]
        self._ends_G = _ends(ordered_P)
        group_P = np.zeros(len(ordered_P), dtype=np.int64)
        group_P[1:] = np.cumsum(ordered_P[1:] != ordered_P[:-1])
        self._group_P = np.empty_like(group_P)
        self._group_P[self._order_P] = group_P

    def of(self, weights_DP: Weights) -> Floats:
        """Return the 1-based mean rank (D, P) of each item among weighted copies of all items."""
        (upto_DG,) = _sums_to(np.take(weights_DP, self._order_P, axis=1), self._ends_G)
        first_DG = upto_DG - np.diff(upto_DG, axis=1, prepend=0) + 1
        ranks_DG = (first_DG + upto_DG) / 2
        return np.take(ranks_DG, self._group_P, axis=1)


def ratio(above: Floats, below: Floats, otherwise: float = np.nan) -> Floats:
    """Return `above / below`, and `otherwise` where `below` is 0."""
    result: Floats = np.full(np.shape(above), otherwise)
    np.divide(above, below, out=result, where=below != 0)
    return result


def mean(values_CD: Floats) -> Floats:
    """Return the mean (D,) of the values that are not NaN, NaN where all are."""
    defined_CD = ~np.isnan(values_CD)
    return ratio(np.where(defined_CD, values_CD, 0).sum(axis=0), defined_CD.sum(axis=0).astype(np.float64))


def median(values_CD: Floats) -> Floats:
    """Return the median (D,) of the values that are not NaN, NaN where all are."""
    defined_D = ~np.isnan(values_CD).all(axis=0)
    median_D = np.full(values_CD.shape[1], np.nan)
    median_D[defined_D] = np.nanmedian(values_CD[:, defined_D], axis=0)
    return median_D


def _sums_to(weights_DP: Weights, *indices: npt.NDArray[np.intp]) -> list[Weights]:
    """Sum the weights up to and including each index: one (D, G) per array of indices; -1 means none.

    The weights are overwritten: memory already in the cache is several times as fast.
    """
    np.cumsum(weights_DP, axis=1, out=weights_DP)
    sums = [np.take(weights_DP, indices_G, axis=1) for indices_G in indices]
    for sums_DG, indices_G in zip(sums, indices, strict=True):
        sums_DG[:, indices_G < 0] = 0
    return sums


def _ends(ordered_P: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """Return the last index of each run of equal values."""
    return np.flatnonzero(np.append(ordered_P[1:] != ordered_P[:-1], True)[: len(ordered_P)])


def _centred(values_P: Floats) -> Floats:
    if not len(values_P):
        return values_P
    shifted_P = values_P - values_P[0]
    centred_P: Floats = shifted_P - shifted_P.mean()
    return centred_P


def _squares(squares_D: Floats, sum_D: Floats, n_D: Floats) -> Floats:
    """Sum squared distances from the mean, exactly 0 where all values of a draw are the same."""
    around_D = squares_D - ratio(sum_D**2, n_D)
    return np.where(around_D > _CONSTANT * squares_D, around_D, 0.0)

"""Figures are well-formed, say the numbers that `quality` says, and stay small."""

import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from hyenacli.evaluation.calibration import Reliability, reliability
from hyenacli.evaluation.figures import (
    COLORS,
    GREY,
    MAX_POINTS,
    MAX_VERTICES,
    Ranked,
    confusion_matrix,
    pr_chart,
    reliability_chart,
    roc_chart,
    scatter_chart,
)
from hyenacli.evaluation.metrics import measure


def texts(figure: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(figure).iter("text")]


def lines(figure: str) -> dict[str, np.ndarray]:
    """The points (G, 2) of each solid line by colour, in units of the plot's side."""
    found = {}
    for line in ET.fromstring(figure).iter("polyline"):
        if "stroke-dasharray" not in line.attrib:
            points = np.array([[float(v) for v in pair.split(",")] for pair in line.get("points").split()])
            found[line.get("stroke")] = np.stack(
                [(points[:, 0] - 72) / 360, (376 - points[:, 1]) / 360], axis=1
            )
    return found


def height(figure: str) -> float:
    return float(ET.fromstring(figure).get("viewBox").split()[3])


def ranked(n: int, *, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = rng.random(n) < 0.3
    scores = 1 / (1 + np.exp(-rng.normal(truth, 1)))
    return truth, scores.round(1) if ties else scores


def test_confusion_shows_counts_and_shares_of_rows() -> None:
    figure = confusion_matrix([[30, 10], [5, 0]], ["no", "<yes>"])
    said = texts(figure)
    assert said[:6] == ["predicted", "true", "no", "no", "<yes>", "<yes>"]
    assert " ".join(said[6:]) == "30 75% 10 25% 5 100% 0 0%"
    titles = [title.text for title in ET.fromstring(figure).iter("title")]
    assert titles[1] == "no as <yes>: 10, 25.0% of the row"
    fills = [rect.get("fill") for rect in ET.fromstring(figure).iter("rect")]
    assert fills[2] == COLORS[0]
    assert fills[3] == "#ffffff"


@pytest.mark.parametrize("classes", [1, 3, 11, 30])
def test_confusion_fits_its_frame(classes: int) -> None:
    counts = np.random.default_rng(0).integers(0, 10**7, (classes, classes))
    figure = confusion_matrix(counts, [f"a rather long name of a class {i}" for i in range(classes)])
    rects, high = list(ET.fromstring(figure).iter("rect")), height(figure)
    assert len(rects) == classes**2 + 1
    for rect in rects:
        assert float(rect.get("x")) + float(rect.get("width")) < 760
        assert float(rect.get("y")) + float(rect.get("height")) < high
    assert len(figure) < 250_000


def test_confusion_without_items_or_with_too_many_classes() -> None:
    assert texts(confusion_matrix(np.zeros((2, 2)), ["a", "b"])).count("0%") == 4
    assert "31 classes" in confusion_matrix(np.zeros((31, 31)), [str(i) for i in range(31)])


@pytest.mark.parametrize("ties", [False, True])
def test_areas_in_the_legend_are_those_of_the_metrics(ties: bool) -> None:
    truth, scores = ranked(2_000, ties=ties)
    found = measure("binary", truth, np.stack([1 - scores, scores], axis=1))
    line = [Ranked("model & co", truth, scores)]
    assert f"model & co: {found['auroc']:.3f}" in texts(roc_chart(line))
    assert f"model & co: {found['auprc']:.3f}" in texts(pr_chart(line))


def test_curves_end_in_their_corners_and_keep_their_area() -> None:
    truth, scores = ranked(50_000)
    curve = lines(roc_chart([Ranked("model", truth, scores)]))[COLORS[0]]
    assert len(curve) <= MAX_VERTICES + 1
    assert curve[0] == pytest.approx([0, 0], abs=1e-3)
    assert curve[-1] == pytest.approx([1, 1], abs=1e-3)
    area = (np.diff(curve[:, 0]) * (curve[1:, 1] + curve[:-1, 1]) / 2).sum()
    auroc = measure("binary", truth, np.stack([1 - scores, scores], axis=1))["auroc"]
    assert area == pytest.approx(auroc, abs=2e-3)
    precision = lines(pr_chart([Ranked("model", truth, scores)]))[COLORS[0]]
    assert len(precision) <= MAX_VERTICES + 1
    assert precision[-1] == pytest.approx([1, truth.mean()], abs=2e-3)


def test_several_lines_have_their_colours() -> None:
    truth, scores = ranked(100)
    chart = roc_chart(
        [Ranked("a", truth, scores), Ranked("baseline", truth, -scores, GREY), Ranked("b", truth, scores**2)]
    )
    assert set(lines(chart)) == {COLORS[0], GREY, COLORS[1]}


def test_one_class_only_is_said() -> None:
    for chart in (roc_chart, pr_chart):
        assert "x: one class only" in texts(chart([Ranked("x", [True, True], [0.1, 0.2])]))


def test_scatter_is_thinned_and_square() -> None:
    x = np.random.default_rng(0).normal(size=5_000)
    x[0] = np.nan
    figure = scatter_chart(x, 0.5 * x, name="expression")
    assert len(re.findall("h0", figure)) == MAX_POINTS
    assert {"true expression", "predicted expression", "2,000 of 4,999 points"} <= set(texts(figure))
    assert figure == scatter_chart(x, 0.5 * x, name="expression")
    assert "M72.0 376.0h0" in scatter_chart([0.0, 10.0], [0.0, 10.0])
    assert "2 points" in scatter_chart([0.0, 10.0], [0.0, 10.0])


@pytest.mark.parametrize("values", [[], [np.nan]])
def test_scatter_of_nothing(values: list[float]) -> None:
    assert scatter_chart(values, values) == "<p>No data yet.</p>"


def test_scatter_of_one_number() -> None:
    ET.fromstring(scatter_chart([3.0, 3.0], [3.0, 3.0]))


def test_reliability_has_a_dot_for_each_bin_with_items() -> None:
    truth, scores = ranked(500)
    found = reliability("binary", np.stack([1 - scores, scores], axis=1), truth)
    figure = reliability_chart([("as it is", found), ("nothing", Reliability(*np.zeros((3, 15))))])
    assert f"as it is: {found.error:.3f}" in texts(figure)
    assert figure.count("<circle") == np.count_nonzero(found.count_K)
    assert figure.count("<rect") == np.count_nonzero(found.count_K)
    assert "nan" not in figure.replace("nothing: nan", "")


def test_names_that_differ_in_their_ends_stay_apart() -> None:
    picture = confusion_matrix([[1, 0], [0, 1]], ["Escherichia coli K-12", "Escherichia coli O157"])
    for name in ("Escherich\u2026oli K-12", "Escherich\u2026oli O157"):
        assert f">{name}<" in picture

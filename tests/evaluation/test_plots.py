"""Charts are well-formed, hold the numbers of the metrics, and stay small."""

import math
import re
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from hyenacli.evaluation.calibration import Reliability, reliability
from hyenacli.evaluation.figures import COLORS, GREY, NO_DATA
from hyenacli.evaluation.line_plots import (
    Series,
    curve,
    histogram_chart,
    line_chart,
    smoothed,
    write_interval_chart,
    write_length_chart,
)
from hyenacli.evaluation.metrics import measure
from hyenacli.evaluation.prediction_plots import (
    MAX_POINTS,
    Ranked,
    confusion_matrix,
    pr_chart,
    reliability_chart,
    roc_chart,
    scatter_chart,
)

SVG = "{http://www.w3.org/2000/svg}"


def texts(chart: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(chart).iter(f"{SVG}text")]


def strokes(chart: str) -> dict[str, np.ndarray]:
    """The points (G, 2) of the longest solid line of each colour, in points of the page, y upwards."""
    paths: dict[str, np.ndarray] = {}
    for path in ET.fromstring(chart).iter(f"{SVG}path"):
        style = path.get("style", "")
        color = re.search(r"stroke: (#\w+)", style)
        if color and "fill: none" in style and "dasharray" not in style:
            pairs = re.findall(r"[ML] (-?[\d.]+) (-?[\d.]+)", path.get("d", ""))
            points = np.array([[float(x), -float(y)] for x, y in pairs])
            if len(points) > len(paths.get(color[1], ())):
                paths[color[1]] = points
    return paths


def in_unit_square(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Points (G, 2) in units of a line that goes from (0, 0) to (1, 1)."""
    return (points - corners[0]) / (corners[-1] - corners[0])


def ranked(n: int, *, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = rng.random(n) < 0.3
    scores = 1 / (1 + np.exp(-rng.normal(truth, 1)))
    return truth, scores.round(1) if ties else scores


def notes(chart: str) -> list[str]:
    """Texts that appear under the pointer."""
    return [element.text or "" for element in ET.fromstring(chart).iter(f"{SVG}title")]


def test_confusion_shows_counts_and_shares_of_rows() -> None:
    chart = confusion_matrix([[3000, 1000], [5, 0]], ["no", "<$yes$>"])
    assert {"predicted class", "true class", "no", "<$yes$>", "3,000", "75%", "25%", "5", "100%"} <= set(
        texts(chart)
    )
    assert notes(chart)[1] == "no as <$yes$>: 1,000, 25.0% of the row"
    fills = re.findall(r'style="fill: (#\w+); stroke: #ffffff', chart)
    assert fills[2:] == [COLORS[0], "#f6f6f6"]


@pytest.mark.parametrize("classes", [1, 3, 11, 30])
def test_confusion_holds_all_cells_and_names(classes: int) -> None:
    counts = np.random.default_rng(0).integers(0, 10**7, (classes, classes)) * np.eye(classes)
    chart = confusion_matrix(counts, [f"a rather long name of a class {i}" for i in range(classes)])
    assert len(notes(chart)) == classes**2
    assert sum(text.startswith("a rather") for text in texts(chart)) == 2 * classes
    assert len(chart) < 350_000


def test_confusion_without_items_or_with_too_many_classes() -> None:
    assert texts(confusion_matrix(np.zeros((2, 2)), ["a", "b"])).count("0%") == 4
    assert "31 classes" in confusion_matrix(np.zeros((31, 31)), [str(i) for i in range(31)])


def test_names_that_differ_in_their_ends_stay_apart() -> None:
    chart = confusion_matrix(np.eye(2), ["Escherichia coli strain K-12", "Escherichia coli strain O157"])
    assert {"Escherichia\u2026train K-12", "Escherichia\u2026train O157"} <= set(texts(chart))


@pytest.mark.parametrize("ties", [False, True])
def test_areas_in_the_legend_are_those_of_the_metrics(ties: bool) -> None:
    truth, scores = ranked(2_000, ties=ties)
    metrics = measure("binary", truth, np.stack([1 - scores, scores], axis=1))
    line = [Ranked("model & co", truth, scores)]
    assert f"model & co: {metrics['auroc']:.3f}" in texts(roc_chart(line))
    assert f"model & co: {metrics['auprc']:.3f}" in texts(pr_chart(line))


def test_curves_end_in_their_corners_and_keep_their_area() -> None:
    truth, scores = ranked(50_000)
    chart = roc_chart([Ranked("model", truth, scores)])
    assert len(chart) < 60_000
    points = strokes(chart)[COLORS[0]]
    unit = in_unit_square(points, points[[0, -1]])
    area = (np.diff(unit[:, 0]) * (unit[1:, 1] + unit[:-1, 1]) / 2).sum()
    auroc = measure("binary", truth, np.stack([1 - scores, scores], axis=1))["auroc"]
    assert area == pytest.approx(auroc, abs=3e-3)
    precision = strokes(pr_chart([Ranked("model", truth, scores)]))[COLORS[0]]
    assert in_unit_square(precision, points[[0, -1]])[-1] == pytest.approx([1, truth.mean()], abs=0.05)


def test_several_lines_have_their_colours() -> None:
    truth, scores = ranked(100)
    chart = roc_chart(
        [Ranked("a", truth, scores), Ranked("baseline", truth, -scores), Ranked("b", truth, scores**2)]
    )
    assert set(COLORS[:3]) <= set(strokes(chart))


def test_one_class_only_is_reported() -> None:
    for chart in (roc_chart, pr_chart):
        assert "x: one class only" in texts(chart([Ranked("x", [True, True], [0.1, 0.2])]))


def test_scatter_is_thinned_and_always_the_same() -> None:
    x = np.random.default_rng(0).normal(size=5_000)
    x[0] = np.nan
    chart = scatter_chart(x, 0.5 * x, name="expression")
    assert 0.9 * MAX_POINTS < chart.count("<use") <= MAX_POINTS + 1 <= len(notes(chart)) + 1
    assert {"true expression", "predicted expression", f"{MAX_POINTS:,} of 4,999 points"} <= set(texts(chart))
    assert chart == scatter_chart(x, 0.5 * x, name="expression")
    assert "2 points" in texts(scatter_chart([0.0, 10.0], [0.0, 10.0]))
    assert "1 points" in texts(scatter_chart([3.0], [3.0]))


@pytest.mark.parametrize("values", [[], [np.nan]])
def test_scatter_of_nothing(values: list[float]) -> None:
    assert scatter_chart(values, values) == NO_DATA


def test_reliability_has_a_dot_for_each_bin_with_items() -> None:
    truth, scores = ranked(500)
    bins = reliability("binary", np.stack([1 - scores, scores], axis=1), truth)
    chart = reliability_chart([("model", bins), ("nothing", Reliability(*np.zeros((3, 15))))])
    assert {f"model: {bins.error:.3f}", "nothing: nan"} <= set(texts(chart))
    dots = re.findall(f'stroke: {COLORS[0]}"/>', chart)
    assert len(dots) == np.count_nonzero(bins.count_K)
    assert "nan" not in chart.replace("nothing: nan", "")


def test_a_line_chart_names_its_lines_and_marks() -> None:
    points = [(float(x), math.sin(x)) for x in range(50)]
    gap = [(0.0, 0.5), (1.0, math.nan), (2.0, math.inf), (3.0, 0.5), (4.0, 0.6)]
    series = [Series("a<b", points, "#112233"), Series("c", gap, "#445566")]
    chart = line_chart(series, x_label="x", y_label="y", marks={10.0: "1,024", 99.0: "beyond"})
    assert {"a<b", "c", "x", "y", "1,024 "} <= set(texts(chart))
    assert "beyond " not in texts(chart)
    assert {"#112233", "#445566"} <= set(strokes(chart))
    assert "nan" not in chart
    for nothing in ([], [(0.0, math.nan)]):
        assert line_chart([Series("a", nothing, "#111111")], x_label="x", y_label="y") == NO_DATA


def test_a_line_chart_leaves_out_a_steep_start_but_never_an_end() -> None:
    def highest(points: list[tuple[float, float]]) -> float:
        chart = line_chart([Series("a", points, "#111111")], x_label="x", y_label="y", y_max=2.0)
        return max(float(text) for text in texts(chart) if re.fullmatch(r"[\d.]+", text))

    assert highest([(0, 9.0), (1, 1.5), (2, 1.2)]) <= 2
    assert highest([(0, 9.0), (1, 1.5), (2, 8.0)]) >= 8


def test_charts_of_one_page_share_no_ids_that_differ() -> None:
    """An id stands once in a chart; in two charts it may stand for the same thing."""
    points = [(0.0, 1e-4), (1.0, 6e-4)]
    chart = line_chart([Series("a", points, "#111111", dots=True)], x_label="x", y_label="y")
    ids = re.findall(r' id="([^"]+)"', chart)
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[mp][0-9a-f]{10}", name) for name in ids)
    assert "0.0006" in texts(chart)
    assert not re.search(r"https?://(?!www\.w3\.org/)", chart)


def test_points_of_columns_and_their_means() -> None:
    rows = [{"step": "1", "loss": "0.5"}, {"step": "2", "loss": ""}, {"step": "3", "loss": "nan"}]
    (first, second) = curve(rows, "step", "loss")
    assert first == (1.0, 0.5)
    assert math.isnan(second[1])
    points = [(float(x), float(x % 7)) for x in range(1_000)]
    assert len(smoothed(points)) == 200
    assert sum(y for _, y in smoothed(points)) / 200 == pytest.approx(sum(y for _, y in points) / 1_000)


def test_a_length_chart_is_a_file_of_its_own(tmp_path: Path) -> None:
    target = tmp_path / "chart.svg"
    lengths = [64, 1000, 1024, 4096]
    write_length_chart(
        target, lengths, {"model": [4, 3, 2, 1], "k-mers": [3, math.nan, 3, 3]}, x_label="bases", y_label="y"
    )
    assert target.read_text().startswith("<?xml")
    assert {"64", "1,024", "4,096", "model", "k-mers", "bases"} <= set(texts(target.read_text()))
    assert "1,000" not in texts(target.read_text())


# Machado, Oliveira and Fernandes (2009), severity 1.0, of linear RGB.
DICHROMACY = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "all cones": np.eye(3),
}


def lab(color: str, seen_by: str) -> np.ndarray:
    """CIE L*a*b* under D65 of an sRGB colour as it is seen."""
    share_3 = np.array(list(bytes.fromhex(color[1:]))) / 255
    linear_3 = np.where(share_3 <= 0.04045, share_3 / 12.92, ((share_3 + 0.055) / 1.055) ** 2.4)
    to_xyz = [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
    seen_3 = np.clip(np.array(DICHROMACY[seen_by]) @ linear_3, 0, 1)
    t_3 = np.array(to_xyz) @ seen_3 / [0.95047, 1.0, 1.08883]
    x, y, z = np.where(t_3 > (6 / 29) ** 3, np.cbrt(t_3), t_3 / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_lab_of_known_colours() -> None:
    assert lab("#ffffff", "all cones") == pytest.approx([100, 0, 0], abs=0.02)
    assert lab("#ff0000", "all cones") == pytest.approx([53.24, 80.09, 67.20], abs=0.02)


@pytest.mark.parametrize("seen_by", DICHROMACY)
def test_colours_differ_for_the_colour_blind(seen_by: str) -> None:
    for first, second in combinations((*COLORS, GREY), 2):
        assert np.linalg.norm(lab(first, seen_by) - lab(second, seen_by)) >= 30, (first, second)


def test_all_colours_of_charts_come_from_the_palette() -> None:
    """No module draws in colours of its own; frames and letters are shades of grey."""
    for path in Path("hyenacli").rglob("*.py"):
        if path.name not in {"figures.py", "report.py", "heatmap.py"}:
            used = set(re.findall(r'"(#[0-9a-f]{6})"', path.read_text()))
            assert all(len({color[i : i + 2] for i in (1, 3, 5)}) == 1 for color in used), path


def test_notes_lie_on_what_they_tell(tmp_path: Path) -> None:
    chart = histogram_chart([0.0] * 6 + [1.0] * 3, x_label="x", y_label="items")
    assert [text.split(": ")[1] for text in notes(chart) if "0 items" not in text] == ["6 items", "3 items"]
    points = [(float(x), 2.0 * x) for x in range(5)]
    chart = line_chart(
        [Series("a", points, COLORS[0]), Series("b", points[2:], COLORS[1])], x_label="x", y_label="y"
    )
    assert notes(chart)[1:3] == ["x: 1\na: 2", "x: 2\na: 4\nb: 4"]
    boxes = [[float(box.get(key, "")) for key in ("x", "width")] for box in rectangles(chart)]
    ends = np.cumsum([boxes[0][0], *(width for _, width in boxes)])
    assert [x for x, _ in boxes] == pytest.approx(ends[:-1], abs=0.3)
    write_interval_chart(tmp_path / "i.svg", [("first", 0.5, 0.4, 0.6), ("second", 1, 0, 2)], x_label="mcc")
    drawn = (tmp_path / "i.svg").read_text()
    assert "first: mcc 0.5, 95 % interval 0.4 to 0.6" in notes(drawn)
    heights = {box.findtext(f"{SVG}title", ""): float(box.get("y", "")) for box in rectangles(drawn)}
    assert [name.split(":")[0] for name in sorted(heights, key=heights.__getitem__)] == ["first", "second"]


def rectangles(chart: str) -> list[ET.Element]:
    """Areas under the pointer."""
    return [box for box in ET.fromstring(chart).iter(f"{SVG}rect") if box.find(f"{SVG}title") is not None]


def test_no_name_is_clipped(tmp_path: Path) -> None:
    """Texts measured with a font of the family that the page asks for lie on the page."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    name = "hyenadna_tiny_1k_finetuned_on_something_with_a_very_long_name_indeed"
    truth, scores = ranked(50)
    write_length_chart(
        tmp_path / "l.svg", [64, 128], {name: [1, 2], "k": [1, 2]}, x_label="bases", y_label="p"
    )
    charts = [
        (tmp_path / "l.svg").read_text(),
        line_chart([Series(name, [(0.0, 1.0), (1.0, 2.0)], GREY)], x_label="tokens", y_label="loss"),
        roc_chart([Ranked(name, truth, scores), Ranked(f"k-mers: {name}", truth, -scores)]),
    ]
    for chart in charts:
        svg = next(ET.fromstring(chart).iter(f"{SVG}svg"))
        width = float(svg.get("viewBox", "").split()[2])
        legend = [text for text in svg.iter(f"{SVG}text") if "\u2026" in (text.text or "")]
        assert legend
        for text in legend:
            extent = TextPath((0, 0), text.text, size=9, prop=FontProperties("DejaVu Sans")).get_extents()
            assert float(text.get("x", "")) + extent.width < width

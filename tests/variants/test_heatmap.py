"""The picture of a saturation mutagenesis, read back from its SVG."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import numpy.typing as npt
import pytest

from hyenacli.genome.region import Region
from hyenacli.variants.heatmap import BASES, STEPS, color_steps, draw_heatmap

SVG = "{http://www.w3.org/2000/svg}"
Floats = npt.NDArray[np.float64]


def effects(reference: str, seed: int = 0, *, least: float = -np.inf) -> Floats:
    """Effects of every substitution; none below `least`."""
    found = np.random.default_rng(seed).normal(size=(len(reference), 4))
    for i, base in enumerate(reference):
        found[i, [base in (b, "N") for b in BASES]] = np.nan
    return np.maximum(found, least)


def dna(length: int, seed: int = 1) -> str:
    return "".join(np.random.default_rng(seed).choice(list(BASES), length))


def drawn(region: Region, values: Floats, reference: str, **words: str) -> ET.Element:
    return ET.fromstring(draw_heatmap(region, values, reference.encode(), **words))


def texts(root: ET.Element) -> list[str]:
    return [text.text or "" for text in root.iter(f"{SVG}text")]


def panels(root: ET.Element) -> list[ET.Element]:
    return [group for group in root.findall(f"{SVG}g") if group.find(f"{SVG}rect") is not None]


def cells(panel: ET.Element) -> dict[tuple[int, int], str]:
    """The colour class of every cell by its column and row; a cell painted twice is an error."""
    found: dict[tuple[int, int], str] = {}
    (group,) = [g for g in panel.findall(f"{SVG}g") if g.get("transform", "").startswith("translate")]
    for path in group:
        runs = re.findall(r"M(\d+) (\d+)h(\d+)v1h-\3z", path.get("d", ""))
        assert "".join(f"M{x} {y}h{n}v1h-{n}z" for x, y, n in runs) == path.get("d")
        for x, y, n in runs:
            for column in range(int(x), int(x) + int(n)):
                assert (column, int(y)) not in found
                found[column, int(y)] = path.get("class", "")
    return found


def bars(panel: ET.Element) -> dict[int, float]:
    """The rise in pixels of every bar by its column, upwards positive."""
    (group,) = [g for g in panel.findall(f"{SVG}g") if g.get("transform", "").startswith("scale")]
    found = re.findall(r"M(\d+) [\d.]+v(-?[\d.]+)", "".join(path.get("d", "") for path in group))
    return {int(column): -float(rise) for column, rise in found}


def dot_heights(panel: ET.Element) -> list[float]:
    """Where the dots of the reference bases are, in pixels from the top."""
    (dots,) = [path.get("d", "") for path in panel.findall(f"{SVG}path") if path.get("class") == "ref"]
    return [float(y) for y in re.findall(r"M[\d.]+ ([\d.]+)h", dots)]


def test_every_cell_has_the_colour_of_its_effect() -> None:
    reference = dna(330)
    reference = reference[:170] + "NN" + reference[172:]
    values = effects(reference)
    values[5, [b != reference[5] for b in BASES]] = np.nan
    limit = float(np.quantile(np.abs(values[np.isfinite(values)]), 0.99))
    steps = np.rint((np.clip(values / limit, -1, 1) + 1) * (STEPS // 2))

    found: dict[tuple[int, int], str] = {}
    first = 0
    for panel in panels(drawn(Region("chr1", 1000, 1330), values, reference)):
        here = cells(panel)
        found |= {(first + column, row): name for (column, row), name in here.items()}
        first += len(here) // 4
    assert first == 330
    for i, own in enumerate(reference):
        for row, base in enumerate(BASES):
            expected = "own" if own == base else "none"
            if np.isfinite(values[i, row]):
                expected = f"c{int(steps[i, row])}"
            assert found[i, row] == expected
    assert {"none", "own", "c0", f"c{STEPS - 1}"} <= set(found.values())


def test_zero_is_the_middle_colour_and_what_lies_beyond_the_limit_is_cut() -> None:
    values = np.array([[-9.0, -2.0, 0.0, np.nan], [2.0, 9.0, 0.01, -0.01]])
    assert color_steps(values, 2.0).tolist() == [[0, 0, 16, -1], [32, 32, 16, 16]]
    assert color_steps(np.zeros((1, 4)), 0.0).tolist() == [[16] * 4]


def test_the_palette_is_white_in_the_middle_blue_below_and_red_above() -> None:
    style = drawn(Region("c", 0, 1), effects("A"), "A").findtext(f"{SVG}style") or ""
    colors = [bytes.fromhex(color) for color in re.findall(r"\.c\d+\{fill:#(\w{6})\}", style)]
    assert len(colors) == STEPS
    assert colors[16] == bytes.fromhex("f7f7f7")
    assert all(red < blue for red, _, blue in colors[:16])
    assert all(red > blue for red, _, blue in colors[17:])
    light = [sum(color) for color in colors]
    assert light[:17] == sorted(light[:17])
    assert light[16:] == sorted(light[16:], reverse=True)


def test_bars_are_the_means_of_what_was_scored() -> None:
    values = np.full((4, 4), np.nan)
    values[0, 1:] = [1.0, 2.0, 3.0]
    values[1, 0] = -4.0
    values[3, :3] = 0.0
    (panel,) = panels(drawn(Region("c", 0, 4), values, "ACGT"))
    found = bars(panel)
    assert set(found) == {0, 1}
    assert found[0] > 0
    assert found[1] == pytest.approx(-2 * found[0], abs=0.1)


def test_the_reference_is_dotted_in_its_row_and_spelled_above() -> None:
    (panel,) = panels(drawn(Region("c", 0, 5), effects("ACNGT"), "acngt"))
    assert np.diff(dot_heights(panel)).tolist() == [16] * 3
    (strip,) = [t for t in panel.findall(f"{SVG}text") if t.get("x", "").count(" ")]
    assert strip.text == "ACNGT"
    assert len(strip.get("x", "").split()) == 5


def test_coordinates_are_1_based_and_go_on_from_panel_to_panel() -> None:
    reference = dna(2000)
    root = drawn(Region("chrX:1", 139_530_462, 139_532_462, name="F9"), effects(reference), reference)
    assert len(panels(root)) == 10
    found = texts(root)
    assert "F9, chrX:1:139,530,463-139,532,462, 2,000 bases" in found
    assert "Positions in chrX:1, 1-based" in found
    labels = [int(text.replace(",", "")) for text in found if re.fullmatch(r"139,53\d,\d{3}", text)]
    assert labels == list(range(139_530_480, 139_532_463, 20))
    (first,) = [text for text in root.iter(f"{SVG}text") if text.text == "139,530,480"]
    assert float(first.get("x", "")) == 17.5 * 5


def test_a_region_of_one_base_has_a_coordinate() -> None:
    assert "1,237" in texts(drawn(Region("c", 1236, 1237), effects("A"), "A"))


def test_a_later_panel_shows_its_own_bases_dots_and_bars() -> None:
    reference = "A" * 110 + "T" * 110
    values = np.full((220, 4), np.nan)
    values[:110, 1:], values[110:, :3] = 1.0, -1.0
    first, second = panels(drawn(Region("c", 0, 220), values, reference))
    assert all(rise > 0 for rise in bars(first).values())
    assert sorted(bars(second)) == list(range(110))
    assert all(rise < 0 for rise in bars(second).values())
    assert reference[110:] in [text.text for text in second.iter(f"{SVG}text")]
    above, below = (dot_heights(panel) for panel in (first, second))
    assert len(above) == len(below) == 110
    assert set(above) != set(below)


def test_the_legend_states_score_limits_and_quantile() -> None:
    reference = dna(50)
    values = effects(reference)
    limit = f"{np.quantile(np.abs(values[np.isfinite(values)]), 0.99):.3g}"
    found = texts(drawn(Region("c", 0, 50), values, reference, score="HYENA_LLR", description="a<b & nats"))
    assert {f"≤ \u2212{limit}", "0", f"≥ {limit}", "a<b & nats"} <= set(found)
    assert "HYENA_LLR; colours end at the 99 % quantile of |HYENA_LLR|" in found
    unsigned = texts(drawn(Region("c", 0, 50), effects(reference, least=0.0), reference))
    assert not any("≤" in text for text in unsigned)


def test_long_explanations_are_wrapped() -> None:
    about = "word " * 60
    root = drawn(Region("c", 0, 3), effects("ACG"), "ACG", description=about)
    lines = [text for text in texts(root) if text.startswith("word")]
    assert " ".join(lines).split() == about.split()
    assert max(map(len, lines)) * 6 <= int(root.get("width", ""))


def test_what_was_not_scored_leaves_a_picture_that_says_so() -> None:
    root = drawn(Region("c", 0, 3), np.full((3, 4), np.nan), "NNN", score="HYENA_SITE")
    assert "HYENA_SITE: no substitution was scored" in texts(root)
    assert set(cells(panels(root)[0]).values()) == {"none"}


def test_infinities_and_zeros_alone_can_be_drawn() -> None:
    values = np.array([[np.nan, np.inf, -np.inf, 0.0]])
    found = cells(panels(drawn(Region("c", 0, 1), values, "A"))[0])
    assert found == {(0, 0): "own", (0, 1): "none", (0, 2): "none", (0, 3): "c16"}


def test_two_kilobases_are_of_moderate_size_and_hold_nothing_from_elsewhere() -> None:
    reference = dna(2000)
    text = draw_heatmap(Region("c", 0, 2000), effects(reference), reference.encode())
    assert len(text) < 220_000
    assert set(re.findall(r"https?://[^\"]+", text)) == {"http://www.w3.org/2000/svg"}
    height = int(re.findall(r'height="(\d+)"', text)[0])
    assert height < 1500


@pytest.mark.parametrize(("length", "rows", "bases"), [(0, 0, 0), (3, 2, 3), (3, 3, 2)])
def test_effects_and_bases_must_be_those_of_the_region(length: int, rows: int, bases: int) -> None:
    with pytest.raises(ValueError, match=f"{length} positions"):
        draw_heatmap(Region("c", 0, length), np.zeros((rows, 4)), b"A" * bases)

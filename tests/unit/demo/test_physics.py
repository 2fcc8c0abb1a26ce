"""Generated events, the job that analyses them, and the merge that checks the jobs' results."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import uproot
from demo import analyse, make_events, merge
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.unit.demo.conftest import ROOT

Arrays = dict[str, NDArray[np.generic]]


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two small files by the model."""
    directory = tmp_path_factory.mktemp("events")
    make_events.make(directory, events=30_001, files=2, seed=7)
    return directory


@pytest.fixture(scope="module")
def parts(events: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Results of five jobs that together read everything."""
    directory = tmp_path_factory.mktemp("parts")
    paths: list[Path] = []
    for name, first, last in (
        ("events-0.root", 0, 1),
        ("events-0.root", 1, 7000),
        ("events-0.root", 7000, 15001),
        ("events-1.root", 0, 9999),
        ("events-1.root", 9999, 15000),
    ):
        paths.append(directory / f"{len(paths)}.npz")
        np.savez_compressed(paths[-1], allow_pickle=False, **analyse.analyse(events / name, first, last))
    return paths


def script(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "demo" / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_files_are_laid_out_like_open_data(events: Path) -> None:
    with uproot.open(events / "events-0.root") as file:
        tree = file["Events"]
        assert [name for name in analyse.BRANCHES if name not in tree] == []
        assert tree["Muon_pt"].typename == "float[]"
        assert tree["Muon_charge"].typename == "int32_t[]"
        counts = tree["nMuon"].array(library="np")
    assert len(counts) == 15001
    assert set(counts) == {0, 1, 2, 3, 4}


def test_the_same_seed_makes_the_same_events(events: Path, tmp_path: Path) -> None:
    truth = make_events.make(tmp_path, events=30_001, files=2, seed=7)
    assert truth == json.loads((events / "truth.json").read_text())
    other = make_events.make(tmp_path, events=30_001, files=2, seed=8)
    assert other["pairs"] != truth["pairs"]


def test_files_that_fit_are_not_made_again(tmp_path: Path) -> None:
    make_events.make(tmp_path, events=100, files=1, seed=1)
    before = (tmp_path / "events-0.root").stat().st_mtime_ns
    make_events.make(tmp_path, events=100, files=1, seed=1)
    assert (tmp_path / "events-0.root").stat().st_mtime_ns == before
    make_events.make(tmp_path, events=101, files=1, seed=1)
    assert (tmp_path / "events-0.root").stat().st_mtime_ns != before


def four_vector_mass(pt: list[float], eta: list[float], phi: list[float], mass: list[float]) -> float:
    """By the sum of four-vectors, component by component: another way than the job's formula."""
    total = np.zeros(4)
    for one in range(2):
        momentum = np.array([np.cos(phi[one]), np.sin(phi[one]), np.sinh(eta[one])]) * pt[one]
        total += [*momentum, np.sqrt(momentum @ momentum + mass[one] ** 2)]
    return float(np.sqrt(max(total[3] ** 2 - total[:3] @ total[:3], 0.0)))


def pair(low: float, high: float) -> st.SearchStrategy[list[float]]:
    return st.lists(st.floats(low, high), min_size=2, max_size=2)


@given(pair(1.0, 100.0), pair(-2.5, 2.5), pair(-3.2, 3.2), pair(0.1, 2.0))
def test_the_mass_is_that_of_the_sum_of_four_vectors(
    pt: list[float], eta: list[float], phi: list[float], mass: list[float]
) -> None:
    found = analyse.invariant_mass(*(np.array([values]) for values in (pt, eta, phi, mass)))[0]
    assert found == pytest.approx(four_vector_mass(pt, eta, phi, mass), rel=1e-4, abs=1e-3)


@settings(max_examples=30)
@given(st.integers(0, 2**32))
def test_a_decay_has_the_mass_that_decayed(seed: int) -> None:
    random = np.random.default_rng(seed)
    mass = random.uniform(0.4, 250.0, 20)
    pt, eta, phi = make_events.decays(random, mass)
    found = analyse.invariant_mass(pt, eta, phi, np.full_like(pt, make_events.MUON_MASS))
    assert found == pytest.approx(mass, rel=1e-6)


def test_all_jobs_together_find_what_was_made(events: Path, parts: list[Path], tmp_path: Path) -> None:
    plot = tmp_path / "plots/spectrum.png"
    summary = merge.merge(parts, truth=events / "truth.json", plot=plot)
    truth = json.loads((events / "truth.json").read_text())
    assert (summary["pairs"], summary["events"], summary["files"]) == (truth["pairs"], 30_001, 2)
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_one_range_or_many_give_the_same(events: Path, parts: list[Path]) -> None:
    whole = analyse.analyse(events / "events-0.root", 0, 15001)
    total = merge.add_up(parts[:3])
    for name in merge.HISTOGRAMS:
        assert np.array_equal(total.histograms[name], whole[name])


def changed(tmp_path: Path, path: Path, change: Callable[[Arrays], None]) -> Path:
    with np.load(path) as content:
        arrays = dict(content)
    change(arrays)
    target = tmp_path / "changed.npz"
    np.savez_compressed(target, allow_pickle=False, **arrays)
    return target


def test_a_range_that_nobody_read_is_noticed(parts: list[Path]) -> None:
    for left_out, words in ((1, "events 1 to 6999"), (2, "events 7000 to 15000"), (3, "events 0 to 9998")):
        some = [path for index, path in enumerate(parts) if index != left_out]
        with pytest.raises(merge.NotRight, match=f"{words} were read never"):
            merge.check_complete(merge.add_up(some))


def test_a_range_that_was_read_twice_is_noticed(parts: list[Path]) -> None:
    with pytest.raises(merge.NotRight, match="twice"):
        merge.check_complete(merge.add_up([*parts, parts[1]]))


def test_a_lost_pair_is_noticed(parts: list[Path], events: Path, tmp_path: Path) -> None:
    def lose(arrays: Arrays) -> None:
        arrays["pairs"] = np.array(int(arrays["pairs"]) - 1)

    some = [changed(tmp_path, parts[1], lose), *parts[:1], *parts[2:]]
    with pytest.raises(merge.NotRight, match="histogram holds"):
        merge.check_complete(merge.add_up(some))
    with pytest.raises(merge.NotRight, match="were made"):
        merge.check_truth(merge.add_up(some), events / "truth.json")


def test_other_bins_are_noticed(parts: list[Path], tmp_path: Path) -> None:
    def shift(arrays: Arrays) -> None:
        arrays["z_edges"] = np.asarray(arrays["z_edges"], dtype=np.float64) + 1

    with pytest.raises(merge.NotRight, match="other bins"):
        merge.add_up([*parts, changed(tmp_path, parts[0], shift)])


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04nonsense", b"\x93NUMPY"])
def test_what_is_no_result_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(merge.NotRight, match="no result"):
        merge.add_up([tmp_path / "x.npz"])


def histogram(peak: merge.Peak, position: float, width: float, count: int) -> tuple[NDArray[np.int64], merge.Numbers]:
    random = np.random.default_rng(3)
    edges = analyse.EDGES[peak.window]
    background = random.uniform(edges[0], edges[-1], count)
    found = np.histogram(np.concatenate((random.normal(position, width, count), background)), edges)[0]
    return found.astype(np.int64), edges


@pytest.mark.parametrize("peak", merge.PEAKS, ids=lambda peak: peak.window)
@pytest.mark.parametrize("offset", [-0.5, 0.0, 0.5])
def test_the_fit_finds_a_peak_where_it_is(peak: merge.Peak, offset: float) -> None:
    position = peak.expected + offset * peak.tolerance
    width = sum(peak.widths) / 2
    found = merge.fit(peak, *histogram(peak, position, width, 20_000))
    assert found.position == pytest.approx(position, abs=6 * width / np.sqrt(20_000))
    assert found.width == pytest.approx(width, rel=0.1)
    assert found.events == pytest.approx(20_000, rel=0.15)
    merge.check_peak(peak, found)


@pytest.mark.parametrize("peak", merge.PEAKS, ids=lambda peak: peak.window)
def test_a_peak_at_a_wrong_place_is_noticed(peak: merge.Peak) -> None:
    far = merge.fit(peak, *histogram(peak, peak.expected + 1.3 * peak.tolerance, peak.widths[0] * 1.5, 20_000))
    with pytest.raises(merge.NotRight, match="not at"):
        merge.check_peak(peak, far)


def test_no_peak_at_all_is_noticed() -> None:
    peak = merge.PEAKS[1]
    edges = analyse.EDGES[peak.window]
    with pytest.raises(merge.NotRight, match="no Z"):
        merge.fit(peak, np.zeros(len(edges) - 1, np.int64), edges)


@pytest.mark.parametrize("text", ["", "5", "5:", ":5", "5:5", "7:5", "-1:5", "a:b", "1:2:3"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(analyse.BadInput):
        analyse.parse_range(text)


def test_the_job_writes_its_result_and_one_line(events: Path, tmp_path: Path) -> None:
    ran = script("analyse.py", events / "events-1.root", "100:200", tmp_path / "out.npz")
    assert ran.returncode == 0
    told = json.loads(ran.stdout)
    assert (told["first"], told["last"], told["entries"]) == (100, 200, 15000)
    with np.load(tmp_path / "out.npz") as content:
        assert int(content["pairs"]) == told["pairs"]


def test_the_job_tells_what_is_wrong_in_one_line(events: Path, tmp_path: Path) -> None:
    (tmp_path / "text.root").write_text("no ROOT file")
    with uproot.recreate(tmp_path / "other.root") as file:
        file.mktree("Events", {"x": "float64"}).extend({"x": np.zeros(9)})
    for arguments, word in (
        ((events / "events-0.root", "0:99999"), "has 15001 events"),
        ((events / "events-0.root", "9"), "FIRST:LAST"),
        ((tmp_path / "nowhere.root", "0:1"), "nowhere.root"),
        ((tmp_path / "text.root", "0:1"), "no ROOT file"),
        ((tmp_path / "other.root", "0:1"), "lacks nMuon"),
    ):
        ran = script("analyse.py", *arguments, tmp_path / "out.npz")
        assert ran.returncode == 1
        assert word in ran.stderr.splitlines()[-1]
        assert "Traceback" not in ran.stderr
    assert not (tmp_path / "out.npz").exists()


def test_open_data_give_the_known_pairs_and_peaks(open_data: Path, tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "all.npz", allow_pickle=False, **analyse.analyse(open_data, 0, 100_000))
    summary = merge.merge([tmp_path / "all.npz"], truth=None, plot=None)
    assert summary["pairs"] == 37_183
    peaks = summary["peaks"]
    assert isinstance(peaks, dict)
    assert peaks["J/psi"]["position"] == pytest.approx(3.0926, abs=0.002)
    assert peaks["Z"]["position"] == pytest.approx(90.73, abs=0.3)


@pytest.mark.parametrize("name", ["make_events.py", "analyse.py", "merge.py", "run.py"])
def test_every_script_has_help(name: str) -> None:
    ran = script(name, "--help")
    assert ran.returncode == 0
    assert "usage" in ran.stdout

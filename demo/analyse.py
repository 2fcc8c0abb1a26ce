"""One job of the demo: the invariant masses of opposite-sign muon pairs in a range of events of a ROOT file.

The file has a TTree ``Events`` with nMuon, Muon_pt, Muon_eta, Muon_phi, Muon_mass and Muon_charge, as CMS open data
have. Only events with exactly two muons count. With E and p the muons' energies and momenta, M**2 = (E1 + E2)**2 -
(p1 + p2)**2, which in transverse momentum, pseudorapidity and azimuth is

    M**2 = m1**2 + m2**2 + 2 (E1 E2 - pt1 pt2 (cos(phi1 - phi2) + sinh(eta1) sinh(eta2)))

The result is an ``.npz`` with histograms and counts that ``merge.py`` adds up, and one line of JSON on standard output.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import awkward as ak
import numpy as np
import uproot
from numpy.typing import NDArray

BRANCHES = ("nMuon", "Muon_pt", "Muon_eta", "Muon_phi", "Muon_mass", "Muon_charge")
EDGES = {
    "spectrum": np.geomspace(0.3, 300.0, 301),
    "jpsi": np.linspace(2.6, 3.6, 101),
    "z": np.linspace(70.0, 110.0, 81),
}
"""GeV. The whole spectrum in logarithmic bins, and a fine window around each peak."""

Numbers = NDArray[np.float64]


class BadInput(Exception):
    """The file or the range cannot be used; the text says why."""


def parse_range(text: str) -> tuple[int, int]:
    """``FIRST:LAST``; the last one is not included. BadInput otherwise."""
    first, colon, last = text.partition(":")
    if not (colon and first.isdecimal() and last.isdecimal() and int(first) < int(last)):
        raise BadInput(f"{text!r} is no range: write FIRST:LAST, for example 0:5000")
    return int(first), int(last)


def invariant_mass(pt: Numbers, eta: Numbers, phi: Numbers, mass: Numbers) -> Numbers:
    """Of pairs: each argument has shape (pairs, 2). GeV. Rounding below zero is zero."""
    energy = np.sqrt((pt * np.cosh(eta)) ** 2 + mass**2)
    transverse = pt[:, 0] * pt[:, 1]
    along = np.cos(phi[:, 0] - phi[:, 1]) + np.sinh(eta[:, 0]) * np.sinh(eta[:, 1])
    square = mass[:, 0] ** 2 + mass[:, 1] ** 2 + 2 * (energy[:, 0] * energy[:, 1] - transverse * along)
    return np.asarray(np.sqrt(np.maximum(square, 0.0)), dtype=np.float64)


def read(path: Path, first: int, last: int) -> tuple[ak.Array, int]:
    """The events of the range, and how many the file has. BadInput."""
    try:
        # The default cache holds whole files: with many jobs on a machine its memory is missed elsewhere.
        with uproot.open(path, array_cache=None) as file:
            tree = file["Events"]
            entries = int(tree.num_entries)
            if last > entries:
                raise BadInput(f"{path.name} has {entries} events, the range ends at {last}")
            missing = [name for name in BRANCHES if name not in tree]
            if missing:
                raise BadInput(f"{path.name} lacks {', '.join(missing)}")
            return tree.arrays(BRANCHES, entry_start=first, entry_stop=last, array_cache=None), entries
    except BadInput:
        raise
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadInput(f"{path} is no ROOT file with a tree Events: {reason}") from None


def analyse(path: Path, first: int, last: int) -> dict[str, NDArray[np.generic]]:
    """Histograms and counts of the range."""
    events, entries = read(path, first, last)
    two = events[events["nMuon"] == 2]

    def pairs(name: str) -> Numbers:
        flat = ak.to_numpy(ak.flatten(two[f"Muon_{name}"]))
        return np.asarray(flat, dtype=np.float64).reshape(-1, 2)

    charge = pairs("charge")
    opposite = charge[:, 0] * charge[:, 1] < 0
    mass = invariant_mass(*(pairs(name)[opposite] for name in ("pt", "eta", "phi", "mass")))
    result: dict[str, NDArray[np.generic]] = {
        name: np.histogram(mass, edges)[0].astype(np.int64) for name, edges in EDGES.items()
    }
    counts = {
        "entries": entries,
        "first": first,
        "last": last,
        "two_muons": len(two),
        "pairs": len(mass),
        "below": int((mass < EDGES["spectrum"][0]).sum()),
        "above": int((mass > EDGES["spectrum"][-1]).sum()),
    }
    result |= {name: np.array(count, dtype=np.int64) for name, count in counts.items()}
    result |= {f"{name}_edges": edges for name, edges in EDGES.items()}
    return result | {"source": np.array(path.name)}


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="ROOT file")
    parser.add_argument("range", metavar="FIRST:LAST", help="events to read; LAST is not included")
    parser.add_argument("output", type=Path, help="the .npz to write")
    given = parser.parse_args()
    begin = time.monotonic()
    try:
        first, last = parse_range(given.range)
        print(f"reading events {first} to {last - 1} of {given.file.name}", file=sys.stderr)
        result = analyse(given.file, first, last)
        np.savez_compressed(given.output, allow_pickle=False, **result)
    except (BadInput, OSError) as error:
        print(f"analyse: {error}", file=sys.stderr)
        return 1
    told = {name: int(value) for name, value in result.items() if value.ndim == 0 and value.dtype == np.int64}
    print(json.dumps({"file": given.file.name, **told, "seconds": round(time.monotonic() - begin, 3)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

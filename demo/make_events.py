"""Make dimuon events by a documented model and write them as ROOT files, laid out as CMS open data (NanoAOD) are.

The model. An event has 0 to 4 muons (5, 20, 65, 8 and 2 %). The two muons of a two-muon event come

* from a J/psi (15 %): mass 3.0969 GeV, width 93 keV (Particle Data Group), opposite charges;
* from a Z (20 %): mass 91.1876 GeV, width 2.4952 GeV, cut off at +-25 GeV, opposite charges;
* or from the continuum: dN/dM ~ M**-1.5 from 0.4 to 250 GeV, opposite charges in 80 %.

A resonance's mass is a Breit-Wigner. The pair moves with an exponential transverse momentum (mean 8 GeV) and a
rapidity spread evenly over +-1.8; it decays evenly in its rest frame. The detector smears each muon's transverse
momentum by 1 %. Muons of the other events have an exponential transverse momentum (mean 6 GeV) above 3 GeV and any
direction.

The files hold a TTree ``Events`` with nMuon, Muon_pt, Muon_eta, Muon_phi, Muon_mass and Muon_charge. Beside them
``truth.json`` keeps what the generator knows: files, entries, and the number of opposite-sign pairs of two-muon events.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import awkward as ak
import numpy as np
import uproot
from numpy.typing import NDArray

MUON_MASS = 0.1056583755
"""GeV (Particle Data Group)."""
JPSI_MASS, JPSI_WIDTH = 3.0969, 9.26e-5
Z_MASS, Z_WIDTH = 91.1876, 2.4952
Z_REACH = 25.0
"""GeV from the Z's mass where its line is cut off; farther out the continuum hides it."""
MULTIPLICITY = (0.05, 0.20, 0.65, 0.08, 0.02)
FRACTION_JPSI, FRACTION_Z = 0.15, 0.20
CONTINUUM_FROM, CONTINUUM_TO, CONTINUUM_POWER = 0.4, 250.0, -1.5
OPPOSITE_IN_CONTINUUM = 0.8
RESOLUTION = 0.01
MODEL = 1
"""Raise it with every change of the model: files made by another one are made again."""

BASKET = 5000
"""Events written at once. A job reads whole baskets, so that much larger ones would make short ranges read too much."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Muons:
    """Muons of all events in a row, and how many each event has."""

    counts: NDArray[np.int64]
    pt: Numbers
    eta: Numbers
    phi: Numbers
    charge: NDArray[np.int32]


def breit_wigner(random: np.random.Generator, count: int, mass: float, width: float, reach: float) -> Numbers:
    """Masses within ``reach`` of the pole, by the inverse of the cumulative distribution."""
    edge = np.arctan(2 * reach / width)
    return mass + width / 2 * np.tan(random.uniform(-edge, edge, count))


def pair_masses(random: np.random.Generator, count: int) -> tuple[Numbers, NDArray[np.bool_]]:
    """Masses of ``count`` pairs, and which of them have opposite charges."""
    kind = random.random(count)
    jpsi, z = kind < FRACTION_JPSI, (kind >= FRACTION_JPSI) & (kind < FRACTION_JPSI + FRACTION_Z)
    # The continuum: the inverse of the integral of M**power.
    power = CONTINUUM_POWER + 1
    low, high = CONTINUUM_FROM**power, CONTINUUM_TO**power
    mass = (low + random.random(count) * (high - low)) ** (1 / power)
    mass[jpsi] = breit_wigner(random, int(jpsi.sum()), JPSI_MASS, JPSI_WIDTH, 0.01)
    mass[z] = breit_wigner(random, int(z.sum()), Z_MASS, Z_WIDTH, Z_REACH)
    return mass, jpsi | z | (random.random(count) < OPPOSITE_IN_CONTINUUM)


def decays(random: np.random.Generator, mass: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """(pt, eta, phi) of both muons of each pair, as arrays of shape (pairs, 2), before the detector."""
    count = len(mass)
    momentum = np.sqrt(np.maximum(mass**2 / 4 - MUON_MASS**2, 0))
    cosine, angle = random.uniform(-1, 1, count), random.uniform(0, 2 * np.pi, count)
    sine = np.sqrt(1 - cosine**2)
    one = momentum * np.stack((sine * np.cos(angle), sine * np.sin(angle), cosine))
    energy = mass / 2
    pair_pt, rapidity = random.exponential(8.0, count), random.uniform(-1.8, 1.8, count)
    direction = random.uniform(0, 2 * np.pi, count)
    transverse_mass = np.hypot(mass, pair_pt)
    velocity = np.stack((pair_pt * np.cos(direction), pair_pt * np.sin(direction), transverse_mass * np.sinh(rapidity)))
    velocity /= transverse_mass * np.cosh(rapidity)
    boosted = np.stack((boost(one, energy, velocity), boost(-one, energy, velocity)), axis=-1)
    pt = np.hypot(boosted[0], boosted[1])
    return pt, np.arcsinh(boosted[2] / pt), np.arctan2(boosted[1], boosted[0])


def boost(momentum: Numbers, energy: Numbers, velocity: Numbers) -> Numbers:
    """The momentum as seen from a frame in which its own frame moves with ``velocity``."""
    square = np.sum(velocity**2, axis=0)
    gamma = 1 / np.sqrt(1 - square)
    along = np.sum(momentum * velocity, axis=0)
    factor = (gamma - 1) * along / np.maximum(square, 1e-300) + gamma * energy
    return np.asarray(momentum + factor * velocity, dtype=np.float64)


def generate(random: np.random.Generator, events: int) -> tuple[Muons, int]:
    """So many events, and how many of them have exactly two muons of opposite charges."""
    counts = random.choice(len(MULTIPLICITY), size=events, p=MULTIPLICITY)
    total = int(counts.sum())
    pt = 3.0 + random.exponential(6.0, total)
    eta, phi = random.uniform(-2.4, 2.4, total), random.uniform(-np.pi, np.pi, total)
    charge = random.choice(np.array((-1, 1), dtype=np.int32), size=total)
    in_pair = np.repeat(counts == 2, counts)
    mass, opposite = pair_masses(random, int((counts == 2).sum()))
    pair_pt, pair_eta, pair_phi = decays(random, mass)
    first = random.choice(np.array((-1, 1), dtype=np.int32), size=len(mass))
    pt[in_pair], eta[in_pair], phi[in_pair] = pair_pt.ravel(), pair_eta.ravel(), pair_phi.ravel()
    charge[in_pair] = np.stack((first, np.where(opposite, -first, first)), axis=-1).ravel()
    pt *= random.normal(1.0, RESOLUTION, total)
    return Muons(counts, pt, eta, phi, charge), int(opposite.sum())


def write(path: Path, muons: Muons) -> None:
    """One ROOT file, complete or not there."""
    fields = {
        "pt": muons.pt.astype(np.float32),
        "eta": muons.eta.astype(np.float32),
        "phi": muons.phi.astype(np.float32),
        "mass": np.full(len(muons.pt), MUON_MASS, dtype=np.float32),
        "charge": muons.charge,
    }
    events = ak.zip({name: ak.unflatten(values, muons.counts) for name, values in fields.items()})
    part = path.with_name(f".{path.name}.part")
    with uproot.recreate(part) as file:
        # A TTree, as the open data are; without mktree a dictionary would become an RNTuple.
        tree = file.mktree("Events", {"Muon": events.type.content}, counter_name=lambda name: f"n{name}")
        for begin in range(0, len(events), BASKET):
            tree.extend({"Muon": events[begin : begin + BASKET]})
    part.replace(path)


def make(directory: Path, *, events: int, files: int, seed: int) -> dict[str, object]:
    """All files and the truth about them. What is there already by the same model, seed and sizes stays."""
    wanted: dict[str, object] = {"model": MODEL, "seed": seed, "events": events, "files": files}
    sidecar = directory / "truth.json"
    if sidecar.is_file():
        known: dict[str, object] = json.loads(sidecar.read_text(encoding="utf-8"))
        if all(known.get(key) == value for key, value in wanted.items()):
            return known
    directory.mkdir(parents=True, exist_ok=True)
    sidecar.unlink(missing_ok=True)
    entries, pairs = {}, 0
    for index in range(files):
        size = events // files + (1 if index < events % files else 0)
        muons, found = generate(np.random.default_rng((seed, index)), size)
        name = f"events-{index}.root"
        write(directory / name, muons)
        entries[name] = size
        pairs += found
        print(f"{name}: {size} events, {found} opposite-sign pairs", file=sys.stderr)
    truth = wanted | {"entries": entries, "pairs": pairs}
    sidecar.write_text(json.dumps(truth, indent=2) + "\n", encoding="utf-8")
    return truth


def main() -> int:
    """Read the command line."""
    description, _, model = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=model, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path, help="where to put the files")
    parser.add_argument("--events", type=int, default=400_000, help="events in all files (default: %(default)s)")
    parser.add_argument("--files", type=int, default=4, help="number of files (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=2026, help="the same seed, the same events (default: %(default)s)")
    given = parser.parse_args()
    if given.files < 1 or given.events < given.files:
        parser.error("there must be at least one file, and one event a file")
    try:
        truth = make(given.directory, events=given.events, files=given.files, seed=given.seed)
    except OSError as error:
        parser.exit(1, f"make_events: {error}\n")
    print(json.dumps(truth))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Images of kind tree, really built: the same each time, read whole by verify, and refused where they do not fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gridtide.errors import ImageError
from gridtide.images.building import build
from gridtide.images.contents import differences
from gridtide.images.image import ImageKind, TreeImage
from gridtide.images.recipe import read_recipe
from gridtide.images.store import ImageStore
from tests.real.engines import need
from tests.real.images import MMDEBSTRAP, tree

RECIPE = """
description = "tiny"
packages = ["python3-minimal", "libpython3-stdlib"]
files = [{ source = "motd", target = "/etc/motd", mode = "0640" }]
script = "finish.sh"
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("recipe")
    (place / "tiny.toml").write_text(RECIPE)
    (place / "motd").write_text("welcome\n")
    (place / "finish.sh").write_text("#!/bin/sh\necho done > /etc/finished\n")
    return place / "tiny.toml"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, recipe: Path) -> ImageStore:
    """With ``tiny``, built by the command."""
    need(MMDEBSTRAP)
    directory = tmp_path_factory.mktemp("images")
    command = [sys.executable, "-m", "gridtide.cli.main", "image", "build", "tiny", "--recipe", str(recipe), "--tree"]
    done = subprocess.run([*command, "--directory", str(directory), "--json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["name"], document["kind"], document["context"]) == ("tiny", "tree", "agent")
    assert "disk_size" not in document
    return ImageStore(directory)


def tiny(store: ImageStore, name: str = "tiny") -> TreeImage:
    image = store.use(name)
    assert isinstance(image, TreeImage)
    return image


def test_two_builds_of_one_recipe_are_one_image(store: ImageStore, recipe: Path) -> None:
    read, text = read_recipe(str(recipe))
    second, contents = build(store, "again", read, text, kind=ImageKind.TREE)
    first = tiny(store)
    assert differences((first.tree.parent / "contents.txt").read_text(), contents) == []
    assert second.digest == first.digest
    assert tiny(store, "again").tree == first.tree, "kept once"
    assert list(store.directory.glob(".making-*")) == []
    store.remove("again")
    assert first.tree.exists()


def test_a_tree_holds_what_the_recipe_says_and_no_secret(store: ImageStore) -> None:
    place = tiny(store).tree
    assert (place / "etc/motd").read_text() == "welcome\n"
    assert (place / "etc/motd").stat().st_mode & 0o7777 == 0o640
    assert (place / "etc/finished").read_text() == "done\n"
    assert "\ngridtide:x:988:" in (place / "etc/passwd").read_text()
    assert not list(place.glob("usr/lib/gridtide/*")), "the agent comes with the machine"
    assert (place / "usr/bin/busybox").exists()
    assert (place / "etc/machine-id").read_text() == ""
    assert list((place / "boot").iterdir()) == []


def test_damage_within_is_found_by_verify_alone(store: ImageStore) -> None:
    place = tiny(store).tree
    changed = place / "etc/motd"
    try:
        changed.write_text("hacked!\n")
        (place / "usr/added").write_text("x")
        (place / "etc/finished").rename(place / "etc/moved")
        tiny(store)
        with pytest.raises(ImageError) as caught:
            store.verify("tiny")
        assert caught.value.what == (
            "image tiny is damaged: /etc/finished is missing, /etc/motd is not what it was, /etc/moved was added, "
            "and 1 more"
        )
    finally:
        changed.write_text("welcome\n")
        (place / "usr/added").unlink()
        (place / "etc/moved").rename(place / "etc/finished")
    store.verify("tiny")


def test_the_recipes_that_pools_need_have_the_versions_that_they_say() -> None:
    """A worker's slurmd must not be newer than its slurmctld: 22.05 is for the clusters that "batch" is too new for."""
    told = {}
    for name in ("batch-tree", "slurm-tree"):
        for program in ("slurmd", "slurmctld"):
            done = subprocess.run(
                ["chroot", str(tree(name)), program, "-V"], capture_output=True, text=True, check=True
            )
            told[name, program] = done.stdout.split()[1].rpartition(".")[0]
        assert not (tree(name) / "etc/munge/munge.key").exists(), "a secret that all machines would share"
    assert told == {
        ("batch-tree", "slurmd"): "24.11",
        ("batch-tree", "slurmctld"): "24.11",
        ("slurm-tree", "slurmd"): "22.05",
        ("slurm-tree", "slurmctld"): "22.05",
    }
    environment = {**os.environ, "CONDOR_CONFIG": "/dev/null"}
    command = ["chroot", str(tree("batch-tree")), "condor_version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert "$CondorVersion: 23.9.6 " in done.stdout


def test_a_recipe_with_systemd_makes_no_tree(store: ImageStore) -> None:
    read, text = read_recipe("cloud")
    with pytest.raises(ImageError, match='a tree runs without systemd, and the recipe says guest = "systemd"'):
        build(store, "cloud", read, text, kind=ImageKind.TREE)

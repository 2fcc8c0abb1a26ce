"""Recipes: ours can be read, others' mistakes are one line with a place."""

from __future__ import annotations

from pathlib import Path

import pytest

from gridtide.errors import ImageError
from gridtide.images.recipe import BUILT_IN, read_recipe


@pytest.mark.parametrize("name", BUILT_IN)
def test_ours_can_be_read(name: str) -> None:
    recipe, text = read_recipe(name)
    assert recipe.packages
    assert text.startswith("#")


def test_paths_are_relative_to_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "motd").write_text("x")
    (tmp_path / "r.toml").write_text('files = [{ source = "motd", target = "/etc/motd" }]\n')
    recipe, _ = read_recipe(str(tmp_path / "r.toml"))
    assert (recipe.files[0].source, recipe.files[0].mode) == (tmp_path / "motd", "0644")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = ", "is not TOML"),
        ("\npackges = []\n", "r.toml:2: packges"),
        ('packages = ["a b"]\n', "r.toml:1: packages.0: 'a b' is not the name of a package"),
        ('packages = ["--option"]\nsuite = 5\n', "r.toml:2: suite"),
        ('files = [{ source = "nothing", target = "/x" }]\n', "there is no file"),
        ('files = [{ source = "r.toml", target = "x" }]\n', "'x' is not a place in the image"),
        ('files = [{ source = "r.toml", target = "/../x" }]\n', "is not a place in the image"),
        ('files = [{ source = "r.toml", target = "/x", mode = "9" }]\n', "'9' is not a file mode"),
        ('guest = "windows"\n', "guest"),
        ("disk = 5\n", "disk"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(ImageError) as caught:
        read_recipe(str(tmp_path / "r.toml"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_recipe_that_is_not_there() -> None:
    with pytest.raises(ImageError, match="did you mean 'thin'"):
        read_recipe("thn")

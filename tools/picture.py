"""Draws the README's picture of a run: ``python demo/run.py | python tools/picture.py docs/images/run.svg``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

_MOST_LINES = 40


def main() -> int:
    """Reads the demo's plain lines from standard input."""
    lines = [line.rstrip("\n") for line in sys.stdin if "plot  " not in line]
    if len(lines) > _MOST_LINES:  # every second look at the queue is enough
        looks = [number for number, line in enumerate(lines) if "workers:" in line]
        lines = [line for number, line in enumerate(lines) if number not in set(looks[1:-1:2])]
    console = Console(record=True, width=100, file=Path("/dev/null").open("w"))  # noqa: SIM115
    console.print(Text("$ make demo", style="bold"))
    for line in lines:
        text = Text(line)
        text.highlight_regex(r"\d+ running|\d+ done", "green")
        text.highlight_regex(r"\d+ waiting", "yellow")
        text.highlight_regex(r"workers: .*$", "cyan")
        console.print(text)
    drawing = console.export_svg(title="Gridtide")
    # The page that shows the picture must not fetch fonts from elsewhere.
    drawing = re.sub(r"@font-face\s*{.*?}\s*", "", drawing, flags=re.S)
    Path(sys.argv[1]).write_text(drawing, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

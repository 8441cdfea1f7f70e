"""How big and how tangled `src/gcnet` is: `python tests/test_house.py` prints counts, the test holds bounds."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

SRC = Path(__file__).parents[1] / "src" / "gcnet"

# Bounds, each inclusive; make them smaller when the house gets smaller. The first three have some room for a rebuild.
LINES = 24_000
FILES = 250
SHORT_FILES = 50
LONGEST_FILE = 300
LONG_FUNCTIONS = 6
PRIVATE = 3
TYPE_IGNORES = 27
CASTS = 6
BRANCHES = 4

SHORT, LONG = 40, 60  # lines of a short file and of a long function
# Lines that ask for a task or a kind of model.
BRANCH = re.compile(
    r'(==|!=|\bin|\bcase) \(?"(classify|detect|segment|instances|scenes)"|in DETECTION|\.detects\b'
    r"|\bspec(_of\([^)]*\))?\.name (==|!=|in|not in) "
    r"|(?<!def )(?<!import )\b(is_detector|task_of)\(|isinstance\(.*(GeneralizedRCNNTransform|_DETECTORS)\)"
    r'|hasattr\(model, "trace"\)|"(objects|box_AP|per_class)" in '
)
# Private by name, public by what they are: methods of named tuples.
NAMED_TUPLE = ("_replace", "_asdict", "_fields", "_make")


def texts() -> dict[str, str]:
    """The content of each file, by its path below `src/gcnet`."""
    return {path.relative_to(SRC).as_posix(): path.read_text(encoding="utf-8") for path in sorted(SRC.rglob("*.py"))}


def matches(pattern: str | re.Pattern[str]) -> list[str]:
    """The lines that a pattern is found in, without doctests, as "file:number"."""
    return [
        f"{name}:{number}"
        for name, text in texts().items()
        for number, line in enumerate(text.splitlines(), 1)
        if re.search(pattern, line) and not line.lstrip().startswith((">>>", "..."))
    ]


def long_functions() -> dict[str, tuple[int, int]]:
    """Functions of more than LONG lines: how many, and how many without their docstring."""
    found = {}
    for name, text in texts().items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                first = node.body[0]
                documented = ast.get_docstring(node) is not None
                docstring = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
                if lines > LONG:
                    found[f"{name}:{node.name}"] = lines, lines - docstring
    return found


def private_accesses() -> list[str]:
    """Lines that reach into another object: `x._y` where x is not self, cls or super(), as "file:number"."""
    return sorted({f"{name}:{line}" for name, text in texts().items() for line in _private_lines(ast.parse(text))})


def _private_lines(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or not re.match(r"_[a-z]", node.attr) or node.attr in NAMED_TUPLE:
            continue  # a class with an underscore is torch's
        owner = node.value
        of_super = isinstance(owner, ast.Call) and isinstance(owner.func, ast.Name) and owner.func.id == "super"
        if not of_super and not (isinstance(owner, ast.Name) and owner.id in ("self", "cls")):
            yield node.lineno


def counts() -> dict[str, tuple[int, int, str]]:
    """What is counted: its value, its bound, and what to look at."""
    lines = {name: text.count("\n") for name, text in texts().items()}
    short = [name for name, count in lines.items() if count < SHORT]
    longest = max(lines, key=lambda name: lines[name])
    inits = sum(name.endswith("__init__.py") for name in short)
    long, private = long_functions(), private_accesses()
    bare = sum(without > LONG for _, without in long.values())
    return {
        "lines": (sum(lines.values()), LINES, ""),
        "files": (len(lines), FILES, ""),
        f"files under {SHORT} lines": (len(short), SHORT_FILES, f"{inits} of them __init__.py"),
        "longest file": (lines[longest], LONGEST_FILE, longest),
        f"functions over {LONG} lines": (len(long), LONG_FUNCTIONS, f"{bare} without docstrings: {', '.join(long)}"),
        "lines with private accesses": (len(private), PRIVATE, ", ".join(private)),
        "type: ignore": (len(matches(r"type: ignore")), TYPE_IGNORES, ""),
        "cast(": (len(matches(r"\bcast\(")), CASTS, ""),
        "branches on a task or a kind of model": (len(matches(BRANCH)), BRANCHES, ", ".join(matches(BRANCH))),
    }


def test_the_house_stays_within_its_bounds():
    too_much = {name: entry for name, entry in counts().items() if entry[0] > entry[1]}
    assert not too_much


if __name__ == "__main__":
    for name, (value, bound, note) in counts().items():
        print(f"{name:38} {value:7,} (at most {bound:,})  {note}".rstrip())  # noqa: T201

#!/usr/bin/env python3
"""Writes docs/plugin-reference.md from the comments of the headers.      plugin-api/reference.py [--check]"""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
INCLUDE = ROOT / "plugin-api" / "include" / "heal"
TARGET = ROOT / "docs" / "plugin-reference.md"


def c_header(text):
    """Conventions as they stand; then each struct, macro and extension with the comment before it."""
    conventions = re.search(r"Conventions, which every version.*?(?=\*/)", text, re.S).group()
    yield "## heal/abi.h: conventions\n"
    for number, words in re.findall(r"(\d+)\. (.*?)(?=\n \* +\d+\. |\Z)", conventions, re.S):
        yield f"{number}. " + " ".join(line.strip(" *") for line in words.splitlines())
    yield "\n## heal/abi.h: declarations\n"
    for comment, code in re.findall(r"/\*((?:(?!\*/).)*)\*/\s*\n(typedef struct.*?^\} \w+;|typedef [^\n]*;)", text, re.S | re.M):
        name = re.search(r"(\w+);$", code).group(1) if code.startswith("typedef struct") else re.search(r"\(\*(\w+)\)", code).group(1)
        yield f"### {name}\n\n" + " ".join(line.strip(" *") for line in comment.strip().splitlines()) + f"\n\n```c\n{code}\n```\n"
    yield "### Statuses and levels\n\n```c\n" + "\n".join(re.findall(r"^#define HEAL_(?!ABI|EXPORT|ENTRY|EXT)\w+ \d.*$", text, re.M)) + "\n```\n"


def cpp_header(name, text):
    """Each `///` block with the declaration it stands over, shortened to its head."""
    yield f"## heal/{name}\n"
    lines, at = text.splitlines(), 0
    scope = ""
    while at < len(lines):
        line = lines[at]
        if (opened := re.match(r"(?:class|struct|enum class) (\w+)", line)) and line.rstrip().endswith("{"):
            scope = opened.group(1)
        if line.startswith("}"):
            scope = ""
        if not line.strip().startswith("/// "):
            at += 1
            continue
        comment = []
        while lines[at].strip().startswith("///"):
            comment.append(lines[at].strip()[3:].strip())
            at += 1
        head = []
        while at < len(lines) and len(head) < 6:
            head.append(lines[at].strip())
            at += 1
            if re.search(r"[{;]\s*(///<.*)?$", head[-1]) or "{" in head[-1]:
                break
        declaration = re.sub(r"\s*(\{.*|///<.*)$", "", " ".join(head)).rstrip(";")
        name_now = re.match(r"(?:class|struct|enum class) (\w+)", declaration)
        yield f"- **`{(scope + ': ') if scope and not name_now else ''}{declaration}`** {' '.join(comment)}"
        if name_now and "{" in " ".join(head):
            scope = name_now.group(1)
    yield ""


def main():
    parts = ["# Reference of the plugin border\n\nMade from the headers by `plugin-api/reference.py`; change them, not this. How to use it: [plugin-guide.md](plugin-guide.md).\n"]
    parts += c_header((INCLUDE / "abi.h").read_text())
    for name in ("sdk.hpp", "sdk_fake.hpp"):
        parts += cpp_header(name, (INCLUDE / name).read_text())
    text = "\n".join(parts).rstrip() + "\n"
    if "--check" in sys.argv:
        if not TARGET.exists() or TARGET.read_text() != text:
            print("docs/plugin-reference.md is out of date; run plugin-api/reference.py")
            return 1
        return 0
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""Builds engine/fingerprint/model.bin: which words are literal text of messages, and after which words arguments stand.

  build_model.py --packages DIR --out model.bin [--hold-out N] [--hold-out-strings FILE]

DIR holds one folder per unpacked package (dpkg -x); packages.txt beside this file lists name and version of each one used.
Read are message catalogs (.mo), strings of executables and libraries, string constants of Python, Perl and Ruby sources and
of Java classes. --hold-out N leaves out every N-th package (by hash of its name) and writes its format strings to FILE.
Python >= 3.8, standard library only. The output depends on the input alone.
"""
import argparse
import collections
import io
import math
import os
import pickle
import re
import struct
import sys
import zipfile
import zlib

MASK = (1 << 64) - 1
LOW = 0x2020202020202020
SLOTS = 1 << 18
WORD, AFTER, AFTER_TWO, PAIR, KIND = 0x1111, 0x2222, 0x3333, 0x4444, 0x5555  # kinds of entries; model.cpp has the same
# Kinds of things that log messages name: behind such a noun stands its name, or text that the pairs know.
KINDS = set("""account acl action address agent application attribute backend backup binding bridge broker bucket bundle campaign category cell channel
chart cluster codec collection column command component connector consumer container controller coordinator customer database dataset datasource
datastore deployment device disk domain encoding endpoint entity environment event exchange executor extension feature field file filter flag
folder font function gateway group handler host hostname image index instance interface job kernel key keyspace label library listener locale member
merchant method metric module mount namespace network node option organisation organization package parameter partition path peer pipeline player
plugin pod policy pool port principal printer process producer product profile program project property protocol provider publisher queue realm
region release replica repo repository resource role route router rule schema scope secret segment sensor server service servlet session setting shard
share site slot snapshot socket stage strategy subscriber subscription subsystem supplier symbol table tablespace tag task team template tenant
theme thread token topic translator tunnel type unit upstream user username variable vendor view vhost vlan volume watcher widget worker workflow
workspace zone""".split())
ARGUMENT = "\x01"
NUMBER = "\x02"
FORMAT = re.compile(
    r"%[-+ #0]*[\d*]*(?:\.[\d*]+)?(?:hh|h|ll|l|z|j|t|q|L)?([diouxXeEfgGcspvqTmr@])"
    r"|%\((\w+)\)[-\d.]*([sdrfi])|%[<{](\w+)[}>]|(\{[\w.!:]{0,20}\})|\$\{?([A-Za-z_]\w*)\}?|#\{[^}]{1,40}\}")
TOKEN = re.compile(r"[\x01\x02]|[A-Za-z\x80-\xff][A-Za-z_.\-\x80-\xff]*[A-Za-z\x80-\xff]|[A-Za-z\x80-\xff]|\s+|.", re.S)
WORDLIKE = re.compile(r"[A-Za-z]{2,}.*\s|\s.*[A-Za-z]{2,}")


def two_zeros():
    return [0, 0]


def fold_multiply(a, b):
    product = a * b
    return (product & MASK) ^ (product >> 64)


def folded_hash(word):
    data = word.encode("latin-1", "replace")
    h = 0x9E3779B97F4A7C15 ^ len(data)
    while len(data) > 8:
        h = fold_multiply(h ^ (int.from_bytes(data[:8], "little") | LOW), 0xA0761D6478BD642F)
        data = data[8:]
    return fold_multiply(h ^ (int.from_bytes(data, "little") | LOW), 0xE7037ED1A0B428DB) | 1


def pair_hash(a, b):
    return fold_multiply(a ^ 0x589965CC75374CC3, b)


def entry_hash(h, kind):
    return fold_multiply(h ^ kind, 0x9FB21C651E98DF25)


def catalog(data):
    if len(data) < 28 or data[:4] != b"\xde\x12\x04\x95":
        return
    count, table = struct.unpack_from("<2I", data, 8)
    for i in range(min(count, 200000)):
        length, offset = struct.unpack_from("<2I", data, table + 8 * i)
        for part in data[offset:offset + length].split(b"\x04")[-1].split(b"\0"):
            yield part.decode("latin-1")


def executable(data):
    for match in re.finditer(rb"[\t\n\x20-\x7e]{6,400}", data):
        yield match.group().decode("latin-1")


def source(data):
    text = data.decode("latin-1")
    for match in re.finditer(r'"((?:[^"\\\n]|\\.){6,300})"|\'((?:[^\'\\\n]|\\.){6,300})\'', text):
        tail = text[match.end():match.end() + 3]
        string = match.group(1) or match.group(2)
        yield string + (ARGUMENT if string[-1:] in " :=" and tail.strip()[:1] in ("+", ".", ",") else "")


def java_class(data):
    if data[:4] != b"\xca\xfe\xba\xbe":
        return
    count, p, i = struct.unpack_from(">H", data, 8)[0], 10, 1
    sizes = {7: 2, 8: 2, 16: 2, 19: 2, 20: 2, 15: 3, 3: 4, 4: 4, 9: 4, 10: 4, 11: 4, 12: 4, 17: 4, 18: 4, 5: 8, 6: 8}
    while i < count and p < len(data):
        tag = data[p]
        if tag == 1:
            length = struct.unpack_from(">H", data, p + 1)[0]
            string = data[p + 3:p + 3 + length].decode("latin-1").replace("\x01", ARGUMENT)
            # A constant that ends in a blank is the left side of a concatenation.
            yield string + (ARGUMENT if string[-1:] in (" ", "=") and len(string) > 4 else "")
            p += 3 + length
        elif tag in sizes:
            p += 1 + sizes[tag]
            i += tag in (5, 6)
        else:
            return
        i += 1


def strings_of(folder):
    for root, dirs, files in os.walk(folder):
        dirs.sort()
        for name in sorted(files):
            path = os.path.join(root, name)
            if os.path.islink(path) or os.path.getsize(path) > 60 << 20:
                continue
            if "/locale/" in path and not (name.endswith(".mo") and ("/de/" in path or "/fr/" in path)):
                continue
            with open(path, "rb") as f:
                data = f.read()
            if name.endswith(".mo"):
                yield from catalog(data)
            elif data[:4] == b"\x7fELF":
                yield from executable(data)
            elif name.endswith((".py", ".pl", ".pm", ".rb", ".js", ".php")) or data[:2] == b"#!":
                yield from source(data)
            elif name.endswith((".jar", ".war")):
                try:
                    archive = zipfile.ZipFile(io.BytesIO(data))
                    for member in sorted(archive.namelist()):
                        if member.endswith(".class"):
                            yield from java_class(archive.read(member))
                except (zipfile.BadZipFile, zlib.error, NotImplementedError):
                    pass


def with_arguments(string):
    def kind(match):
        conversion = match.group(1) or match.group(3)
        return NUMBER if conversion and conversion in "diouxXeEfgGcp" else ARGUMENT
    return FORMAT.sub(kind, string)


def is_message(string):
    return bool(WORDLIKE.search(string)) and sum(c.isalpha() or c in " \x01\x02" for c in string) * 10 >= len(string) * 7


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--packages", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--hold-out", type=int, default=0)
    ap.add_argument("--hold-out-strings")
    ap.add_argument("--dump")
    ap.add_argument("--counts", help="keep the counts in this file, and read them from it when it is there")
    a = ap.parse_args()
    if a.counts and os.path.exists(a.counts):
        with open(a.counts, "rb") as f:
            words, pairs, after, after_two, held = pickle.load(f)
    else:
        words, pairs, after, after_two, held = count(a)
        if a.counts:
            with open(a.counts, "wb") as f:
                pickle.dump((words, pairs, dict(after), dict(after_two), held), f)
    write(a, words, pairs, after, after_two, held)


def count(a):
    seen = set()
    words, pairs = collections.Counter(), collections.Counter()
    after = collections.defaultdict(two_zeros)
    after_two = collections.defaultdict(two_zeros)
    held = {}
    for package in sorted(os.listdir(a.packages)):
        out = a.hold_out and zlib.crc32(package.encode()) % a.hold_out == 0
        mine = set()
        for string in strings_of(os.path.join(a.packages, package)):
            string = with_arguments(string.strip("\n"))
            if not is_message(string) or len(string) > 400:
                continue
            if out:
                if ARGUMENT in string or NUMBER in string:
                    held.setdefault(string, package)
                continue
            key = zlib.crc32(string.encode("latin-1", "replace")) << 32 | zlib.adler32(string.encode("latin-1", "replace"))
            if key in seen:
                continue
            seen.add(key)
            previous = before = None
            glue = " "
            for token in TOKEN.findall(string):
                if token.isspace():
                    continue
                if token in (ARGUMENT, NUMBER):
                    if token == ARGUMENT and previous is not None:
                        after[previous, glue][0] += 1
                        if before is not None:
                            after_two[before, previous, glue][0] += 1
                    previous = before = None
                    glue = " "
                elif token[0].isalpha():
                    word = token.lower()
                    mine.add(word)
                    if previous is not None:
                        after[previous, glue][1] += 1
                        if before is not None:
                            after_two[before, previous, glue][1] += 1
                        pairs[previous, word] += 1
                    before, previous, glue = previous, word, " "
                else:
                    glue = token
                    if token in ".!?;":
                        previous = before = None
                        glue = " "
            for word in mine:
                words[word] += 1
            mine.clear()
    print(f"{len(seen)} strings, {len(words)} words", file=sys.stderr)
    return words, pairs, after, after_two, held


def write(a, words, pairs, after, after_two, held):
    entries = {}

    def put(h, kind, value):
        entries.setdefault(entry_hash(h, kind), value)

    def odds(counts):
        return max(1, min(15, round(8 + 2 * math.log2((counts[0] + 0.5) / (counts[1] + 0.5)))))

    glues = {" ", ":", "(", "[", ","}
    for word, n in sorted(words.items()):
        if n >= 3 and len(word) <= 40:
            put(folded_hash(word), WORD, min(15, 1 + int(math.log2(n) * 1.25)))
    for word in sorted(KINDS):
        put(folded_hash(word), KIND, 1)
    strong = set()
    for (word, glue), counts in sorted(after.items()):
        # Nouns that name a kind of thing are followed by its name, or by text that the pairs know.
        value = max(odds(counts), 5 if glue == " " and word in KINDS else 0)
        if glue in glues and (counts[0] >= 4 or glue == " " and word in KINDS) and value >= 5 and word not in ("the", "a", "an", "and", "is", "or", "not", "error"):
            put(folded_hash(word) ^ ord(glue), AFTER, value)
            if glue == " ":
                strong.add(word)
    for (before, word, glue), counts in sorted(after_two.items()):
        if glue in glues and counts[0] + counts[1] >= 4 and counts[0] >= 2 and word in strong and odds(counts) >= 6:
            put(pair_hash(folded_hash(before), folded_hash(word)) ^ ord(glue), AFTER_TWO, odds(counts))
    for (previous, word), n in sorted(pairs.items()):
        if words[word] >= 3 and (previous in KINDS or n >= 2 and previous in strong):
            put(pair_hash(folded_hash(previous), folded_hash(word)), PAIR, min(15, n))
    print(f"{len(entries)} entries", file=sys.stderr)
    # Fullest use of the table: rare pairs go first when it would be more than 80 % full.
    table = [0] * SLOTS
    used = 0
    for h, value in sorted(entries.items()):
        if used >= SLOTS * 0.85:
            print("the table is full: raise the limits of the counts", file=sys.stderr)
            break
        slot = h & (SLOTS - 1)
        while table[slot]:
            slot = (slot + 1) & (SLOTS - 1)
        table[slot] = (h >> 36) << 4 & 0xFFFFFFFF | value
        used += 1
    with open(a.out, "wb") as f:
        f.write(struct.pack(f"<{SLOTS}I", *table))
    if a.hold_out_strings:
        with open(a.hold_out_strings, "w", encoding="latin-1", errors="replace") as f:
            for string, package in sorted(held.items()):
                f.write(package + "\t" + string.replace("\n", " ").replace("\t", " ") + "\n")
    if a.dump:
        with open(a.dump, "w") as f:
            for (word, glue), counts in sorted(after.items(), key=lambda x: -x[1][0])[:3000]:
                f.write(f"{word}\t{glue}\t{counts}\t{odds(counts)}\n")


if __name__ == "__main__":
    main()

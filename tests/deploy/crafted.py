"""Changes one thing in a packaged release, and seals it again so that nothing else is wrong with it:
crafted.py FOLDER CASE. Without arguments it prints the cases, each with what scripts/verify-dist has to say.
"""

import gzip
import hashlib
import io
import json
import pathlib
import sys
import tarfile

SUMS = "SHA256SUMS"
# The chart has another file of this name, with templates.
VALUES = "epp-wasm/values.yaml"


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def one(folder, pattern):
    [found] = folder.glob(pattern)
    return found


def seal(folder):
    """Writes the digests of the files as they are into the statement and the sums."""
    statement = one(folder, "*.intoto.json")
    others = sorted(file for file in folder.iterdir() if file.is_file() and file.name not in (statement.name, SUMS))
    value = json.loads(statement.read_text())
    value["subject"] = [{"name": file.name, "digest": {"sha256": sha256(file.read_bytes())}} for file in others]
    statement.write_text(json.dumps(value))
    write_sums(folder)


def write_sums(folder):
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name != SUMS)
    (folder / SUMS).write_text("".join(f"{sha256(file.read_bytes())}  {file.name}\n" for file in files))


def sums(change):
    def case(folder):
        lines = (folder / SUMS).read_text().splitlines()
        (folder / SUMS).write_text("\n".join(change(lines)) + "\n")
    return case


def chart(change, behind=b"", form=tarfile.USTAR_FORMAT):
    """Changes the chart's entries, a list of header and content."""
    def case(folder):
        file = one(folder, "epp-wasm-*.tgz")
        entries = []
        with tarfile.open(file) as tar:
            entries = [(entry, tar.extractfile(entry).read()) for entry in tar.getmembers()]
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=form) as tar:
            for entry, content in change(entries):
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        file.write_bytes(gzip.compress(out.getvalue() + behind))
        seal(folder)
    return case


def values(change):
    def of(entries):
        return [(entry, change(content.decode()).encode() if entry.name == VALUES else content)
                for entry, content in entries]
    return chart(of)


def entry(name, content=b"x", kind=tarfile.REGTYPE):
    made = tarfile.TarInfo(name)
    made.type = kind
    made.linkname = "/etc/passwd" if kind == tarfile.SYMTYPE else ""
    return made, content


def commented(text):
    line = next(line for line in text.splitlines() if line.startswith("image: "))
    other = line.partition("@sha256:")[0] + "@sha256:" + 64 * "1"
    return text.replace(line, f"{other}\n# {line}\nnote: |\n  {line}")


def with_image(folder):
    """Adds a blob to the image that nothing refers to."""
    file = one(folder, "epp-wasm-*-image.tar")
    with tarfile.open(file, "a", format=tarfile.USTAR_FORMAT) as tar:
        made, content = entry("blobs/sha256/" + sha256(b"x"))
        made.size = len(content)
        tar.addfile(made, io.BytesIO(content))
    seal(folder)


def in_image(old, new):
    """Replaces a text in the image of the dynamic module, and then the digests of the blobs that it changes."""
    def case(folder):
        file = one(folder, "libepp-*-image.tar")
        with tarfile.open(file) as tar:
            contents = {entry.name: tar.extractfile(entry).read() for entry in tar.getmembers()}
        changes = [(old, new)]
        for before, after in changes:
            for name in [name for name, content in contents.items() if before in content]:
                content = contents.pop(name).replace(before, after)
                if name.startswith("blobs/"):
                    changes.append((name.rpartition("/")[2].encode(), sha256(content).encode()))
                    name = "blobs/sha256/" + sha256(content)
                contents[name] = content
        with tarfile.open(file, "w", format=tarfile.USTAR_FORMAT) as tar:
            for name, content in contents.items():
                made, content = entry(name, content)
                made.size = len(content)
                tar.addfile(made, io.BytesIO(content))
        seal(folder)
    return case


def with_module(folder):
    """Changes a dynamic module's last byte."""
    file = one(folder, "libepp-*-arm64-linux.so")
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    seal(folder)


def without_module(folder):
    one(folder, "libepp-*-arm64-linux.so").unlink()
    seal(folder)


def statement(change):
    def case(folder):
        file = one(folder, "*.intoto.json")
        file.write_text(change(file.read_text()))
        write_sums(folder)
    return case


def subject_twice(text):
    value = json.loads(text)
    value["subject"].append(value["subject"][0])
    return json.dumps(value)


def without_toolchain(text):
    value = json.loads(text)
    toolchains = value["predicate"]["buildDefinition"]["internalParameters"]["toolchains"]
    toolchains["aarch64-unknown-linux-gnu"] = []
    return json.dumps(value)


def more(name, make=lambda path: path.write_text("x")):
    def case(folder):
        make(folder / name)
        seal(folder)
    return case


CASES = {
    "sealed again": (seal, ""),
    "sum twice": (sums(lambda lines: lines + lines[:1]), "stands there twice"),
    "two sums of a file": (sums(lambda lines: lines + ["0" * 64 + lines[0][64:]]), "stands there twice"),
    "sum of a file elsewhere": (sums(lambda lines: lines + ["0" * 64 + "  ../release"]), "expected a SHA-256"),
    "sum of an absolute file": (sums(lambda lines: lines + ["0" * 64 + "  /etc/passwd"]), "expected a SHA-256"),
    "sum in a comment": (sums(lambda lines: ["# " + lines[0]] + lines[1:]), "expected a SHA-256"),
    "short sum": (sums(lambda lines: [lines[0][1:]] + lines[1:]), "expected a SHA-256"),
    "no sum": (sums(lambda lines: lines[1:]), "not in SHA256SUMS"),
    "no last line end": (lambda folder: (folder / SUMS).write_text((folder / SUMS).read_text()[:-1]), "does not end"),
    "unknown file": (more("notes.txt"), "not the files of a release: notes.txt"),
    "hidden file": (more(".notes"), ".notes"),
    "folder": (more("notes", pathlib.Path.mkdir), "notes: not a file"),
    "link": (more("notes", lambda path: path.symlink_to(SUMS)), "notes: not a file"),
    "image's digest in a comment": (values(commented), "names another image"),
    "two images": (values(lambda text: text + "'image': oci://a@sha256:" + 64 * "1" + "\n"), "2 lines with image"),
    "no values": (chart(lambda entries: [one for one in entries if one[0].name != VALUES]), "values.yaml is missing"),
    "entry twice": (chart(lambda entries: entries + entries[-1:]), "stands there twice"),
    "entry outside": (chart(lambda entries: entries + [entry("epp-wasm/../../notes")]), "points outside"),
    "entry above": (chart(lambda entries: entries + [entry("../notes")]), "points outside"),
    "absolute entry": (chart(lambda entries: entries + [entry("/notes")]), "points outside"),
    "entry beside": (chart(lambda entries: entries + [entry("notes")]), "contains other files"),
    "sparse entry": (chart(lambda entries: entries + [entry("epp-wasm/a", b"", tarfile.GNUTYPE_SPARSE)]), "no plain file"),
    "linked entry": (chart(lambda entries: entries + [entry("epp-wasm/a", b"", tarfile.SYMTYPE)]), "no plain file"),
    "extended header": (chart(lambda entries: entries + [entry("epp-wasm/" + 300 * "a")], form=tarfile.PAX_FORMAT),
                        "no plain file"),
    "GNU's header": (chart(lambda entries: entries, form=tarfile.GNU_FORMAT), "no plain file"),
    "GNU's long name": (chart(lambda entries: entries + [entry("././@LongLink", b"epp-wasm/a\0", tarfile.GNUTYPE_LONGNAME),
                                                         entry("epp-wasm/b")]), "no plain file"),
    "hidden behind": (chart(lambda entries: entries, behind=b"x" * 512), "behind its last file"),
    "blob of nothing": (with_image, "contains other files"),
    "patched dynamic module": (with_module, "arm64-linux.so: its stamp has the digest"),
    "index for another processor": (in_image(b'"architecture": "arm64", "os"', b'"architecture": "riscv64", "os"'),
                                    "is for linux/amd64, linux/riscv64, not linux/amd64, linux/arm64"),
    "image for another processor": (in_image(b'"architecture": "arm64", "config"', b'"architecture": "riscv64", "config"'),
                                    "an image for linux/arm64 says that it is for linux/riscv64"),
    "no dynamic module": (without_module, "arm64-linux.so"),
    "no toolchain": (statement(without_toolchain), "names no compiler for aarch64-unknown-linux-gnu"),
    "toolchain of nothing": (statement(lambda text: text.replace('"aarch64-unknown-linux-gnu": [', '"elsewhere": [')),
                             "names the toolchains of other files"),
    "subject twice": (statement(subject_twice), "stands there twice"),
    "key twice": (statement(lambda text: text.replace("{", '{"_type": "x", ', 1)), "stands there twice"),
}

if __name__ == "__main__":
    if len(sys.argv) == 1:
        print(json.dumps({name: words for name, (_, words) in CASES.items()}))
    else:
        CASES[sys.argv[2]][0](pathlib.Path(sys.argv[1]))

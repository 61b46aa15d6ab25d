"""Prove that no image stops a command: mutated files, hand-made nasties, and lines with every fault of real data.

    .venv/bin/python scripts/prove_hostile.py --mutations 10000

Writes seeded mutations (flipped bits, cut ends, spliced files, edited headers) of drawn images in four formats, and a
collection made by hand, and sends all of them through `check` and `inspect`. No traceback may appear, every file must
have exactly one row, memory must not grow with their number. Then deep images against their 8-bit twins, eight EXIF
orientations and lossless formats against each other, and lines with unreadable files, an empty class, a class that only
the target has, 1:500 imbalance and duplicates across lines: each must be named, none may stop a run. Prints a JSON
object a finding and closes with `N passed, N failed`.
"""

import argparse
import csv
import io
import json
import os
import shutil
import struct
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from measured import Measured, steelshift
from steelshift.data.camera import SHIFTS
from steelshift.data.synthetic import CLASSES, draw, write_lines

PARTS = (
    "mutations", "nasties", "deep_images", "orientations_and_formats", "faulty_lines", "folders", "archives", "soak",
)  # fmt: skip
GROWTH = 50.0
"""Megabytes that ten times as many files may cost."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--folders", type=int, default=1000, help="spoilt inspector folders")
    parser.add_argument("--soak", type=int, default=100_000, help="images of the long run")
    parser.add_argument("--run", type=Path, default=None, help="a run to use instead of training one")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=None, help="folder to work in; a temporary one by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        proof = Proof(options.work or Path(temporary), options.seed, options.run)
        given = {"mutations": (options.mutations,), "folders": (options.folders,), "soak": (options.soak,)}
        for part in options.only:
            getattr(proof, part)(*given.get(part, ()))
    print(f"{proof.passed} passed, {proof.failed} failed")
    return 1 if proof.failed else 0


class Proof:
    def __init__(self, work: Path, seed: int, run: Path | None = None) -> None:
        self.work = work
        self.seed = seed
        self.passed = self.failed = 0
        write_lines(work / "lines", shift=SHIFTS["mild"], images=84, seed=seed)
        self.source, self.target, self.run = work / "lines" / "source", work / "lines" / "target", work / "run"
        if run is not None:
            self.run = run.resolve()
            return
        small = ("--size", 64, "--steps", 60, "--pretrain-steps", 60, "--batch", 16, "--no-oracle")
        fitted = steelshift("fit", "--source", self.source, "--target", self.target, "--out", self.run, *small)
        assert fitted.code == 0, fitted.err

    def mutations(self, count: int) -> None:
        rng = np.random.default_rng(self.seed)
        originals = victims(rng)
        peaks = {}
        for share, folder in ((10, self.work / "tenth"), (1, self.work / "mutated")):
            folder.mkdir()
            for number in range(count // share):
                (folder / f"{number:06d}.png").write_bytes(mutated(originals[number % len(originals)], originals, rng))
            out = self.work / f"{folder.name}.csv"
            inspected = steelshift("inspect", self.run, folder, "--out", out)
            checked = steelshift("check", "--source", self.source, "--target", folder, "--json")
            self._judge(f"inspect {count // share} mutations", inspected, _one_row_each(out, folder))
            known = json.loads(checked.out)["target"] if checked.code == 0 else {"images": 0, "unreadable": []}
            found = known["images"] + len(known["unreadable"])
            self._judge(f"check {count // share} mutations", checked, found == count // share)
            peaks[folder.name] = {"inspect": inspected.peak_mb, "check": checked.peak_mb}
        for command in ("inspect", "check"):
            grown = peaks["mutated"][command] - peaks["tenth"][command]
            self._say(grown < GROWTH, f"memory of {command}", grown_mb=round(grown, 1), most_mb=GROWTH)

    def nasties(self) -> None:
        folder = self.work / "nasties"
        made = nasties(np.random.default_rng(self.seed))
        for name, content in made.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (folder / "dangling.png").symlink_to(folder / "absent.png")
        (folder / "a folder.png").mkdir()
        out = self.work / "nasties.csv"
        inspected = steelshift("inspect", self.run, folder, "--out", out)
        self._judge(f"inspect {len(made) + 1} made by hand", inspected, _one_row_each(out, folder))
        checked = steelshift("check", "--source", self.source, "--target", folder, "--json")
        known = json.loads(checked.out)["target"] if checked.code == 0 else {"images": 0, "unreadable": []}
        wanted = len(made) + 1
        self._judge("check those", checked, known["images"] + len(known["unreadable"]) == wanted)

    def deep_images(self, count: int = 200) -> None:
        """12 and 16 bit images against their 8-bit twins: same class (off ties), p within .02.

        Real images where STEELSHIFT_DATA has NEU-CLS, else drawn ones; between two grey levels they are random.
        """
        real = sorted(Path(os.environ.get("STEELSHIFT_DATA", "absent"), "NEU-CLS").rglob("*.*"))
        real = [path for path in real if path.suffix.lower() in (".png", ".bmp")][:: max(1, len(real) // count)][:count]
        folder = self.work / "deep"
        folder.mkdir()
        rng = np.random.default_rng(self.seed + 1)
        for number in range(count):
            if number < len(real):
                with Image.open(real[number]) as image:
                    grey = np.asarray(image.convert("L")).astype(np.float64)
            else:
                grey = draw(CLASSES[number % len(CLASSES)], rng)[0].astype(np.float64)
            finer = np.clip(grey + rng.uniform(-0.5, 0.5, grey.shape), 0, 255)
            for bits in (12, 16):
                values = np.rint(finer / 255 * (2**bits - 1)).astype(np.uint16)
                (folder / f"{number:03d}-{bits}.png").write_bytes(_encoded(values, "PNG"))
            (folder / f"{number:03d}-08.png").write_bytes(_encoded(np.rint(finer).astype(np.uint8), "PNG"))
        out = self.work / "deep.jsonl"
        steelshift("inspect", self.run, folder, "--out", out)
        rows = {Path(row["path"]).stem: row for row in map(json.loads, out.read_text(encoding="utf-8").splitlines())}
        wrong, largest, spread = 0, 0.0, np.std([row["p"] for row in rows.values()])
        for number in range(count):
            twin = rows[f"{number:03d}-08"]
            for bits in (12, 16):
                row = rows[f"{number:03d}-{bits}"]
                largest = max(largest, abs(row["p"] - twin["p"]))
                tie = twin["margin"] < 0.02
                wrong += (row["class"] != twin["class"] and not tie) or row["bit_depth"] != bits
        self._say(
            wrong == 0 and largest < 0.02,
            f"{2 * count} deep images",
            real=len(real),
            other_class=wrong,
            largest_dp=round(largest, 5),
            sd_of_p=round(float(spread), 3),
        )

    def orientations_and_formats(self) -> None:
        """The same picture in eight EXIF orientations and three lossless formats: one score."""
        folder = self.work / "orientations"
        folder.mkdir()
        upright = draw("scratches", np.random.default_rng(self.seed))[0][:, :150]
        stored = {
            1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.T,
            6: np.rot90(upright), 7: upright[::-1, ::-1].T, 8: np.rot90(upright, -1),
        }  # fmt: skip
        for orientation, pixels in stored.items():
            exif = Image.Exif()
            exif[0x0112] = orientation
            (folder / f"{orientation}.png").write_bytes(_encoded(np.ascontiguousarray(pixels), "PNG", exif=exif))
        for kind in ("BMP", "TIFF"):
            (folder / f"{kind}.x").write_bytes(_encoded(np.ascontiguousarray(upright), kind))
        out = self.work / "orientations.jsonl"
        steelshift("inspect", self.run, folder, "--out", out)
        rows = list(map(json.loads, out.read_text(encoding="utf-8").splitlines()))
        scores = {(row["class"], row["p"], row["width"], row["height"]) for row in rows}
        self._say(len(scores) == 1 and len(rows) == 10, "orientations and lossless formats", scores=len(scores))

    def faulty_lines(self) -> None:
        """Faults of real data, all in one pair of lines."""
        source, target = self.work / "faulty" / "source", self.work / "faulty" / "target"
        shutil.copytree(self.source, source)
        shutil.copytree(self.target, target)
        rng = np.random.default_rng(self.seed)
        for line in (source, target):
            files = sorted(line.rglob("*.png"))
            for path in rng.choice(files, len(files) // 20, replace=False):
                path.write_bytes(path.read_bytes()[:300])  # one in twenty cannot be read
        shutil.rmtree(target / "crazing")  # a class that the target lacks
        (source / "qualified" / "Thumbs.db").write_bytes(b"not an image")
        for number in range(500):  # the rest is one in five hundred
            Image.fromarray(draw("qualified", rng, size=64)[0]).save(source / "qualified" / f"more-{number}.png")
        for extra in sorted((source / "pitting").iterdir())[1:]:
            extra.unlink()
        (target / "rust").mkdir()  # a class that only the target has
        for number in range(6):
            Image.fromarray(draw("patches", rng, size=64)[0]).save(target / "rust" / f"{number}.png")
        for path in sorted((source / "scratches").glob("*.png"))[:3]:
            shutil.copy(path, target / "scratches" / f"copy-{path.name}")
        lines = ("--source", source, "--target", target)
        checked = steelshift("check", *lines, "--json")
        self._judge("check of faulty lines", checked, True)
        found = " ".join(json.loads(checked.out)["findings"]) if checked.code == 0 else ""
        for fault, words in {
            "unreadable files": "damaged or cut short", "class that the target lacks": "crazing",
            "class that only the target has": "rust", "rare class": "pitting", "duplicates across": "both lines",
        }.items():  # fmt: skip
            self._say(words in found, f"{fault}: named", words=words)
        small = ("--size", 64, "--steps", 20, "--pretrain-steps", 20, "--batch", 16, "--no-equal-numbers")
        fitted = steelshift("fit", *lines, "--out", self.work / "faulty-run", *small, "--json")
        self._judge("fit of faulty lines", fitted, "unreadable" in fitted.err or "cannot" in fitted.err)

    def folders(self, count: int) -> None:
        """Spoilt inspector folders: refused with code 4 and a sentence; with sums made right again, nothing runs."""
        import contextlib

        from steelshift.cli import main as command
        from steelshift.errors import ArtifactRefused
        from steelshift.inspection import inspector
        from steelshift.inspection.sums import write_sums

        rng, canary, spoilt = np.random.default_rng(self.seed), self.work / "fired", self.work / "spoilt"
        image = next(self.target.rglob("*.png"))
        codes: dict[int, int] = {}
        unclear = taken = refused = 0
        for number in range(count):
            shutil.rmtree(spoilt, ignore_errors=True)
            shutil.copytree(inspector.place_of(self.run), spoilt)
            victims = sorted(path for path in spoilt.rglob("*") if path.is_file())
            path = victims[int(rng.integers(len(victims)))]
            others = [each.read_bytes()[:5000] for each in victims]
            pickled = b"cos\nsystem\n(S'touch " + str(canary).encode() + b"'\ntR."
            before = path.read_bytes()
            path.write_bytes(pickled if number % 5 == 0 else mutated(before, others, rng))
            if path.read_bytes() == before:
                path.unlink()
            said = io.StringIO()
            with contextlib.redirect_stderr(said):
                code = command(["inspect", str(spoilt), str(image), "--out", str(self.work / "spoilt.csv")])
            codes[code] = codes.get(code, 0) + 1
            unclear += code == 4 and (len(said.getvalue().strip().splitlines()) != 1 or "Traceback" in said.getvalue())
            if number % 10 == 0 and path.name != "SHA256SUMS":  # who spoils a folder can also write its sums anew
                write_sums(spoilt)
                try:
                    inspector.load(spoilt)
                    taken += 1
                except ArtifactRefused:
                    refused += 1
        right = codes == {4: count} and not unclear and not canary.exists() and not (self.work / "spoilt.csv").exists()
        self._say(right, f"{count} spoilt inspector folders", codes=codes, unclear=unclear, canaries=canary.exists(),
                  with_right_sums={"refused": refused, "taken": taken})  # fmt: skip

    def archives(self) -> None:
        """Names, links, bombs and broken ends in archives: nothing is written but the table and what lies beside it."""
        sandbox = self.work / "sandbox"
        outside, inside = sandbox / "outside", sandbox / "inside"
        outside.mkdir(parents=True)
        inside.mkdir()
        (outside / "kept.png").write_bytes(b"mine")
        made = hostile_archives(inside, outside, _encoded(draw("patches", np.random.default_rng(0))[0], "PNG"))
        before = _tree(sandbox)
        wrong, rows = [], 0
        for path in made:
            out = sandbox / "out"
            out.mkdir()
            more = ("--heatmaps", "all", "--review-dir", out / "review") if "one" not in path.name else ()
            done = steelshift("inspect", self.run, path, "--out", out / "a.jsonl", *more)
            found = (out / "a.jsonl").read_text(encoding="utf-8").splitlines() if done.code == 0 else []
            rows += len(found)
            strays = [name for name in _tree(out) if name.parts[0] not in ("a.jsonl", "a-heatmaps", "review")]
            shutil.rmtree(out)
            if done.code or "Traceback" in done.err or not found or strays or _tree(sandbox) != before:
                wrong.append(path.name)
        self._say(not wrong and len(made) >= 60, f"{len(made)} hostile archives", rows=rows, wrong=wrong[:5])

    def soak(self, count: int) -> None:
        """Many images in one process: memory and open files stay flat."""
        images = sorted(self.target.rglob("*.png"))[:80]
        folder = self.work / "soak"
        folder.mkdir()
        for path in images:
            shutil.copy(path, folder / f"{path.parent.name}-{path.name}")
        many = [folder] * (count // len(images))
        trace: list[tuple[float, float, int]] = []
        done = steelshift("inspect", self.run, *many, "--out", self.work / "soak.jsonl", trace=trace)
        later = [each for each in trace if each[0] > trace[-1][0] / 3] if trace else []
        seconds, held, files = (np.array(column) for column in zip(*later, strict=True))
        slope = np.polyfit(seconds, held, 1)[0] * (seconds[-1] - seconds[0]) / (2 / 3 * count) * 10_000
        self._say(
            done.code == 0 and slope < 1 and files.max() - files.min() <= 4, f"{count} images in one process",
            mb_per_10000=round(float(slope), 3), open_files=[int(files.min()), int(files.max())],
            images_per_second=round(len(many) * len(images) / done.seconds, 1),
        )  # fmt: skip

    def _judge(self, what: str, run: Measured, right: bool) -> None:
        quiet = "Traceback" not in run.err and "Warning" not in run.err
        self._say(
            run.code == 0 and quiet and right, what, exit=run.code, seconds=round(run.seconds, 1), mb=round(run.peak_mb)
        )
        if not quiet or run.code:
            print(run.err[-2000:], file=sys.stderr)

    def _say(self, right: bool, what: str, **figures: object) -> None:
        self.passed, self.failed = self.passed + right, self.failed + (not right)
        print(json.dumps({"finding": what, "right": bool(right), **figures}), flush=True)


def _tree(folder: Path) -> dict[Path, tuple[int, int]]:
    """Files and links below a folder with size and time of change."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_symlink() or path.is_file():
            status = path.lstat()
            found[path.relative_to(folder)] = (status.st_size, status.st_mtime_ns)
    return found


def hostile_archives(folder: Path, outside: Path, image: bytes) -> list[Path]:
    """Archives that want to write to `outside`, or to fill the memory or the disk."""
    import tarfile

    target = str(outside / "kept.png")
    names = [
        "../outside/kept.png", "../../outside/kept.png", target, "//" + target, "a/../../outside/kept.png",
        "..\\outside\\kept.png", "C:\\kept.png", "\\\\host\\share\\kept.png", "kept.png\0.txt", "./../outside/kept.png",
        "a/./b/../../../outside/kept.png", "%2e%2e/outside/kept.png", "..%2foutside%2fkept.png", "\u2025/kept.png",
        "\uff0e\uff0e/outside/kept.png", "CON", "nul.png", "aux.png/x.png", "kept.png.", "kept.png ", "KEPT.png",
        "kept.PNG",
        "x" * 300 + ".png", "/".join("d" * 100), "", " ", ".", "..", "\u202egnp.exe", "a\nb.png", "=cmd()|x", "-rf.png",
    ]  # fmt: skip
    made = []

    def name_of(kind: str) -> Path:
        made.append(folder / f"{len(made):03d} {kind}")
        return made[-1]

    for name in names:
        with zipfile.ZipFile(name_of("name.zip"), "w") as archive:
            entry = zipfile.ZipInfo("x")
            entry.filename = name
            archive.writestr(entry, image)
        if name:
            with tarfile.open(name_of("name.tar.gz"), "w:gz") as archive:
                entry = tarfile.TarInfo(name.replace("\0", ""))
                entry.size = len(image)
                archive.addfile(entry, io.BytesIO(image))
    links = ((tarfile.SYMTYPE, target), (tarfile.LNKTYPE, target), (tarfile.SYMTYPE, ".."), (tarfile.FIFOTYPE, ""),
             (tarfile.CHRTYPE, ""), (tarfile.SYMTYPE, "/etc/passwd"))  # fmt: skip
    for kind, link in links:
        with tarfile.open(name_of("link.tar"), "w") as archive:
            entry = tarfile.TarInfo("dir")
            entry.type, entry.linkname = kind, link
            archive.addfile(entry)
            entry = tarfile.TarInfo("dir/kept.png")  # through the link
            entry.size = len(image)
            archive.addfile(entry, io.BytesIO(image))
    with zipfile.ZipFile(name_of("link.zip"), "w") as archive:
        entry = zipfile.ZipInfo("link.png")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, target)
    for level in (1, 9):
        with zipfile.ZipFile(name_of("bomb one.zip"), "w", zipfile.ZIP_DEFLATED, compresslevel=level) as archive:
            for number in range(8):
                with archive.open(f"{number}.png", "w") as file:
                    for _ in range(60):
                        file.write(bytes(1 << 20))
    with tarfile.open(name_of("bomb one.tar.xz"), "w:xz") as archive:
        entry = tarfile.TarInfo("x.png")
        entry.size = 600 << 20
        archive.addfile(entry, _Zeros())
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.png", bytes(1 << 24))
    with zipfile.ZipFile(name_of("nested.zip"), "w") as archive:
        archive.writestr("inner.zip", inner.getvalue())
    with zipfile.ZipFile(name_of("many one.zip"), "w") as archive:
        for number in range(100_001):
            archive.writestr(f"{number}", b"")
    whole = made[0].read_bytes()
    for kind, content in {
        "cut.zip": whole[:-30], "empty.zip": b"", "noise.zip": bytes(range(256)) * 40,
        "cut.tar.gz": made[1].read_bytes()[:-60],
        "empty.tar": b"", "noise.tgz": b"\x1f\x8b" + bytes(500), "other.zip": image, "other.tar": image,
    }.items():  # fmt: skip
        name_of(kind).write_bytes(content)
    return made


class _Zeros(io.RawIOBase):
    def read(self, size: int = -1) -> bytes:
        return bytes(size)


def victims(rng: np.random.Generator) -> list[bytes]:
    """Drawn images in four formats, one and three channels, 8 and 16 bit."""
    found = [_encoded(draw(name, rng)[0], kind) for name in CLASSES[:4] for kind in ("PNG", "JPEG", "BMP", "TIFF")]
    found += [_encoded(np.stack([draw("patches", rng)[0]] * 3, 2), kind) for kind in ("PNG", "JPEG")]
    found += [_encoded(draw("scratches", rng)[0].astype(np.uint16) * 257, kind) for kind in ("PNG", "TIFF")]
    return found


def mutated(content: bytes, others: list[bytes], rng: np.random.Generator) -> bytes:
    """One of four ways to spoil a file."""
    way, data = rng.integers(4), bytearray(content)
    if way == 0:  # flipped bits
        for place in rng.integers(0, len(data), rng.integers(1, 30)):
            data[place] ^= 1 << int(rng.integers(8))
    elif way == 1:  # cut
        del data[int(rng.integers(0, len(data))) :]
    elif way == 2:  # two files in one
        other = others[int(rng.integers(len(others)))]
        data = data[: int(rng.integers(1, len(data)))] + other[int(rng.integers(0, len(other))) :]
    else:  # edited header
        for place in rng.integers(0, min(64, len(data)), rng.integers(1, 8)):
            data[place] = int(rng.integers(256))
    return bytes(data)


def nasties(rng: np.random.Generator) -> dict[str, bytes]:
    """Files by name that real folders and bad people hold."""
    grey = draw("patches", rng)[0]
    colour = np.stack([grey, grey // 2, 255 - grey], 2)
    found = {
        "empty.png": b"",
        "text.png": b"this is no image\n" * 30,
        "one byte.jpg": b"\xff",
        "page.svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        "script.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) print\n",
        "bomb 64 MP.png": flat_png(8_000),
        "bomb 400 MP.png": flat_png(20_000),
        "bomb 10 GP.png": flat_png(100_000, 10),
        "zip first.png": _zip() + _encoded(grey, "PNG"),
        "zip behind.png": _encoded(grey, "PNG") + _zip(),
        "half.jpg": _encoded(grey, "JPEG")[:2_000],
        "half.bmp": _encoded(grey, "BMP")[:9_000],
        "header only.png": _encoded(grey, "PNG")[:33],
        "header only.jpg": _encoded(grey, "JPEG")[:20],
        "16 bit.png": _encoded(grey.astype(np.uint16) * 257, "PNG"),
        "12 bit.tif": _encoded(grey.astype(np.uint16) * 16, "TIFF"),
        "32 bit.tif": _encoded(grey.astype(np.int32) * 70_000, "TIFF"),
        "float.tif": _encoded(grey / np.float32(255), "TIFF"),
        "nan.tif": _encoded(np.full((20, 20), np.nan, np.float32), "TIFF"),
        "cmyk.jpg": _encoded(Image.fromarray(colour).convert("CMYK"), "JPEG"),
        "cmyk.tif": _encoded(Image.fromarray(colour).convert("CMYK"), "TIFF"),
        "rgba.png": _encoded(Image.fromarray(colour).convert("RGBA"), "PNG"),
        "la.png": _encoded(Image.fromarray(grey).convert("LA"), "PNG"),
        "palette.png": _encoded(Image.fromarray(colour).convert("P"), "PNG", transparency=3),
        "one bit.png": _encoded(Image.fromarray(grey).convert("1"), "PNG"),
        "lab.tif": _encoded(Image.fromarray(colour).convert("LAB"), "TIFF"),
        "ycc.jpg": _encoded(colour, "JPEG", quality=5),
        "progressive.jpg": _encoded(colour, "JPEG", progressive=True),
        "1 x 1.png": _encoded(grey[:1, :1], "PNG"),
        "1 x 60000.png": _encoded(np.zeros((60_000, 1), np.uint8), "PNG"),
        "60000 x 1.png": _encoded(np.zeros((1, 60_000), np.uint8), "PNG"),
        "2 x 20000.png": _encoded(np.zeros((20_000, 2), np.uint8), "PNG"),
        "animated.png": _frames(grey, "PNG"),
        "pages.tif": _frames(grey, "TIFF"),
        "animated.gif": _frames(grey, "GIF"),
        "black.png": _encoded(np.zeros((90, 90), np.uint8), "PNG"),
        "white.png": _encoded(np.full((90, 90), 255, np.uint8), "PNG"),
        "broken exif.jpg": _encoded(grey, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12"),
        "huge exif.jpg": _encoded(grey, "JPEG", exif=b"Exif\0\0" + b"\xff" * 60_000),
        "no suffix": _encoded(grey, "PNG"),
        "wrong suffix.jpg": _encoded(grey, "BMP"),
        "缺陷 图像.png": _encoded(grey, "PNG"),
        'quote" , comma;\nnew line.png': _encoded(grey, "PNG"),
        "=cmd()|' 'A0.png": _encoded(grey, "PNG"),
        "deep/er/est/x.png": _encoded(grey, "PNG"),
        "x" * 200 + ".png": _encoded(grey, "PNG"),
    }
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        found[f"orientation {orientation}.jpg"] = _encoded(grey, "JPEG", exif=exif)
    return found


def _encoded(pixels: np.ndarray | Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, kind, **options)
    return file.getvalue()


def _frames(grey: np.ndarray, kind: str) -> bytes:
    others = [Image.fromarray(np.roll(grey, shift, 0)) for shift in (20, 40, 60)]
    return _encoded(Image.fromarray(grey), kind, save_all=True, append_images=others)


def flat_png(side: int, rows: int | None = None) -> bytes:
    """A black square of few bytes; `rows` of it are there."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    content = zlib.compress(b"\0" * (side // 8 + 1) * (rows or side), 9)
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("../../outside.txt", "hello")
    return file.getvalue()


def _one_row_each(table: Path, folder: Path) -> bool:
    """Whether every file of a folder has exactly one row."""
    if not table.exists():
        return False
    with table.open(encoding="utf-8", newline="") as file:
        named = sorted(row["path"] for row in csv.DictReader(file))
    return named == sorted(str(path) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())


if __name__ == "__main__":
    sys.exit(main())

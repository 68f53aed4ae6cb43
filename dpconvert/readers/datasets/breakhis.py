"""BreaKHis: images at four magnifications in one folder per slide; the five official folds in tables beside them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Literal

from dpconvert.card import Model
from dpconvert.errors import ReadError
from dpconvert.plural import counted
from dpconvert.readers.fakes import FakeTree, Pixels
from dpconvert.readers.layout_keys import layout_of
from dpconvert.source.files import Source
from dpconvert.source.record import SourceImage

CLASSES = {"B": "benign", "M": "malignant"}
TYPES = {
    "A": "adenosis",
    "F": "fibroadenoma",
    "PT": "phyllodes_tumor",
    "TA": "tubular_adenoma",
    "DC": "ductal_carcinoma",
    "LC": "lobular_carcinoma",
    "MC": "mucinous_carcinoma",
    "PC": "papillary_carcinoma",
}
FAKE = """B-A-22549AB B-A-22549CD B-F-14134 B-F-14134E B-PT-21998AB B-TA-3411F B-TA-4659 B-F-25197
    M-DC-13412 M-LC-13412 M-DC-2523 M-LC-12204 M-MC-10147 M-PC-9146 M-DC-17915"""  # class, type, slide


class Layout(Model):
    """`[layout]` of the manifest. type: the short name of a tumour type in file names; patient: with its letters."""

    label: Literal["class", "type"] = "class"
    group: Literal["number", "patient"] = "number"
    magnifications: list[str] = ["40", "100", "200", "400"]
    types: list[str] = list(TYPES)


def images(source: Source) -> Iterator[SourceImage]:
    folds, layout = _folds(source), layout_of(source.manifest, Layout)
    found = sorted(source.need("images"), key=lambda found: found["name"])
    found = [one for one in found if one["magnification"] in layout.magnifications and one["type"] in layout.types]
    for image in found:
        about = {
            "magnification": f"{image['magnification']}X",
            "tumour_type": TYPES[image["type"]],
            "patient": image["patient"],
        }
        about |= folds.get(image["name"], {})
        label = CLASSES[image["class"]] if layout.label == "class" else image["type"]
        yield SourceImage(image["name"], (image.name,), image[layout.group], label=label, attributes=about)
    unlisted = sum(image["name"] not in folds for image in found)
    if not folds:
        source.notes.append("the official folds are missing: to read them, unpack mkfold.tar.gz beside the images")
    elif unlisted:
        source.notes.append(f"{counted(unlisted, 'image')} in none of the official folds")


def _folds(source: Source) -> dict[str, dict[str, str]]:
    """Image -> fold1 to fold5 -> train or test, of lines <image>.png|<magnification>|<fold>|<set>."""
    folds: dict[str, dict[str, str]] = defaultdict(dict)
    for table in source.match("folds"):
        for line, text in enumerate(source.read(table.name).decode("utf-8-sig", "replace").splitlines(), start=1):
            cells = text.strip().split("|")
            if len(cells) == 4 and cells[2] == table["fold"] and cells[3] in ("train", "test"):
                folds[cells[0].removesuffix(".png")][f"fold{table['fold']}"] = cells[3]
            elif text.strip():
                raise ReadError(
                    f"line {line} is not a line of fold {table['fold']}",
                    where=table.name,
                    expected="<image>.png|<magnification>|<fold>|train or test",
                    found=repr(text)[:60],
                )
    return dict(folds)


def fake(tree: FakeTree) -> None:
    slides = [tuple(slide.split("-")) for slide in FAKE.split()]
    names = []
    twice = [_source_image(tree, 3) for _ in range(4)]
    for kind, of, slide in slides:
        folder = f"BreaKHis_v1/histology_slides/breast/{CLASSES[kind]}/SOB/{TYPES[of]}/SOB_{kind}_{of}_14-{slide}"
        for at, magnification in enumerate((40, 100, 200, 400)):
            name = f"SOB_{kind}_{of}-14-{slide}-{magnification}-{at + 1:03}.png"
            pixels = twice[at] if slide == "13412" else _source_image(tree, 3 * (kind == "M"))
            tree.save(f"{folder}/{magnification}X/{name}", pixels)
            names.append((name, magnification, slide))
    numbers = [slide for _, _, slide in slides]
    for fold in range(1, 6):
        sets = {slide: "test" if at % 5 == fold - 1 else "train" for at, slide in enumerate(numbers)}
        lines = [f"{name}|{magnification}|{fold}|{sets[slide]}" for name, magnification, slide in names]
        tree.write(f"mkfold/dsfold{fold}.txt", "\r\n".join(lines) + "\r\n")


def _source_image(tree: FakeTree, look: int) -> Pixels:
    """Of the real size, at a fraction of the bytes."""
    return tree.image(350, 230, look).repeat(2, axis=0).repeat(2, axis=1)

"""The public sources: exact counts from real labels on blank images, layouts as users have them, agreeing splits."""

from __future__ import annotations

import csv
import os
import shutil
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from dpconvert.errors import SourceError
from dpconvert.manifest.catalog import find, known, load
from dpconvert.plan import plan
from dpconvert.plan.options import Options
from dpconvert.plan.plan_rows import Plan
from dpconvert.readers.fakes import draw_fake
from dpconvert.runtime.progress import Reporter
from dpconvert.shards.encode import Encoder
from dpconvert.source.files import Source
from tests.dpconvert.conftest import Converted

REAL = Path(__file__).parents[3] / "shared" / "data"
Lay = Callable[[str, tuple[int, int]], None]


def real(folder: str) -> Path:
    """A folder of real labels; the test is skipped where it is not."""
    path = REAL / folder
    if not path.exists():
        pytest.skip(f"needs {path}")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a test lays out its source."""
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


@pytest.fixture
def lay(tmp_path: Path, folder: Path) -> Lay:
    """`lay(name, (width, height))` puts a blank image into `folder`: hard links to one of each size and kind."""

    def put(name: str, size: tuple[int, int]) -> None:
        blank = tmp_path / f"{size[0]}x{size[1]}{Path(name).suffix}"
        if not blank.exists():
            options = {"compression": "tiff_lzw"} if blank.suffix.startswith(".tif") else {}
            Image.new("RGB", size).save(blank, **options)
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(blank, folder / name)

    return put


def planned(name: str, folder: Path, split: str = "strict", errata: str = "default") -> Plan:
    """The plan of a source, made in this process."""
    manifest = find(name)
    options = Options.model_validate({"split": split, "errata": errata})
    return plan.make(Source.open(folder, manifest), options, 1, Reporter(quiet=True))


def sizes(made: Plan) -> dict[str, int]:
    return dict(Counter(row.split for row in made.rows))


def classes(made: Plan) -> list[int]:
    counts = Counter(row.label for row in made.rows)
    return [counts[label] for label in range(len(made.classes))]


def samples(made: Plan) -> list[tuple[object, ...]]:
    """What a plan says apart from where its files lie."""
    return [(row.key, row.split, row.label, row.group, row.box, row.stored) for row in made.rows]


def check_expected(name: str, split: str, made: Plan) -> None:
    """The counts are those that the manifest promises of the whole release."""
    expected = find(name).expected
    assert len(made.rows) == expected.total
    assert expected.classes in (None, classes(made))
    assert {k: n for k, n in getattr(expected, split).items() if n} == sizes(made)


both_splits = pytest.mark.parametrize("split", ["strict", "paper"])
one_split = pytest.mark.parametrize("split", ["strict", pytest.param("paper", marks=pytest.mark.stress)])


def lay_tupac(lay: Lay, folder: Path, cases: range) -> None:
    """Blank images of some cases with their real points, as TUPAC16's archives unpack."""
    with (real("tupac16") / "images.csv").open() as table:
        for row in csv.DictReader(table):
            if int(row["case"]) in cases:
                name = f"mitoses_image_data_part_1/{row['case']}/{row['image']}.tif"
                lay(name, (int(row["width"]), int(row["height"])))
    (folder / "mitoses_ground_truth").symlink_to(real("tupac16") / "mitoses_ground_truth")


@pytest.mark.real
@one_split
def test_janowczyk5_has_the_paper_s_counts_and_sets(split: str, lay: Lay, folder: Path) -> None:
    lay_tupac(lay, folder, range(1, 13))
    made = planned("janowczyk5", folder, split)
    assert sizes(made) == {"train": 16560, "val": 4551, "test": 3759}
    assert classes(made) == [19370, 5500]


@pytest.mark.real
@pytest.mark.stress  # the first 12 of these 73 cases are those of test_janowczyk5
@both_splits
def test_tupac_has_the_counts_that_its_points_give(split: str, lay: Lay, folder: Path) -> None:
    lay_tupac(lay, folder, range(1, 74))
    made = planned("tupac16-mitosis", folder, split)
    assert classes(made) == [61533, 15520]
    check_expected("tupac16-mitosis", split, made)
    groups = {row.group for row in made.rows}
    assert groups == {f"amida13:{case:02}" for case in range(1, 74)}


@pytest.mark.real
@both_splits
def test_janowczyk7_has_the_paper_s_count(split: str, lay: Lay, folder: Path) -> None:
    lists = (real("janowczyk") / "7-lymphoma" / "models").glob("*_parent_*.txt")
    for name in sorted({line for path in lists for line in path.read_text().split()}):
        lay(name, (1388, 1040))
    (folder / "FL" / ".DS_Store").touch()
    made = planned("janowczyk7", folder, split)
    assert len(made.rows) == 2244
    check_expected("janowczyk7", split, made)
    assert len({row.group for row in made.rows}) == 29


@both_splits
def test_bach_has_the_paper_s_counts_and_groups(split: str, lay: Lay, folder: Path) -> None:
    for letters, label in (("n", "Normal"), ("b", "Benign"), ("is", "InSitu"), ("iv", "Invasive")):
        for number in range(1, 101):
            lay(f"ICIAR2018_BACH_Challenge/Photos/{label}/{letters}{number:03}.tif", (2048, 1536))
    made = planned("bach18-micro", folder, split)
    check_expected("bach18-micro", split, made)
    assert sizes(made) == {"train": 2760, "val": 720, "test": 1320}
    photos = Counter(dict(sorted({(row.source_image, row.group) for row in made.rows})).values())
    assert len(photos) == 284
    assert photos["bach18-micro:14"] == 36
    patients = [group for group in photos if group.partition(":")[2].isdecimal()]
    assert (len(patients), sum(photos[group] for group in patients)) == (29, 145)


def test_a_bach_photo_in_the_wrong_folder_is_an_error(lay: Lay, folder: Path) -> None:
    lay("Photos/Normal/b001.tif", (512, 512))
    with pytest.raises(SourceError, match="name state different classes; expected Benign"):
        planned("bach18-micro", folder)


def test_janowczyk1_has_the_paper_s_count_of_141_images(lay: Lay, folder: Path) -> None:
    patients = [*range(9000, 9137), *range(9000, 9004)]
    for number, patient in enumerate(patients):
        lay(f"nuclei/{patient}_500_f{number:05}_original.tif", (2000, 2000))
        lay(f"nuclei/{patient}_500_f{number:05}_mask.png", (200, 200))
    for number in (141, 142):
        lay(f"nuclei/9200_500_f{number:05}_original.tif", (2000, 2000))
    made = planned("janowczyk1", folder, "paper")
    assert len(made.rows) == 31725
    assert sizes(made) == {"train": 17550, "val": 4500, "test": 9675}
    assert len({row.group for row in made.rows}) == 137
    assert any("left out: 2 images without a mask" in note for note in made.notes)


def test_janowczyk2_has_the_paper_s_count(lay: Lay, folder: Path) -> None:
    for number in range(42):
        lay(f"epi/{9000 + number}_{number:05}.tif", (1000, 1000))
        lay(f"epi/masks/{9000 + number}_{number:05}_mask.png", (100, 100))
    made = planned("janowczyk2", folder, "paper")
    check_expected("janowczyk2", "paper", made)
    assert len(made.rows) == 3402


@pytest.mark.real
def test_janowczyk2_reads_the_original_pair(folder: Path) -> None:
    for path in (real("janowczyk") / "2-epithelium").iterdir():
        shutil.copy(path, folder)
    made = planned("janowczyk2", folder)
    with Image.open(folder / "12947_00004_mask.png") as image:
        mask = np.asarray(image) > 127
    share = [mask[y : y + 200, x : x + 200].mean() for y in range(0, 801, 100) for x in range(0, 801, 100)]
    assert classes(made) == [sum(s <= 0.1 for s in share), sum(s > 0.1 for s in share)]
    assert {row.group for row in made.rows} == {"ccipd:12947"}


@pytest.mark.real
def test_mitos_aperio_labels_agree_with_the_paper_s_table(lay: Lay, folder: Path) -> None:
    points = {kind: read_mitos(kind) for kind in ("mitosis", "not_mitosis")}
    assert (len(points["mitosis"]), len(points["not_mitosis"])) == (749, 2884)
    tables = real("mitos_atypia14")
    frames = sorted(path.name.removesuffix("_mitosis.csv") for path in tables.glob("A*/mitosis/*[a-d]_mitosis.csv"))
    for frame in frames:
        lay(f"{frame[:3]}/frames/x40/{frame}.tiff", (1539, 1376))
    for slide in sorted({frame[:3] for frame in frames}):
        (folder / slide / "mitosis").symlink_to(tables / slide / "mitosis")
    made = planned("mitos-atypia14", folder)
    cells = {kind: {cell for at in found if (cell := mosaic_cell(*at))} for kind, found in points.items()}
    looks = len(cells["not_mitosis"] - cells["mitosis"])
    rest = 75 * 19 * 17 - looks - len(cells["mitosis"])
    assert len(frames) == 1200
    assert classes(made) == [looks, 7490, rest]
    other_scanner = 64873 - len(made.rows)  # of the paper's total: 75 mosaics of 20 x 18 tiles less some with mitoses
    assert 0.8 < (75 * 20 * 18 + 7490 - other_scanner) / len(cells["mitosis"]) < 1
    assert {row.group for row in made.rows} == {
        f"mitos-atypia14:{n:02}" for n in (3, 4, 5, 7, 10, 11, 12, 14, 15, 17, 18)
    }
    assert {row.columns for row in made.rows} == {4}


def read_mitos(kind: str) -> list[tuple[str, float, float]]:
    """(frame, x, y) of every point, read apart from the package."""
    found = []
    for path in sorted(real("mitos_atypia14").glob(f"A*/mitosis/*[a-d]_{kind}.csv")):
        for line in path.read_text().split("\n"):
            if line.strip():
                x, y, _ = line.split(",")
                found.append((path.name[:8], float(x), float(y)))
    return found


def mosaic_cell(frame: str, x: float, y: float) -> tuple[str, int, int] | None:
    """The 323 px cell of the x10 frame's mosaic that a point of an x40 frame lies strictly inside."""
    across = {"A": 0, "B": 2, "C": 0, "D": 2}[frame[6]] + {"a": 0, "b": 1, "c": 0, "d": 1}[frame[7]]
    down = {"A": 0, "B": 0, "C": 2, "D": 2}[frame[6]] + {"a": 0, "b": 0, "c": 1, "d": 1}[frame[7]]
    x, y = x + 1539 * across, y + 1376 * down
    inside = x % 323 and y % 323 and x < 19 * 323 and y < 17 * 323
    return (frame[:6], int(x // 323), int(y // 323)) if inside else None


@pytest.mark.real
def test_warwick_tiles_are_positive_where_a_nucleus_lies_inside(folder: Path) -> None:
    (folder / "release").symlink_to(real("warwick_crc") / "CRCHistoPhenotypes_2016_04_28")
    made = planned("warwick-crc", folder)
    positive = 0
    for path in (folder / "release" / "Classification").glob("*/*_inflammatory.mat"):
        points = scipy.io.loadmat(str(path))["detection"].reshape(-1, 2)
        positive += len({(x // 100, y // 100) for x, y in points if x % 100 and y % 100 and max(x, y) < 500})
    assert classes(made) == [1000 - positive, positive]
    assert len({row.group for row in made.rows}) == 40


@pytest.mark.real
@one_split
def test_umcm_has_the_paper_s_sets(split: str, folder: Path) -> None:
    for name in (real("kather2016") / "original_file_names.txt").read_text().split():
        path = folder / "Kather_texture_2016_image_tiles_5000" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    made = planned("umcm-colorectal", folder, split)
    check_expected("umcm-colorectal", split, made)
    test = Counter(row.label for row in made.rows if row.split == "test")
    assert [test[label] for label in range(8)] == [217, 270, 230, 131, 337, 199, 232, 35]


def test_stroma_takes_class_and_set_from_the_names(folder: Path) -> None:
    for name in ("0_1_Oncotex_str_train", "1_2_Oncotex_epi_valid_0", "0_3_test", "1_4_other"):
        (folder / f"{name}.png").touch()
    made = planned("stroma-lbp", folder)
    assert {row.key: (row.label, row.split) for row in made.rows if row.key != "1_4_other"} == {
        "0_1_oncotex_str_train": (0, "train"),
        "1_2_oncotex_epi_valid_0": (1, "val"),
        "0_3_test": (0, "test"),
    }


def test_janowczyk5_is_the_same_from_flat_files_and_from_folders(folder: Path, lay: Lay, tmp_path: Path) -> None:
    for number in (1, 2):
        lay(f"01_{number:02}.tif", (500, 500))
        lay(f"part_1/02/{number:02}.tif", (500, 500))
    truth = np.zeros((500, 500), np.uint8)
    truth[120:131, 300:311] = 255
    Image.fromarray(truth).save(folder / "01_01_pc.png")
    (folder / "truth" / "02").mkdir(parents=True)
    (folder / "truth" / "02" / "01.csv").write_text("125,305\n")
    made = planned("janowczyk5", folder)
    boxes = [{row.box[:2] for row in made.rows if row.group == f"amida13:{n}" and row.label == 0} for n in ("01", "02")]
    assert boxes[0] == boxes[1] == {(0, 0), (250, 0), (0, 250), (250, 250)}
    positive = [row for row in made.rows if row.label == 1]
    assert Counter(row.group for row in positive) == {"amida13:01": 10, "amida13:02": 10}
    assert all(row.box.x < 305 < row.box.x + 250 and row.box.y < 125 < row.box.y + 250 for row in positive)


def test_janowczyk5_without_any_truth_is_an_error(folder: Path, lay: Lay) -> None:
    lay("01_01.tif", (500, 500))
    with pytest.raises(SourceError, match="no tables or masks of mitoses were found"):
        planned("janowczyk5", folder)


def test_the_idc_archive_is_read_in_place_and_kaggle_s_copies_once(
    folder: Path, converted: Callable[[str], Converted]
) -> None:
    source = converted("janowczyk6").source
    in_zip = planned("janowczyk6", source)
    with zipfile.ZipFile(source / "IDC_regular_ps50_idx5.zip") as archive:
        archive.extractall(folder / "IDC_regular_ps50_idx5")
    shutil.rmtree(folder / "IDC_regular_ps50_idx5" / "IDC_regular_ps50_idx5")
    assert samples(in_zip) == samples(planned("janowczyk6", folder))
    assert any(note.startswith("40 files lie here twice") for note in in_zip.notes)


def test_idc_images_are_passed_through_whatever_their_size(converted: Callable[[str], Converted]) -> None:
    one = converted("janowczyk6")
    source = Source.open(one.source, one.manifest)
    made = planned("janowczyk6", one.source)
    encoder = Encoder(one.manifest, source, made.classes, one.manifest.image)
    found = [(row, encoder.sample(row)) for row in made.rows]
    assert all(sample.image == source.read(row.files[0]) for row, sample in found)
    assert {sample.metadata["width"] for _, sample in found} == {34, 50}


def test_an_idc_image_in_the_wrong_folder_is_an_error(folder: Path) -> None:
    (folder / "8863" / "1").mkdir(parents=True)
    (folder / "8863" / "1" / "8863_idx5_x1_y1_class0.png").touch()
    with pytest.raises(SourceError, match="name state different patients or classes"):
        planned("janowczyk6", folder)


def test_mitos_samples_carry_the_resolution_of_their_scanner(converted: Callable[[str], Converted]) -> None:
    one = converted("mitos-atypia14")
    made = planned("mitos-atypia14", one.source)
    rows = {row.attributes["scan"]: row for row in made.rows}
    encoder = Encoder(one.manifest, Source.open(one.source, one.manifest), made.classes, one.manifest.image)
    mpp = {scan: encoder.sample(row).metadata["mpp_read"] for scan, row in rows.items()}
    assert mpp == {"A03": 0.2455, "A04": 0.2455, "A05": 0.2455, "H03": 0.2274, "H04": 0.2274, "H05": 0.2274}


def test_mitos_frames_must_be_sixteen_with_their_tables(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(draw_fake(find("mitos-atypia14"), tmp_path / "fake"), folder, dirs_exist_ok=True)
    (folder / "A03" / "mitosis" / "A03_00Cb_not_mitosis.csv").unlink()
    with pytest.raises(SourceError, match=r"A03_00: no table for this frame; expected A03_00Cb_not_mitosis\.csv"):
        planned("mitos-atypia14", folder)
    (folder / "A03" / "frames" / "x40" / "A03_00Cb.tiff").unlink()
    with pytest.raises(SourceError, match="not the sixteen x40 frames; expected 16; found 15"):
        planned("mitos-atypia14", folder)


def camelyon_layouts(fake: Path, out: Path) -> Iterator[Path]:
    """Some slides of the fake in its own layout, in that of the bucket and in that of 2016."""
    slides = sorted(fake.glob("training/*/*_00[12].tif"))
    for layout, slide_name, outline_name in (
        ("drive", "CAMELYON16/training/{kind}/{}", "CAMELYON16/training/lesion_annotations/{}"),
        ("bucket", "images/{}", "annotations/{}"),
        ("2016", "Train_{kind}/{Name}", "Ground_Truth/XML/{Name}"),
    ):
        for slide in slides:
            kind = slide.name.partition("_")[0].title()
            name = out / layout / slide_name.format(slide.name, kind=kind, Name=slide.name.capitalize())
            name.parent.mkdir(parents=True, exist_ok=True)
            os.link(slide, name)
        with zipfile.ZipFile(fake / "training" / "lesion_annotations.zip") as archive:
            for member in archive.namelist():
                path = out / layout / outline_name.format(member, Name=member.capitalize())
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(archive.read(member))
        yield out / layout


def test_camelyon16_is_the_same_in_all_three_layouts(tmp_path: Path, converted: Callable[[str], Converted]) -> None:
    fake = converted("camelyon16").source
    found = []
    for layout in camelyon_layouts(fake, tmp_path):
        (layout / "masks").mkdir()
        (layout / "masks" / "tumor_001_mask.tif").touch()
        found.append(samples(planned("camelyon16", layout)))
    assert {row[3] for row in found[0]} == {f"camelyon16:{kind}_00{n}" for kind in ("normal", "tumor") for n in (1, 2)}
    assert found[0] == found[1] == found[2]


def test_camelyon16_keeps_only_tumour_of_slides_not_outlined_exhaustively(
    tmp_path: Path, converted: Callable[[str], Converted]
) -> None:
    fake = shutil.copytree(converted("camelyon16").source, tmp_path / "fake")
    (fake / "training" / "tumor" / "tumor_001.tif").rename(fake / "training" / "tumor" / "tumor_010.tif")
    shutil.copy(fake / "training" / "normal" / "normal_001.tif", fake / "training" / "normal" / "normal_086.tif")
    outlines = fake / "training" / "lesion_annotations.zip"
    with zipfile.ZipFile(outlines, "a") as archive:
        archive.writestr("tumor_010.xml", archive.read("tumor_001.xml"))
    found = {errata: planned("camelyon16", fake, errata=errata) for errata in ("default", "none")}
    labels = {errata: {(row.source_image, row.label) for row in made.rows} for errata, made in found.items()}
    assert labels["none"] - labels["default"] == {("tumor_010", 0), ("normal_086", 0)}
    assert ("tumor_010", 1) in labels["default"]


def test_a_plain_tar_is_read_in_place_and_a_compressed_one_out_of_a_cache(folder: Path, tmp_path: Path) -> None:
    fake = draw_fake(find("janowczyk7"), tmp_path)
    with tarfile.open(folder / "lymphoma.tar", "w") as archive:
        archive.add(fake, arcname=".")
    manifest = find("janowczyk7")
    source = Source.open(folder, manifest)
    name = next(name for name in source.sizes if name.endswith("001.tif"))
    assert source.read(name) == (fake / name.partition(".tar/")[2]).read_bytes()
    assert samples(planned("janowczyk7", folder)) == samples(planned("janowczyk7", fake))
    (folder / "lymphoma.tar").unlink()
    with tarfile.open(folder / "lymphoma.tar.gz", "w:gz") as archive:
        archive.add(fake, arcname=".")
    made = planned("janowczyk7", folder)
    assert samples(made) == samples(planned("janowczyk7", fake))
    assert "lymphoma.tar.gz is read from a copy that was unpacked into the cache (.dpconvert-cache" in "; ".join(
        made.notes
    )


def test_an_archive_left_beside_what_was_unpacked_from_it_counts_once(tmp_path: Path) -> None:
    fake = draw_fake(find("tupac16-mitosis"), tmp_path)
    before = samples(planned("tupac16-mitosis", fake))
    with zipfile.ZipFile(fake / "mitoses_ground_truth.zip") as archive:
        archive.extractall(fake / "mitoses_ground_truth")
    assert samples(planned("tupac16-mitosis", fake)) == before


RELATED = [("Janowczyk5", "TUPAC2016Mitosis"), ("Janowczyk1", "Janowczyk2", "Janowczyk6")]


@pytest.mark.parametrize("tasks", RELATED, ids="-".join)
def test_related_tasks_name_each_other_and_agree_on_every_group(
    tasks: tuple[str, ...], converted: Callable[[str], Converted]
) -> None:
    manifests = {(manifest := load(path)).task: manifest for path in known().values()}
    homes: dict[str, set[str]] = {}
    shared: Counter[str] = Counter()
    for task in tasks:
        assert set(manifests[task].related) == set(tasks) - {task}
        made = planned(manifests[task].name, converted(manifests[task].name).source)
        for row in made.rows:
            homes.setdefault(row.group, set()).add(row.split)
        shared.update({row.group for row in made.rows})
    assert [group for group, splits in homes.items() if len(splits) > 1] == []
    assert max(shared.values()) == len(tasks)


def test_tasks_of_one_namespace_have_one_strict_policy_for_the_groups_that_they_share() -> None:
    manifests = [load(path) for path in known().values()]
    by_namespace: dict[str, list[tuple[object, ...]]] = {}
    for manifest in manifests:
        policy = manifest.policy("strict")
        decides = policy.share if policy.draw == "hashed" else None
        named = {group: split for group, split in policy.named().items() if group in {f"{n:02}" for n in range(1, 13)}}
        if manifest.namespace in ("ccipd", "amida13"):
            by_namespace.setdefault(manifest.namespace, []).append((decides, named))
    assert len(by_namespace["ccipd"]) == 3
    assert len(by_namespace["amida13"]) == 2
    for policies in by_namespace.values():
        assert all(policy == policies[0] for policy in policies)

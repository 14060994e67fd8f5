import bz2
import fcntl
import gzip
import hashlib
import http.server
import io
import lzma
import struct
import sys
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from limbeck.components import Component
from limbeck.data.sources import open_source
from limbeck.data.sources.arrays import arrays
from limbeck.data.sources.cifar10 import cifar10
from limbeck.data.sources.fetch import fetch
from limbeck.data.sources.idx import idx
from limbeck.data.sources.images import image_folder
from limbeck.data.sources.source import Broken, Part
from limbeck.errors import DataError


def drawn(part: Part) -> list[Any]:
    return list(part.samples())


# image_folder


def png(shade: int, size: tuple[int, int] = (6, 4), mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size, shade if mode == "L" else (shade, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


SPLIT = {
    f"{which}/{label}/{i}.png": png(10 * i + len(label))
    for which in ("train", "test")
    for label in ("cat", "ox")
    for i in range(3)
}
FLAT = {name.removeprefix("train/"): content for name, content in SPLIT.items() if name.startswith("train/")}


def stored(place: Path, files: dict[str, bytes]) -> Path:
    """The same files as a folder, a .tar.gz or a .zip, by the place's name."""
    if place.suffix == ".gz":
        with tarfile.open(place, "w:gz") as tar:
            for name, content in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    elif place.suffix == ".zip":
        with zipfile.ZipFile(place, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        for name, content in files.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(content)
    return place


KINDS = ["pets", "pets.tar.gz", "pets.zip"]


@pytest.mark.parametrize("kind", KINDS)
def test_images_come_in_order_with_the_label_of_their_folder(tmp_path: Path, kind: str) -> None:
    source = image_folder(path=str(stored(tmp_path / kind, {f"pets/{name}": file for name, file in FLAT.items()})))
    assert (source.name, source.classes, source.test) == ("pets", ("cat", "ox"), None)
    assert source.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    images = drawn(source.train)
    assert {image.shape for image in images} == {(4, 6, 3)}
    assert [int(image[0, 0, 0]) for image in images] == [3, 13, 23, 2, 12, 22]


@pytest.mark.parametrize("kind", KINDS)
def test_folders_called_train_and_test_are_the_splits(tmp_path: Path, kind: str) -> None:
    source = image_folder(path=str(stored(tmp_path / kind, SPLIT)), color="grey", size=2)
    assert source.test is not None
    assert len(source.train.labels) == len(source.test.labels) == 6
    assert {image.shape for image in drawn(source.test)} == {(2, 2, 1)}


def test_a_second_pass_gives_the_same(tmp_path: Path) -> None:
    part = image_folder(path=str(stored(tmp_path / "pets.tar.gz", FLAT))).train
    assert all((one == two).all() for one, two in zip(drawn(part), drawn(part), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_image_keeps_its_place_and_says_why(tmp_path: Path, kind: str) -> None:
    broken = {**FLAT, "cat/1.png": FLAT["cat/1.png"][:40], "ox/0.png": b"no image"}
    images = drawn(image_folder(path=str(stored(tmp_path / kind, broken))).train)
    assert [type(image) is Broken for image in images] == [False, True, False, True, False, False]
    assert images[1].path == "cat/1.png"
    assert "cannot identify image file" in images[3].reason


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"readme.txt": b""}, "holds no .png or .jpg"),
        ({"1.png": png(1)}, "1.png lies in no class folder"),
        ({"train/cat/1.png": png(1), "ox/1.png": png(1)}, "has images in"),
        ({"train/cat/1.png": png(1), "test/ox/1.png": png(1)}, "no training image of ox, which test has"),
        ({"train/cat/1.png": png(1), "val/cat/2.png": png(1)}, "has images in train, val"),
        ({"cat/1.png": png(1), "cat/old/2.png": png(1), "ox/1.png": png(1)}, "cat/old/2.png lies deeper than"),
        ({"train/cat/1.png": png(1), "test/1.png": png(1)}, "test/1.png lies in no class folder"),
    ],
)
def test_another_layout_is_refused(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    with pytest.raises(DataError, match=message):
        image_folder(path=str(stored(tmp_path / "pets.zip", files)))


def test_images_of_several_sizes_need_one_given(tmp_path: Path) -> None:
    place = str(stored(tmp_path / "pets", {**FLAT, "ox/9.png": png(1, size=(9, 9))}))
    with pytest.raises(DataError, match=r"ox/9.png is 9x9, those before it are 6x4; give the data source a size"):
        drawn(image_folder(path=place).train)
    assert len(drawn(image_folder(path=place, size=4).train)) == 7


@pytest.mark.parametrize("kind", ["pets.tar.gz", "pets.zip"])
@pytest.mark.parametrize("name", ["../cat/1.png", "/cat/1.png", "cat/..\\..\\1.png"])
def test_a_member_that_points_out_of_its_archive_is_refused(tmp_path: Path, kind: str, name: str) -> None:
    with pytest.raises(DataError, match="points out of the archive, which cannot be trusted"):
        image_folder(path=str(stored(tmp_path / kind, {**FLAT, name: png(1)})))


def test_a_link_in_an_archive_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "pets.tar", "w") as tar:
        member = tarfile.TarInfo("cat/1.png")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(member)
    with pytest.raises(DataError, match="is a link"):
        image_folder(path=str(tmp_path / "pets.tar"))


@pytest.mark.parametrize("kind", ["pets.tar.gz", "pets.zip"])
def test_an_archive_that_is_cut_short_is_said(tmp_path: Path, kind: str) -> None:
    place = stored(tmp_path / kind, FLAT)
    place.write_bytes(place.read_bytes()[:-60])
    with pytest.raises(DataError, match=r"cannot be read|is no zip archive"):
        drawn(image_folder(path=str(place)).train)


@given(cut=st.integers(1, 6 * 1024 - 1), damaged=st.booleans())
def test_a_tar_that_ends_anywhere_before_its_mark_or_has_a_damaged_header_is_refused(cut: int, damaged: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = stored(Path(folder) / "pets.tar.gz", FLAT)
        content = bytearray(gzip.decompress(place.read_bytes()))[: 6 * 1024 + 512]  # a header and a block each; a mark
        if damaged:
            content[cut // 1024 * 1024 + cut % 512] ^= 0xFF
        else:
            del content[cut:]
        place = place.with_suffix("").with_suffix(".tar")
        place.write_bytes(content)
        with pytest.raises(DataError, match=r"cannot be read as .tar|points out of"):
            image_folder(path=str(place))


@pytest.mark.parametrize("suffix", [".tar", ".tar.bz2", ".tar.xz", ".tgz"])
def test_a_tar_may_be_compressed_in_any_way(tmp_path: Path, suffix: str) -> None:
    content = gzip.decompress(stored(tmp_path / "pets.tar.gz", FLAT).read_bytes())
    pack = {".tar": bytes, ".tar.bz2": bz2.compress, ".tar.xz": lzma.compress, ".tgz": gzip.compress}[suffix]
    (tmp_path / f"pets{suffix}").write_bytes(pack(content))
    assert len(drawn(image_folder(path=str(tmp_path / f"pets{suffix}")).train)) == 6


def test_a_damaged_member_of_a_zip_is_a_broken_image(tmp_path: Path) -> None:
    place = stored(tmp_path / "pets.zip", FLAT)
    content = bytearray(place.read_bytes())
    content[content.index(FLAT["cat/1.png"]) + 30] ^= 0xFF
    place.write_bytes(content)
    images = drawn(image_folder(path=str(place)).train)
    assert [image for image in images if isinstance(image, Broken)] == [
        Broken("cat/1.png", "Bad CRC-32 for file 'cat/1.png'")
    ]


def test_what_a_system_hides_beside_images_is_no_data(tmp_path: Path) -> None:
    rubbish = {"__MACOSX/cat/._1.png": b"", ".thumbnails/cat/1.png": png(1), "cat/.1.png": b"", "cat/notes.txt": b""}
    for kind in KINDS:
        source = image_folder(path=str(stored(tmp_path / kind, {**FLAT, **rubbish})))
        assert (source.classes, len(source.train.labels)) == (("cat", "ox"), 6)


def saved(image: Image.Image, kind: str, **more: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **more)
    return stream.getvalue()


def test_a_photograph_is_turned_as_its_camera_was_held_and_scaled(tmp_path: Path) -> None:
    photo = Image.new("RGB", (64, 32), "black")
    photo.paste("white", (0, 0, 32, 32))  # white on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: white on top
    place = stored(tmp_path / "photos", {"cat/1.jpg": saved(photo, "JPEG", exif=exif)})
    (image,) = drawn(image_folder(path=str(place), size=8, color="grey").train)
    assert image.shape == (8, 8, 1)
    assert image[:3].min() > 240
    assert image[5:].max() < 15


def test_images_with_a_palette_or_transparency_lose_it_and_16_bits_are_refused(tmp_path: Path) -> None:
    palette = Image.new("RGB", (6, 4), (200, 0, 0)).quantize(4)
    files = {
        "cat/palette.png": saved(palette, "PNG", transparency=b"\x00\x10"),
        "cat/see-through.png": saved(Image.new("RGBA", (6, 4), (200, 0, 0, 9)), "PNG"),
        "cat/wide.png": saved(Image.new("I;16", (6, 4), 40_000), "PNG"),
    }
    palette, see_through, wide = drawn(image_folder(path=str(stored(tmp_path / "pets", files))).train)
    assert (palette == [200, 0, 0]).all()
    assert (see_through == [200, 0, 0]).all()
    assert wide == Broken("cat/wide.png", "it has 16 bits per pixel; expected 8 per channel")


def test_images_of_many_chunks_come_in_order(tmp_path: Path) -> None:
    files = {f"{label}/{number:03}.png": png(number, mode="L") for label in ("cat", "ox") for number in range(100)}
    images = drawn(image_folder(path=str(stored(tmp_path / "pets", files)), color="grey").train)
    assert [int(image[0, 0, 0]) for image in images] == 2 * list(range(100))


def test_a_missing_folder_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIMBECK_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"pets is missing \(LIMBECK_DATA is .*\). Expected a folder"):
        image_folder(path="pets")
    with pytest.raises(DataError, match=r"pets is missing .* Ask Ann for them"):
        image_folder(path="pets", get="Ask Ann for them.")
    stored(tmp_path / "pets", FLAT)
    assert len(image_folder(path="pets").train.labels) == 6


# idx


def write_idx(folder: Path, which: str, images: np.ndarray, labels: list[int], compress: bool) -> None:
    for kind, values in (("images-idx3", images), ("labels-idx1", np.array(labels, np.uint8))):
        data = struct.pack(f">{1 + values.ndim}I", 8 << 8 | values.ndim, *values.shape) + values.tobytes()
        name = folder / f"{which}-{kind}-ubyte"
        name.with_name(name.name + ".gz").write_bytes(gzip.compress(data)) if compress else name.write_bytes(data)


@pytest.fixture(params=[True, False], ids=["gz", "plain"])
def family(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    images = np.arange(5 * 3 * 2, dtype=np.uint8).reshape(5, 3, 2)
    write_idx(tmp_path, "train", images, [0, 1, 0, 1, 0], request.param)
    write_idx(tmp_path, "t10k", images[:2] + 100, [1, 0], request.param)
    return tmp_path


def test_idx_files_hold_images_labels_and_a_test_split(family: Path) -> None:
    source = idx(folder=str(family), name="made", classes=("a", "b"))
    assert source.test is not None
    assert source.train.labels.tolist() == [0, 1, 0, 1, 0]
    assert (drawn(source.test)[0][..., 0] == [[100, 101], [102, 103], [104, 105]]).all()
    assert drawn(source.train)[0].shape == (3, 2, 1)


def test_a_missing_or_damaged_idx_file_is_named(family: Path) -> None:
    labels = next(family.glob("train-labels*"))
    content = labels.read_bytes()
    labels.write_bytes(b"junk and more of it")
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte(.gz)? (is no idx file|cannot be read)"):
        idx(folder=str(family), name="made", classes=("a", "b"))
    labels.write_bytes(content)
    for images in family.glob("t10k-images*"):
        images.unlink()
    with pytest.raises(DataError, match="holds no t10k-images-idx3-ubyte or t10k-images-idx3-ubyte.gz"):
        idx(folder=str(family), name="made", classes=("a", "b"))


@pytest.mark.parametrize("which", ["train-labels", "train-images"])
@pytest.mark.parametrize("change", [lambda content: content[:-3], lambda content: content + b"more"])
def test_an_idx_file_that_is_too_short_or_too_long_is_named(family: Path, which: str, change: Any) -> None:
    damaged = next(family.glob(f"{which}*"))
    damaged.write_bytes(change(damaged.read_bytes()))
    with pytest.raises(DataError, match=rf"{which}-.*(cannot be read|ends before|holds more)"):
        drawn(idx(folder=str(family), name="made", classes=("a", "b")).train)


def test_as_many_labels_as_images_are_expected(family: Path) -> None:
    write_idx(family, "train", np.zeros((4, 3, 2), np.uint8), [0, 1, 0], any(family.glob("*.gz")))
    with pytest.raises(DataError, match="holds 3 labels and .* 4 images; expected equal numbers"):
        idx(folder=str(family), name="made", classes=("a", "b"))


# arrays


X, Y = np.arange(12, dtype=np.float32).reshape(4, 3), np.array([0, 1, 1, 0])


def save(folder: Path, kind: str, **values: Any) -> str:
    if kind == "npz":
        np.savez(folder / "made.npz", **values)
        return str(folder / "made.npz")
    (folder / "made").mkdir()
    for name, value in values.items():
        np.save(folder / "made" / f"{name}.npy", value)
    return str(folder / "made")


@pytest.mark.parametrize("kind", ["npz", "npy"])
def test_arrays_are_read_in_pieces(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[arrays.__module__], "CHUNK_BYTES", 24)
    source = arrays(path=save(tmp_path, kind, x=X, y=Y, x_test=X[:2] + 9, y_test=Y[:2], classes=["no", "yes"]))
    assert (source.name, source.classes) == ("made", ("no", "yes"))
    assert source.test is not None
    assert (np.stack(drawn(source.train)) == X).all()
    assert (np.stack(drawn(source.test)) == X[:2] + 9).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"x": X}, r"holds x. Expected an .npz, or a folder of .npy"),
        ({"x": X, "y": Y[:3]}, r"x is \[4, 3\] and its labels are \[3\]; expected equal counts"),
        ({"x": X, "y": Y.astype(float)}, r"y is float64\[4\]; expected integers"),
        ({"x": np.array([{}, {}, {}, {}]), "y": Y}, "x holds Python objects"),
        ({"x": X, "y": np.array([0, 1, {}, 0])}, "y cannot be read: Object arrays cannot be loaded"),
    ],
)
@pytest.mark.parametrize("kind", ["npz", "npy"])
def test_arrays_that_cannot_be_samples_are_refused(tmp_path: Path, kind: str, values: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        arrays(path=save(tmp_path, kind, **values))


def test_grey_images_without_a_channel_get_one(tmp_path: Path) -> None:
    x = np.arange(4 * 3 * 2, dtype=np.uint8).reshape(4, 3, 2)
    assert drawn(arrays(path=save(tmp_path, "npz", x=x, y=Y)).train)[1].shape == (3, 2, 1)


def test_a_test_split_needs_both_its_arrays(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds x_test alone; expected both x_test and y_test, or none"):
        arrays(path=save(tmp_path, "npz", x=X, y=Y, x_test=X))


@pytest.mark.parametrize("kind", ["npz", "npy"])
def test_a_damaged_file_of_arrays_is_named(tmp_path: Path, kind: str) -> None:
    source = arrays(path=save(tmp_path, kind, x=X, y=Y))
    damaged = next(tmp_path.glob("made.npz" if kind == "npz" else "made/x.npy"))
    content = damaged.read_bytes()
    place = content.index(X.tobytes()) + 40
    damaged.write_bytes(content[:place] if kind == "npy" else content[:place] + b"?" + content[place + 1 :])
    with pytest.raises(DataError, match=r"x (ends after 3 of 4 samples|cannot be read: Bad CRC)"):
        drawn(source.train)


# files from the net


class Server(http.server.BaseHTTPRequestHandler):
    """Serves one file; understands ranges; breaks off after so many bytes when told to."""

    content = b""
    stop_after: int | None = None
    knows_ranges = True
    asked: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        wanted = self.headers["Range"] if self.knows_ranges else None
        type(self).asked.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        if start > len(self.content):
            return self.send_error(416)
        self.send_response(206 if wanted else 200)
        body = self.content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.stop_after])

    def log_message(self, *_: Any) -> None:
        """Be quiet."""


@pytest.fixture
def served() -> Iterator[str]:
    Server.content, Server.stop_after, Server.asked = b"", None, []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/made.tar.gz"
        server.shutdown()


def described() -> dict[str, Any]:
    return {"num_bytes": len(Server.content), "digest": hashlib.sha256(Server.content).hexdigest()}


def test_an_interrupted_download_goes_on_where_it_stopped(tmp_path: Path, served: str) -> None:
    Server.content = bytes(range(256)) * 40
    Server.stop_after = 1000
    with pytest.raises(DataError, match="stopped after 1,000 of 10,240 B. Repeat the command"):
        fetch(served, tmp_path / "made", **described())
    assert not (tmp_path / "made").exists()
    Server.stop_after = None
    assert fetch(served, tmp_path / "made", **described()).read_bytes() == Server.content
    assert Server.asked == [None, "bytes=1000-"]
    fetch("http://nowhere.invalid/made", tmp_path / "made", **described())  # it is there: nobody is asked


def test_a_server_that_knows_no_ranges_sends_the_whole_again(
    tmp_path: Path, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Server.content = bytes(range(256)) * 4
    (tmp_path / "made.partial").write_bytes(b"half")
    monkeypatch.setattr(Server, "knows_ranges", False)
    assert fetch(served, tmp_path / "made", **described()).read_bytes() == Server.content


def test_half_a_file_of_which_the_server_has_no_more_is_begun_again(tmp_path: Path, served: str) -> None:
    (tmp_path / "made.partial").write_bytes(bytes(100))
    Server.content = bytes(50)
    with pytest.raises(DataError, match="416"):
        fetch(served, tmp_path / "made", num_bytes=200, digest="")
    assert (tmp_path / "made.partial").stat().st_size == 0


def test_two_processes_do_not_fetch_into_one_file(tmp_path: Path, served: str) -> None:
    with (tmp_path / "made.partial").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another process is fetching"):
            fetch(served, tmp_path / "made", num_bytes=1, digest="")


def test_another_file_than_expected_is_refused_and_not_gone_on_from(tmp_path: Path, served: str) -> None:
    Server.content = b"another file"
    with pytest.raises(DataError, match="is not the file expected: 12 B with sha256 000000"):
        fetch(served, tmp_path / "made", num_bytes=12, digest="0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_is_away_says_what_to_do(tmp_path: Path, closed_server: str) -> None:
    with pytest.raises(DataError, match="goes on where it stopped; or put the file at .*made"):
        fetch(f"{closed_server}/made", tmp_path / "made", num_bytes=1, digest="")


def test_cifar10_is_fetched_once_and_read_record_by_record(
    tmp_path: Path, served: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.BytesIO()
    generator = np.random.default_rng(0)
    records = {}
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
            records[name] = generator.integers(0, 10, (4, 3073), dtype=np.uint8)
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = records[name].size
            tar.addfile(member, io.BytesIO(records[name].tobytes()))
    Server.content = stream.getvalue()
    monkeypatch.setenv("LIMBECK_DATA", str(tmp_path))
    for _ in range(2):
        about = described()
        source = cifar10(folder="cifar10", url=served, num_bytes=about["num_bytes"], sha256=about["digest"])
    assert len(Server.asked) == 1
    assert source.test is not None
    assert (len(source.train.labels), source.test.labels.tolist()) == (20, records["test_batch.bin"][:, 0].tolist())
    (image, *_) = drawn(source.train)
    assert image.shape == (32, 32, 3)
    assert (image[0, 0] == records["data_batch_1.bin"][0, [1, 1025, 2049]]).all()


# a source of one's own


def test_a_source_that_returns_something_else_is_told_so() -> None:
    with pytest.raises(DataError, match="'os:getcwd' returned str, expected limbeck.data.sources.source.Source"):
        open_source(Component(use="os:getcwd"))


def test_the_template_is_a_source(tmp_path: Path) -> None:
    source = open_source(Component(use="custom.sources.template:stripes", num=20, size=6))
    images = drawn(source.train)
    assert len(images) == len(source.train.labels) == 20
    assert {image.shape for image in images} == {(6, 6, 1)}

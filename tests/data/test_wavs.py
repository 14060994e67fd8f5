"""Recordings: what a wav may be, how it gets its label and its length, and what is said of those that cannot be used."""

import io
import re
import tarfile
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from limbeck.components import Component
from limbeck.data.sources import open_source
from limbeck.data.sources.source import Broken, Part, Source
from limbeck.data.sources.wavs import wavs
from limbeck.data.splits import write
from limbeck.errors import ComponentError, DataError
from limbeck.params import SplitParams

RATE = 1000
NAMED = {"label": r"(?P<label>\w+)_\d+\.wav", "test": r"\w+_[01]\.wav"}


def wav(samples: Any, rate_hz: int = RATE, channels: int = 1, width: int = 2) -> bytes:
    """A recording of integers as wide as `width` says."""
    stream = io.BytesIO()
    with wave.open(stream, "wb") as file:
        file.setparams((channels, width, rate_hz, 0, "NONE", ""))
        offset = 128 if width == 1 else 0
        file.writeframes(b"".join(int(s + offset).to_bytes(width, "little", signed=width > 1) for s in samples))
    return stream.getvalue()


def tone(hertz: float, num: int = RATE, rate_hz: int = RATE, peak: float = 8000) -> NDArray[np.int64]:
    return np.rint(peak * np.sin(2 * np.pi * hertz * np.arange(num) / rate_hz)).astype(np.int64)


def folder(place: Path, files: dict[str, bytes]) -> str:
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    return str(place)


def heard(part: Part) -> list[Any]:
    return list(part.samples())


def only(place: Path, content: bytes, **keywords: Any) -> Any:
    """What becomes of one recording."""
    source = wavs(**{"path": folder(place, {"a/0.wav": content}), "rate_hz": RATE, "seconds": 1.0, **keywords})
    return heard(source.train)[0]


def test_labels_stand_in_folders(tmp_path: Path) -> None:
    files = {
        f"{which}/{label}/{n}.wav": wav(tone(50 + n)) for which in ("train", "test") for label in "ba" for n in (1, 2)
    }
    source = wavs(path=folder(tmp_path / "bells", files), rate_hz=RATE, seconds=1.0)
    assert (source.name, source.classes) == ("bells", ("a", "b"))
    assert source.test is not None
    assert source.train.labels.tolist() == source.test.labels.tolist() == [0, 0, 1, 1]
    first = heard(source.train)[0]
    assert (first.shape, first.dtype) == ((RATE, 1), np.int16)
    assert np.array_equal(first[:, 0], tone(51))


@pytest.mark.parametrize("packed", [False, True])
def test_labels_and_the_test_split_stand_in_file_names(tmp_path: Path, packed: bool) -> None:
    files = {f"all/{word}_{n}.wav": wav(tone(40 + n)) for word in ("yes", "no") for n in range(4)}
    path = folder(tmp_path / "words", files)
    if packed:
        with tarfile.open(tmp_path / "words.tar.gz", "w:gz") as tar:
            tar.add(tmp_path / "words", "words")
        path += ".tar.gz"
    source = wavs(path=path, rate_hz=RATE, seconds=1.0, **NAMED)
    assert source.classes == ("no", "yes")
    assert source.test is not None
    assert sorted(source.train.labels) == sorted(source.test.labels) == [0, 0, 1, 1]
    assert {int(np.argmax(np.abs(np.fft.rfft(x[:, 0])))) for x in heard(source.test)} == {40, 41}
    assert {int(np.argmax(np.abs(np.fft.rfft(x[:, 0])))) for x in heard(source.train)} == {42, 43}


@pytest.mark.parametrize(
    ("width", "expected"), [(1, [-32768, 0, 256, 32512]), (2, [-128, 0, 1, 127]), (3, [-1, 0, 0, 0])]
)
def test_sixteen_bits_remain_of_other_widths(tmp_path: Path, width: int, expected: list[int]) -> None:
    found = only(tmp_path, wav([-128, 0, 1, 127], width=width), seconds=4 / RATE)
    assert found[:, 0].tolist() == expected


@given(
    st.sampled_from([2, 3, 4]),
    st.lists(st.integers(-(2**15), 2**15 - 1), min_size=2, max_size=20).filter(lambda s: min(s) < max(s)),
)
def test_a_wider_recording_of_the_same_sound_gives_the_same_samples(
    tmp_path_factory: pytest.TempPathFactory, width: int, samples: list[int]
) -> None:
    wide = wav([sample << 8 * (width - 2) for sample in samples], width=width)
    found = only(tmp_path_factory.mktemp("wide"), wide, seconds=len(samples) / RATE)
    assert found[:, 0].tolist() == samples


def test_a_short_recording_stands_amid_zeros_and_of_a_long_one_the_middle_stays(tmp_path: Path) -> None:
    ramp = range(1, 7)
    longer, shorter = (only(tmp_path / str(n), wav(ramp), seconds=n / RATE)[:, 0].tolist() for n in (9, 3))
    assert longer == [0, *ramp, 0, 0]
    assert shorter == [2, 3, 4]


@pytest.mark.parametrize("rate_hz", [500, 1600, 44_100])
def test_another_rate_keeps_the_pitch_when_it_is_asked_for(tmp_path: Path, rate_hz: int) -> None:
    found = only(tmp_path, wav(tone(100, rate_hz, rate_hz), rate_hz), resample=True)
    assert np.argmax(np.abs(np.fft.rfft(found[:, 0]))) == 100
    inner = found[100:-100, 0].astype(float)  # where the filter meets no end
    assert np.abs(inner - tone(100)[100:-100]).max() < 100


def test_what_lies_above_half_of_the_new_rate_does_not_come_back_as_another_tone(tmp_path: Path) -> None:
    sound = tone(100, 4000, 4000) + tone(900, 4000, 4000)
    found = np.abs(np.fft.rfft(only(tmp_path, wav(sound, 4000), resample=True)[:, 0]))
    assert np.argmax(found) == 100
    assert found[900 - RATE :].max() < found[100] / 50, "900 Hz would sound as 100 Hz again"


FLOATS = wav(tone(50)).replace(b"\x10\x00\x00\x00\x01\x00", b"\x10\x00\x00\x00\x03\x00", 1)
MULAW = wav(tone(50)).replace(b"\x10\x00\x00\x00\x01\x00", b"\x10\x00\x00\x00\x07\x00", 1)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (wav(tone(50), 800), "it has 800 samples a second; expected 1000, or give resample: true"),
        (wav(np.repeat(tone(50), 2), channels=2), "it has 2 channels; expected one: mix or choose them first"),
        (wav([0] * 50), "it is silent: every sample is 0"),
        (wav([0] * 400 + [3] * 1000 + [0] * 400), "it is silent: every sample is 3"),
        (wav([]), "it holds no sample"),
        (FLOATS, r"it holds floats \(3\); expected PCM: sox"),
        (MULAW, r"it holds mu-law \(7\); expected PCM"),
        (wav(tone(50))[:-700], "it ends after 650 of 1,000 samples"),
        (wav(tone(50))[:20], "it is no wav, or cut short"),
        (b"ID3" + bytes(60), "it is no wav, or cut short: file does not start with RIFF id"),
        (b"", "it is no wav, or cut short: it ends in its header"),
    ],
)
def test_a_recording_that_cannot_be_used_says_why(tmp_path: Path, content: bytes, reason: str) -> None:
    found = only(tmp_path, content)
    assert isinstance(found, Broken)
    assert found.path == "a/0.wav"
    assert re.match(reason, found.reason), found.reason


@given(st.binary(max_size=80), st.integers(0, 60))
def test_no_bytes_are_too_strange(tmp_path_factory: pytest.TempPathFactory, noise: bytes, at: int) -> None:
    content = wav(tone(50))
    found = only(tmp_path_factory.mktemp("noise"), content[:at] + noise + content[at + len(noise) :])
    assert isinstance(found, Broken) or (found.shape, found.dtype) == ((RATE, 1), np.int16)


def test_broken_recordings_are_counted_and_named_or_left_out(tmp_path: Path) -> None:
    files = {f"{label}/{n}.wav": wav(tone(30 + n + 50 * (label == "b"))) for label in "ab" for n in range(20)}
    path = folder(tmp_path / "in", {**files, "a/20.wav": wav([0] * 9), "b/20.wav": wav(tone(50), 800)})
    shares = SplitParams(test=0.2, validation=0.2, calibration=0.1)
    source = {"use": "wavs", "path": path, "rate_hz": RATE, "seconds": 1.0}
    with pytest.raises(
        DataError, match=r"2 of 42 samples cannot be read:\n  a/20.wav: it is silent.*\n  b/20.wav: it has 800"
    ):
        write(tmp_path / "out", opened(source), shares, 0)
    meta = write(tmp_path / "out", opened({**source, "on_error": "skip"}), shares, 0)
    assert (meta.skipped, meta.shape, meta.dtype, len(meta.mean)) == (2, (RATE, 1), "int16", 1)


def opened(keywords: dict[str, Any]) -> Source:
    return open_source(Component.model_validate(keywords))


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"label": r"\w+_\d+\.wav"}, "label is .*; expected a group `label`, such as"),
        ({"label": r"(?P<label>"}, "label is .*; expected a regular expression"),
        ({"test": "["}, "test is .*; expected a regular expression"),
        ({"rate_hz": 0}, "rate_hz is 0"),
    ],
)
def test_a_pattern_is_checked_before_anything_is_read(keywords: dict[str, Any], said: str) -> None:
    with pytest.raises(ComponentError, match=f"data source 'wavs': {said}"):
        opened({"use": "wavs", "path": "nowhere", "rate_hz": RATE, "seconds": 1.0, **keywords})


@pytest.mark.parametrize(
    ("names", "keywords", "said"),
    [
        (["yes_0.wav", "readme.wav"], NAMED, "readme.wav gives no label by"),
        (["yes_0.wav", "no_1.wav"], NAMED, "pattern of test, .* matches every file name"),
        (["yes_2.wav", "no_3.wav"], NAMED, r"matches no file name \(no_3.wav, ...\); expected some"),
        (["yes_0.wav", "no_3.wav"], NAMED, "no training recording of yes, which test has"),
        (["train/a/1.wav", "test/a/2.wav"], {"test": "2.wav"}, "has a folder test/ and data.source a pattern"),
        (["1.wav"], {}, "1.wav lies in no class folder. Expected a folder, .tar.gz or .zip of CLASS/"),
        (["valid/a/1.wav", "train/a/2.wav"], {}, "has recordings in train, valid"),
        (["a/1.mp3"], {}, "holds no .wav"),
        (["a/1.wav"], {"seconds": 1e-9}, "1e-09 s at 1000 Hz hold no sample"),
    ],
)
def test_a_layout_that_is_none_is_refused(
    tmp_path: Path, names: list[str], keywords: dict[str, Any], said: str
) -> None:
    path = folder(tmp_path / "in", dict.fromkeys(names, wav(tone(50))))
    with pytest.raises(DataError, match=said):
        wavs(**{"path": path, "rate_hz": RATE, "seconds": 1.0, **keywords})


def test_what_is_absent_tells_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is missing .*Ask a friend"):
        wavs(path=str(tmp_path / "none"), rate_hz=RATE, seconds=1.0, get="Ask a friend.")

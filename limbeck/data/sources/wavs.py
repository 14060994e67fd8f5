"""Recordings in a folder or an archive: PCM wavs, labelled by their folder or by their name."""

import io
import re
import wave
from collections.abc import Iterator
from math import gcd
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, PositiveFloat, PositiveInt

from limbeck.data.sources.folders import Labelled, by_folder
from limbeck.data.sources.packed import Packed, listed
from limbeck.data.sources.source import Broken, OnError, Source, located
from limbeck.errors import DataError

SUFFIXES = {".wav", ".wave"}
NO_PCM = {
    2: "ADPCM",
    3: "floats",
    6: "A-law",
    7: "mu-law",
    17: "ADPCM",
    49: "GSM",
    85: "MP3",
    65534: "an extended header",
}
"""What the formats of a wav are called that `wave` does not read."""

HOW = (
    "Expected a folder, .tar.gz or .zip of CLASS/*.wav, or of train/CLASS/* and test/CLASS/*, or `label`: a pattern of "
    "file names with a group `label`."
)


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"expected a regular expression: {error}") from None
    return text


def _naming(text: str) -> str:
    if "label" not in re.compile(_pattern(text)).groupindex:
        raise ValueError(r"expected a group `label`, such as '(?P<label>\d+)_.*\.wav'")
    return text


def wavs(
    *,
    path: str,
    rate_hz: PositiveInt,
    seconds: PositiveFloat,
    label: Annotated[str, AfterValidator(_naming)] | None = None,
    test: Annotated[str, AfterValidator(_pattern)] | None = None,
    resample: bool = False,
    on_error: OnError = "fail",
    get: str | None = None,
) -> Source:
    """Recordings of one channel as int16 [T, 1], T = `rate_hz` x `seconds`: what a microphone gives.

    PCM of 8, 16, 24 or 32 bits. Shorter ones get zeros on both sides, of longer ones the middle stays. Patterns are
    regular expressions that match a whole file name, without its folder.

    Args:
        path: a folder, .tar, .tar.gz or .zip; below $LIMBECK_DATA when it is relative.
        rate_hz: samples a second.
        seconds: of each sample.
        label: a pattern with a group `label`, which is the class; None: folders are classes, as for images.
        test: a pattern of the files that are the data set's own test split; None: `test/` where there is one.
        resample: bring recordings of other rates to `rate_hz`; else they are broken.
        on_error: what recordings that cannot be used do, once all of them are counted.
        get: how to get the files, told when they are absent.

    Raises:
        DataError: nothing there, no wav in it, another layout, or names that no pattern matches.

    """
    length = round(rate_hz * seconds)
    if not length:
        raise DataError(f"data source 'wavs': {seconds:g} s at {rate_hz} Hz hold no sample; raise seconds.")
    place = located(path, get or HOW)
    files = listed(place, SUFFIXES)
    if not len(files.names):
        raise DataError(f"{place} holds no .wav. {HOW}")
    labelled = by_folder(place, files, "recording", HOW) if label is None else _by_name(place, files, label)
    if test is not None:
        labelled = _with_test(labelled, files, test)
    decoder = _Decoder(rate_hz, length, resample)

    def samples(wanted: NDArray[np.bool_]) -> Iterator[NDArray[np.int16] | Broken]:
        for name, content in files.contents(wanted):
            yield content if isinstance(content, Broken) else decoder(name, content)

    return labelled.source(samples, on_error)


def _file(name: str) -> str:
    return name.rpartition("/")[2]


def _by_name(place: Path, files: Packed, pattern: str) -> Labelled:
    """Files labelled by their names."""
    matches, labels = re.compile(pattern), []
    for number in range(len(files.names)):
        found = matches.fullmatch(_file(files.names[number]))
        if not found or not found["label"]:
            raise DataError(
                f"{place}: {files.names[number]} gives no label by {pattern!r}, which has to match the whole file name; "
                "mend the pattern, or move what is no sample."
            )
        labels.append(found["label"])
    return Labelled(place, "recording", np.array(labels), np.zeros(len(labels), np.bool_))


def _with_test(labelled: Labelled, files: Packed, pattern: str) -> Labelled:
    if labelled.is_test.any():
        raise DataError(f"{labelled.place} has a folder test/ and data.source a pattern `test`; leave one of them out.")
    matches = re.compile(pattern)
    is_test = np.array([bool(matches.fullmatch(_file(files.names[number]))) for number in range(len(files.names))])
    if is_test.all() or not is_test.any():
        raise DataError(
            f"{labelled.place}: the pattern of test, {pattern!r}, matches {'every' if is_test.all() else 'no'} file name "
            f"({_file(files.names[0])}, ...); expected some."
        )
    return Labelled(labelled.place, labelled.what, labelled.labels, is_test)


class _Decoder:
    """A wav into int16 [T, 1]."""

    def __init__(self, rate_hz: int, length: int, resample: bool) -> None:
        self.rate_hz, self.length, self.resample = rate_hz, length, resample

    def __call__(self, name: str, content: bytes) -> NDArray[np.int16] | Broken:
        """Decode one."""
        try:
            with wave.open(io.BytesIO(content)) as file:
                channels, width, rate_hz, num = file.getparams()[:4]
                if channels != 1:
                    return Broken(name, f"it has {channels} channels; expected one: mix or choose them first")
                if rate_hz != self.rate_hz and not self.resample:
                    return Broken(
                        name, f"it has {rate_hz} samples a second; expected {self.rate_hz}, or give resample: true"
                    )
                raw = file.readframes(num)
        except (wave.Error, EOFError, RuntimeError) as error:  # RuntimeError: a chunk that ends nowhere
            return Broken(name, _told(str(error)))
        if not num or len(raw) < num * width:
            return Broken(
                name, f"it ends after {len(raw) // width:,} of {num:,} samples" if num else "it holds no sample"
            )
        samples = _int16(raw, width)
        if rate_hz != self.rate_hz:
            samples = _resampled(samples, rate_hz, self.rate_hz)
        samples = _of_length(samples, self.length)
        if samples.min() == samples.max():
            return Broken(name, f"it is silent: every sample is {samples[0]}")
        return samples[:, None]


def _told(reason: str) -> str:
    """What `wave` says, in words that help."""
    unknown = re.fullmatch(r"unknown (?:extended )?format: (\d+)", reason)
    if unknown:
        number = int(unknown[1])
        return f"it holds {NO_PCM.get(number, 'format')} ({number}); expected PCM: sox IN.wav -e signed -b 16 OUT.wav"
    return f"it is no wav, or cut short: {reason or 'it ends in its header'}"


def _int16(raw: bytes, width: int) -> NDArray[np.int16]:
    """PCM of `width` bytes a sample, the 16 upper bits of it."""
    if width == 1:  # the one width without a sign
        return ((np.frombuffer(raw, np.uint8).astype(np.int16) - 128) * 256).astype(np.int16)
    places = np.frombuffer(raw, np.uint8).reshape(-1, width)
    return np.ascontiguousarray(places[:, -2:]).view("<i2")[:, 0].astype(np.int16)


def _resampled(samples: NDArray[np.int16], old_hz: int, new_hz: int) -> NDArray[np.int16]:
    """At another rate, through a filter that lets nothing above half of the lower one pass."""
    from scipy.signal import resample_poly

    shared = gcd(old_hz, new_hz)
    moved = resample_poly(samples.astype(np.float64), new_hz // shared, old_hz // shared)
    return moved.round().clip(-32768, 32767).astype(np.int16)  # type: ignore[no-any-return]


def _of_length(samples: NDArray[np.int16], length: int) -> NDArray[np.int16]:
    """The middle, or zeros around all of it."""
    spare = length - len(samples)
    if spare < 0:
        return samples[-spare // 2 :][:length]
    return np.pad(samples, (spare // 2, spare - spare // 2))

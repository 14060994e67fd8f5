"""What befalls a device, kind by kind; every seed draws another moment, byte, file or figure."""

import random
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial
from itertools import cycle

from benchmarks.faults.device import Device
from benchmarks.faults.networks import CRASHES, HONEST, LOOPS, NAN, NAN_ON_BLACK, RAISES_ON_BLACK, Version
from benchmarks.faults.proxy import Exchange, Proxy, flipped, start_of
from benchmarks.faults.repository import FILES, Repository, expired_since
from limbeck.edge.home import STEPS
from limbeck.edge.manifest import NAME

DAY_S = 86400.0
NUM_REQUESTS = 7
"""Of an honest update: root, timestamp, snapshot, targets, manifest, two files."""
PIECE = bytes(65_536)
MOST_BYTES = 200_000_000
PORTAL = b"<html><body>Welcome! Please accept our terms.</body></html>"
FOREVER = 10**6

Act = Callable[[Exchange], None]
Which = Callable[[Exchange], bool]


@dataclass
class Scene:
    """One fault: who it befalls, and what may come of it.

    Attributes:
        draw: of this kind and seed alone.
        seed: for what is gone through in turn.
        serial: the version that was just published.
        environment: of the update process.
        is_bad: the version, or the metadata around it, is not to be taken; recovery takes a newer one.
        is_withheld: the version is fine, but must not be taken meanwhile.
        ends_in_use: the version is switched to and has to go back by itself.
        kills_application: its process ends together with the update's.
        swallowed: bytes that were sent of what has no end.

    """

    draw: random.Random
    seed: int
    device: Device
    proxy: Proxy
    repository: Repository
    serial: int
    environment: dict[str, str] = field(default_factory=dict)
    is_bad: bool = False
    is_withheld: bool = False
    ends_in_use: bool = False
    kills_application: bool = False
    swallowed: int = 0

    def befall(self, which: Which, act: Act, *, skip: int = 0, times: int = FOREVER) -> None:
        """Have `act` answer those requests, the first `skip` excepted, so many times."""
        left, passes = times, skip

        def fault(exchange: Exchange) -> bool:
            nonlocal left, passes
            if not which(exchange):
                return False
            if passes > 0 or left <= 0:
                passes -= 1
                return False
            left -= 1
            act(exchange)
            return True

        self.proxy.fault = fault

    def overlay(self, contents: dict[str, bytes]) -> None:
        """Serve these metadata files in place of those on the server."""
        self.befall(lambda x: x.method == "GET" and x.name in contents, lambda x: x.answer(200, contents[x.name]))

    def times(self) -> int:
        """Once, a few times, or for good."""
        return self.draw.choice((1, 2, 4, FOREVER))

    def moment(self) -> int:
        """After which request of an update."""
        return self.draw.randrange(NUM_REQUESTS)


def role_of(name: str) -> str | None:
    """Which metadata a file is."""
    found = re.fullmatch(r"(?:\d+\.)?(root|timestamp|snapshot|targets)\.json", name)
    return found[1] if found else None


def _named(name: str) -> Which:
    return lambda x: x.method == "GET" and name in (x.name, role_of(x.name)) and x.status < 400


def _any(_: Exchange) -> bool:
    return True


def _begin(x: Exchange, length: int | None = None) -> None:
    """The head of the honest answer, with another length if one is given."""
    x.begin(x.status, {**x.headers, "Content-Length": str(len(x.content) if length is None else length)})


# The way


def cut(scene: Scene) -> None:
    """The connection ends at a tenth of a file, and again wherever it would pass that point."""
    tenth, name = scene.seed % 10, scene.draw.choice(FILES)

    def act(x: Exchange) -> None:
        start = start_of(x.wanted)
        _begin(x)
        x.write(x.content[: max(0, (start + len(x.content)) * tenth // 10 - start)])
        x.cut()

    scene.befall(_named(name), act, times=scene.times())


def reset(scene: Scene) -> None:
    part = scene.draw.random()

    def act(x: Exchange) -> None:
        _begin(x)
        x.write(x.content[: int(part * len(x.content))])
        x.reset()

    scene.befall(_any, act, skip=scene.moment(), times=scene.times())


def flip(name: str | None, scene: Scene) -> None:
    """One bit of what is sent; the same place every time."""
    where, bit, name = scene.draw.random(), scene.draw.randrange(8), name or scene.draw.choice(FILES)
    scene.befall(
        _named(name), lambda x: x.answer(x.status, flipped(x.content, where, bit), x.headers), times=scene.times()
    )


def endless(names: tuple[str, ...], scene: Scene) -> None:
    """What goes on after its end; every other one is compressed, though nobody asked for that."""
    name, packed = scene.draw.choice(names), scene.seed % 2

    def act(x: Exchange) -> None:
        packer = zlib.compressobj(wbits=31)
        x.begin(200, {"Content-Encoding": "gzip"} if packed else {})
        x.write(packer.compress(x.content) + packer.flush(zlib.Z_SYNC_FLUSH) if packed else x.content)

        def piece() -> bytes:
            return packer.compress(PIECE * 16) + packer.flush(zlib.Z_SYNC_FLUSH) if packed else PIECE

        scene.swallowed = max(scene.swallowed, x.send_until_lifted(piece, 0.0, MOST_BYTES))

    scene.befall(_named(name), act, times=scene.times())


def lying_length(too_long: bool, scene: Scene) -> None:
    name = scene.draw.choice((*FILES, NAME, "timestamp", "snapshot", "targets"))
    by = scene.draw.randrange(1, 500)

    def act(x: Exchange) -> None:
        _begin(x, max(0, len(x.content) + (by if too_long else -by)))
        x.write(x.content)
        x.cut()

    scene.befall(_named(name), act, times=scene.times())


def wrong_range(scene: Scene) -> None:
    """A download is cut, and what it asks for then is answered with something else."""
    name, part, how = scene.draw.choice(FILES), scene.draw.uniform(0.1, 0.9), scene.seed % 4

    def act(x: Exchange) -> None:
        start, total = start_of(x.wanted), len(x.content) + start_of(x.wanted)
        if not start:
            _begin(x)
            x.write(x.content[: int(part * total)])
            x.cut()
        elif how == 0:  # as asked for, it says
            shifted = x.content[7:] + x.content[:7]
            x.answer(206, shifted, x.headers)
        elif how == 1:
            x.answer(206, x.content[5:], {"Content-Range": f"bytes {start + 5}-{total - 1}/{total}"})
        elif how == 2:
            x.answer(200, bytes(start) + x.content)
        else:
            x.answer(416)

    scene.befall(_named(name), act, times=scene.times() + 1)


def loris(what: str, scene: Scene) -> None:
    """A byte now and then, of the head or of the body."""
    pause_s = scene.draw.uniform(0.05, 0.4)

    def act(x: Exchange) -> None:
        if what == "body":
            _begin(x)
        letters = cycle(x.content if what == "body" and x.content else b"HTTP/1.1 200 OK\r\nX-Slow: " + b"o" * 4000)
        x.send_until_lifted(lambda: bytes([next(letters)]), pause_s, len(x.content) if what == "body" else 2**20)

    which = _named(scene.draw.choice((*FILES, NAME, "timestamp", "targets")))
    scene.befall(which, act, times=scene.times())


# Metadata


def flip_root(scene: Scene) -> None:
    """The next root is offered with a flipped bit."""
    where, bit = scene.draw.random(), scene.draw.randrange(8)

    def act(x: Exchange) -> None:
        x.answer(200, flipped(scene.repository.next_root(int(x.name.split(".")[0])), where, bit))

    scene.befall(lambda x: role_of(x.name) == "root", act, times=scene.times())


def stranger(scene: Scene) -> None:
    """One role is signed by another key, and fits in with the rest."""
    role = ("timestamp", "snapshot", "targets", "root")[scene.seed % 4]
    scene.is_bad = True
    if role == "root":
        version = scene.device.floors["root"] + 1
        scene.overlay({f"{version}.root.json": scene.repository.next_root(version, stranger=True)})
    else:
        scene.overlay(scene.repository.forge(role, lambda signed: None, stranger=True))


def expired(scene: Scene) -> None:
    role, seconds = ("timestamp", "snapshot", "targets")[scene.seed % 3], scene.draw.uniform(60, 100 * DAY_S)
    scene.is_bad = True
    scene.overlay(scene.repository.forge(role, expired_since(seconds)))


def freeze(scene: Scene) -> None:
    """The newest that the device has seen stays the newest."""
    scene.is_withheld = True
    scene.overlay({"timestamp.json": (scene.device.path / "tuf" / "timestamp.json").read_bytes()})


def rollback(scene: Scene) -> None:
    """A timestamp from before the newest that the device has seen."""
    scene.is_withheld = True
    seen = (scene.device.path / "tuf" / "timestamp.json").read_bytes()
    older = scene.repository.history[: scene.repository.history.index(seen)]
    scene.overlay({"timestamp.json": scene.draw.choice(older)})


def stolen_online_keys(scene: Scene) -> None:
    """Snapshot and timestamp are signed by the true keys, over targets older than the device has seen."""
    seen = scene.device.floors["targets"]
    known = {scene.repository.targets_of(timestamp) for timestamp in scene.repository.history[-6:]}
    older = scene.draw.choice(sorted(version for version in known if version < seen))
    scene.is_bad = True

    def change(snapshot: object) -> None:
        snapshot.meta["targets.json"] = scene.repository.describe(f"{older}.targets.json", older)  # type: ignore[attr-defined]

    scene.overlay(scene.repository.forge("snapshot", change))


def mix(scene: Scene) -> None:
    """A file of an older version under the name of the new one."""
    scene.is_withheld = True
    role = ("snapshot", "targets", NAME, *FILES)[scene.seed % 5]
    if role in ("snapshot", "targets"):
        older = (scene.device.path / "tuf" / f"{role}.json").read_bytes()
    else:
        older = (scene.device.path / "bundles" / (scene.device.record.current or "") / role).read_bytes()
    scene.befall(_named(role), lambda x: x.answer(200, older))


def oversize(scene: Scene) -> None:
    """More than was signed, or than a device takes of what nobody has signed a length for."""
    role, more = scene.draw.choice(("timestamp", "snapshot", "targets")), scene.draw.randrange(1, 2_000_000)
    scene.is_withheld = role != "timestamp" or more > 16_384

    def act(x: Exchange) -> None:
        x.answer(200, x.content[:-1] + b" " * more + x.content[-1:])

    scene.befall(_named(role), act)


# The server


def gone(scene: Scene) -> None:
    """Nobody listens: from the beginning, or from some request on."""
    moment = scene.moment()
    if moment == 0:
        scene.proxy.close()
        return

    def act(x: Exchange) -> None:
        x.reset()

    scene.befall(_any, act, skip=moment)


def status(code: int, scene: Scene) -> None:
    later = datetime.now(UTC) + timedelta(seconds=scene.draw.uniform(1, 7200))
    waits = (
        "0",
        "0.2",
        "1",
        "3600",
        "1e999",
        "-1",
        "soon",
        format_datetime(later, usegmt=True),
        "Mon, 01 Jan 0001 00:00:00 -0000",
    )
    asked = {"Retry-After": scene.draw.choice(waits)} if code in (429, 503) else {}
    scene.befall(_any, lambda x: x.answer(code, b"no", asked), skip=scene.moment(), times=scene.times())


def portal(scene: Scene) -> None:
    """The page of a hotel's network in place of everything."""
    scene.befall(_any, lambda x: x.answer(200, PORTAL, {"Content-Type": "text/html"}), skip=scene.moment())


def no_http(scene: Scene) -> None:
    noise = scene.draw.randbytes(400)
    heads = (
        noise,
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 5000,
        b"HTTP/1.1 302 Found\r\nLocation: http://[\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: soon\r\n\r\n" + noise,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + noise,
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 400\r\n\r\n" + noise,
        b"HTTP/1.1 999 \r\n\r\n",
        b"",
    )
    head = heads[scene.seed % len(heads)]

    def act(x: Exchange) -> None:
        x.write(head)
        x.cut()

    scene.befall(_any, act, skip=scene.moment(), times=scene.times())


# The device


def disk_full(scene: Scene) -> None:
    """Something else takes the room: before the update, or in the middle of it."""
    free, moment = scene.draw.randrange(0, 150_000), scene.draw.randrange(-1, NUM_REQUESTS)
    if moment < 0:
        scene.device.disk.fill(free)
        return

    def act(x: Exchange) -> None:
        scene.device.disk.fill(free)
        x.pass_on()

    scene.befall(_any, act, skip=moment, times=1)


def read_only(scene: Scene) -> None:
    moment = scene.draw.randrange(-1, NUM_REQUESTS)
    if moment < 0:
        scene.device.disk.turn_read_only()
        return

    def act(x: Exchange) -> None:
        scene.device.disk.turn_read_only()
        x.pass_on()

    scene.befall(_any, act, skip=moment, times=1)


def clock_forward(scene: Scene) -> None:
    """By a day or two, which no metadata notice, or by up to ten years."""
    days = scene.draw.uniform(0.01, 2) if scene.seed % 4 == 0 else scene.draw.uniform(4, 3650)
    scene.environment["DRILL_CLOCK"] = str(days * DAY_S)


def clock_back(scene: Scene) -> None:
    """Down to 1970; every other time someone hands out what has expired since the device knows better."""
    scene.environment["DRILL_CLOCK"] = str(-scene.draw.uniform(0.5, 50 * 365) * DAY_S)
    if scene.seed % 2:
        scene.is_bad = True
        scene.overlay(scene.repository.forge("timestamp", expired_since(scene.draw.uniform(120, 0.4 * DAY_S))))


def rot(scene: Scene) -> None:
    """A bit on the device's own disk."""
    home = scene.device.path
    places = [*(home / "bundles").glob("*/*"), *(home / "tuf").glob("*.json")]
    path = scene.draw.choice(sorted(places))
    path.write_bytes(flipped(path.read_bytes(), scene.draw.random(), scene.draw.randrange(8)))


# The version


def bad(scene: Scene) -> None:
    """It must not get through its trial."""
    scene.is_bad = True


def bad_in_use(scene: Scene) -> None:
    """It gets through its trial, and fails in the application."""
    scene.is_bad = scene.ends_in_use = True


def crashing(draw: random.Random) -> Version:
    return Version(CRASHES.format(operator=draw.choice(("Div", "Mod"))))


def slow(draw: random.Random) -> Version:
    return Version(LOOPS.format(times=draw.randrange(1000, 5000)), max_p95_ms=draw.uniform(0.001, 0.05))


def other_answers(draw: random.Random) -> Version:
    return Version(golden_factor=draw.choice((-1.0, 0.0, draw.uniform(1.001, 3))))


# Kills


def kill_after(step: str, scene: Scene) -> None:
    """The update is killed at some operation between this step and the next."""
    last = 1 + int(scene.draw.random() * scene.device.operations[step])
    scene.environment["DRILL_KILL"] = f"{step}:{last}"


def power_cut(scene: Scene) -> None:
    """The update and the application, at some operation of the update."""
    scene.kills_application = True
    kill_after(scene.draw.choice(STEPS), scene)


@dataclass(frozen=True)
class Kind:
    """A kind of fault: the version that is published, and what befalls its delivery."""

    befall: Callable[[Scene], None]
    version: Callable[[random.Random], Version] = lambda _: HONEST
    needs_mounts: bool = False


KINDS: dict[str, Kind] = {
    "download cut at a tenth": Kind(cut),
    "connection reset": Kind(reset),
    "flipped bit in a bundle's file": Kind(partial(flip, None)),
    "flipped bit in the manifest": Kind(partial(flip, NAME)),
    "endless file": Kind(partial(endless, (*FILES, NAME))),
    "Content-Length too short": Kind(partial(lying_length, False)),
    "Content-Length too long": Kind(partial(lying_length, True)),
    "wrong range": Kind(wrong_range),
    "slow loris: head": Kind(partial(loris, "head")),
    "slow loris: body": Kind(partial(loris, "body")),
    "flipped bit in root": Kind(flip_root),
    "flipped bit in timestamp": Kind(partial(flip, "timestamp")),
    "flipped bit in snapshot": Kind(partial(flip, "snapshot")),
    "flipped bit in targets": Kind(partial(flip, "targets")),
    "wrong signature": Kind(stranger),
    "expired signature": Kind(expired),
    "freeze: old metadata replayed": Kind(freeze),
    "rollback: older metadata than seen": Kind(rollback),
    "stolen online keys: older targets": Kind(stolen_online_keys),
    "mix-and-match": Kind(mix),
    "endless metadata": Kind(partial(endless, ("timestamp", "snapshot", "targets"))),
    "oversize metadata": Kind(oversize),
    "server gone": Kind(gone),
    "401": Kind(partial(status, 401)),
    "403": Kind(partial(status, 403)),
    "404": Kind(partial(status, 404)),
    "429": Kind(partial(status, 429)),
    "500": Kind(partial(status, 500)),
    "503": Kind(partial(status, 503)),
    "captive portal": Kind(portal),
    "no HTTP": Kind(no_http),
    "disk full": Kind(disk_full, needs_mounts=True),
    "read-only folder": Kind(read_only, needs_mounts=True),
    "clock set forward": Kind(clock_forward),
    "clock set back": Kind(clock_back),
    "bit rot on the disk": Kind(rot),
    "model crashes the runtime": Kind(bad, crashing),
    "model answers NaN": Kind(bad, lambda _: Version(NAN)),
    "model answers NaN in use": Kind(bad_in_use, lambda _: Version(NAN_ON_BLACK)),
    "model raises in use": Kind(bad_in_use, lambda _: Version(RAISES_ON_BLACK)),
    "model too slow here": Kind(bad, slow),
    "golden answers differ": Kind(bad, other_answers),
    "no model at all": Kind(bad, lambda _: Version(garbage=True)),
    "killed: idle to offered": Kind(partial(kill_after, "idle")),
    "killed: offered to downloaded": Kind(partial(kill_after, "offered")),
    "killed: downloaded to verified": Kind(partial(kill_after, "downloaded")),
    "killed: verified to proven": Kind(partial(kill_after, "verified")),
    "killed: proven to switched": Kind(partial(kill_after, "proven")),
    "killed: switched to the end": Kind(partial(kill_after, "switched")),
    "power cut: update and application": Kind(power_cut),
}

from pathlib import Path

from limbeck import ledger


def entry(version: str) -> ledger.Entry:
    return ledger.now(
        model="digits-phone", alias="champion", previous=None, version=version, why="größer ist nicht besser"
    )


def test_entries_come_back_in_the_order_they_were_appended(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "ledger.jsonl"
    written = [entry("1"), entry("2")]
    for each in written:
        ledger.append(file, each)
    assert ledger.read(file) == written
    assert "@" in written[0].who


def test_a_missing_ledger_is_an_empty_one(tmp_path: Path) -> None:
    assert ledger.read(tmp_path / "none.jsonl") == []


def test_a_torn_last_line_is_passed_over_and_the_next_entry_still_readable(tmp_path: Path) -> None:
    file = tmp_path / "ledger.jsonl"
    ledger.append(file, entry("1"))
    ledger.append(file, entry("2"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    assert [found.version for found in ledger.read(file)] == ["1"]
    ledger.append(file, entry("3"))
    assert [found.version for found in ledger.read(file)] == ["1", "3"]
    assert file.read_bytes().startswith(whole[:-20]), "nothing that was written is ever changed"

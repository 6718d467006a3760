from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusal import InputError
from refusal.artifacts import (
    building,
    clean_name,
    complete,
    file_hash,
    fingerprint,
    publish,
    read_json,
    write_atomic,
    write_json,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def run(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Start Python on this code, in a process of its own."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


# --- names --------------------------------------------------------------------------------------------------


@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_a_fingerprint_does_not_depend_on_the_order_of_keys(content: dict[str, object]) -> None:
    name = fingerprint(content)
    assert name == fingerprint(dict(reversed(list(content.items()))))
    assert len(name) == 12
    assert set(name) <= set("0123456789abcdef")


@given(st.dictionaries(st.text(), json_values, min_size=1, max_size=5))
def test_every_part_of_the_content_counts(content: dict[str, object]) -> None:
    for key in content:
        assert fingerprint(content) != fingerprint({**content, key: [content[key], 1]})
        assert fingerprint(content) != fingerprint({k: v for k, v in content.items() if k != key})


def test_the_fingerprint_is_the_hash_of_canonical_json() -> None:
    # printf '{"a":[1,2],"b":null}' | sha256sum
    assert fingerprint({"b": None, "a": (1, 2)}) == "f25109c41113"


def test_a_number_that_is_none_has_no_fingerprint() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        fingerprint({"lr": float("nan")})


@given(st.text(st.characters(), max_size=300))
def test_a_clean_name_is_one_visible_path_component(text: str) -> None:
    name = clean_name(text)
    assert name == os.path.basename(name)  # noqa: PTH119 - what the file system would make of it
    assert name
    assert name[0] not in ".-"
    assert len(name.encode()) <= 80
    assert clean_name(name) == name


@given(st.text(max_size=100), st.text(max_size=100))
def test_two_texts_never_share_a_name(one: str, other: str) -> None:
    assert (clean_name(one) == clean_name(other)) == (one == other)


def test_clean_names() -> None:
    assert clean_name("planted_m0.5") == "planted_m0.5"
    assert clean_name("self-harm") == "self-harm"
    assert clean_name("a b").startswith("a_b-")
    assert clean_name("../../etc/passwd").startswith("_.._etc_passwd-")
    assert clean_name("a b") != clean_name("a/b") != clean_name("a_b")
    assert clean_name("x" * 200 + "1") != clean_name("x" * 200 + "2")
    assert clean_name("\u66b4\u529b") != clean_name("\u4ec7\u6068")  # nothing of either survives but the hash


# --- files --------------------------------------------------------------------------------------------------


def test_the_hash_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert file_hash(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(InputError, match=r"cannot read .*b: No such file"):
        file_hash(tmp_path / "b")


@given(content=json_values)
def test_json_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, content: object) -> None:
    path = tmp_path_factory.getbasetemp() / "json" / "trip.json"
    write_json(path, content)
    assert read_json(path) == content
    assert [p.name for p in path.parent.iterdir()] == ["trip.json"]


def test_threads_that_write_one_file_leave_one_of_their_contents_whole(tmp_path: Path) -> None:
    contents = [str(i) * 100_000 for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: write_atomic(tmp_path / "a.txt", content), contents * 4))
    assert (tmp_path / "a.txt").read_text() in contents
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_numbers_that_are_none_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("inf")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "expected"), [(b"{", "not valid JSON"), (b"\xff\xfe", "not valid JSON"), (None, "there is no")]
)
def test_unreadable_json_is_one_line(tmp_path: Path, content: bytes | None, expected: str) -> None:
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=expected) as caught:
        read_json(tmp_path / "a.json")
    assert "a.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_in_place_of_the_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("")
    target = tmp_path / "outputs" / "result"
    with pytest.raises(InputError, match=r"cannot write .*result"):
        write_atomic(target, "x")
    with pytest.raises(InputError, match=r"cannot write .*result"), publish(target, {}):
        pass
    with pytest.raises(InputError, match=r"cannot write .*result"), building(target):
        pass
    with pytest.raises(InputError, match="cannot read"):
        read_json(tmp_path)  # a folder in place of the file


FULL_DISK = """
    import resource, sys
    from pathlib import Path
    from refusal import InputError
    from refusal.artifacts import publish, write_atomic
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # the kernel refuses to write more, as a full disk does
    folder = Path(sys.argv[1])
    try:
        write_atomic(folder / "a.txt", "x" * 10_000)
    except InputError as error:
        print(error)
    try:
        with publish(folder / "result", {"n": 1}) as temporary:
            (temporary / "small").write_text("x")
            (temporary / "big").write_text("x" * 10_000)
    except InputError as error:
        print(error)
"""


def test_a_disk_that_refuses_keeps_the_old_and_leaves_no_part(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    with publish(tmp_path / "result", {"n": 0}) as temporary:
        (temporary / "small").write_text("old")
    out, err = run(FULL_DISK, tmp_path).communicate(timeout=60)
    assert err == ""
    lines = [f"cannot write {tmp_path / name}: File too large" for name in ("a.txt", "result")]
    assert out.splitlines() == lines
    assert (tmp_path / "a.txt").read_text() == "old"
    assert complete(tmp_path / "result") == {"n": 0}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "result"]


# --- results ------------------------------------------------------------------------------------------------


def test_a_result_appears_with_its_card_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "abc"
    assert complete(folder) is None
    with publish(folder, {"seed": 1}) as temporary:
        (temporary / "plots").mkdir()
        (temporary / "plots" / "a.png").write_bytes(b"png")
        assert not folder.exists()
    assert complete(folder) == {"seed": 1}
    assert (folder / "plots" / "a.png").read_bytes() == b"png"
    assert [path.name for path in folder.parent.iterdir()] == ["abc"]


def test_a_new_result_replaces_the_old_one(tmp_path: Path) -> None:
    for n in range(2):
        with publish(tmp_path / "abc", {"n": n}) as temporary:
            (temporary / f"file{n}").write_text("")
    assert complete(tmp_path / "abc") == {"n": 1}
    assert sorted(path.name for path in (tmp_path / "abc").iterdir()) == ["card.json", "file1"]
    assert [path.name for path in tmp_path.iterdir()] == ["abc"]


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt, FileNotFoundError])
def test_a_failing_block_leaves_nothing_and_says_its_own_error(tmp_path: Path, kind: type[BaseException]) -> None:
    with publish(tmp_path / "abc", {"n": 0}):
        pass

    def build() -> None:
        with publish(tmp_path / "abc", {"n": 1}) as temporary:
            (temporary / "half").write_text("")
            raise kind("mine")

    with pytest.raises(kind, match="mine"):
        build()
    assert complete(tmp_path / "abc") == {"n": 0}
    assert [path.name for path in tmp_path.iterdir()] == ["abc"]


@pytest.mark.parametrize("content", ["[]", "{"])
def test_a_damaged_card_says_what_to_do(tmp_path: Path, content: str) -> None:
    (tmp_path / "card.json").write_text(content)
    with pytest.raises(InputError, match=r"card\.json .*delete .*force=true"):
        complete(tmp_path)


def test_a_result_has_the_permissions_that_the_person_chose(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with publish(tmp_path / "abc", {}):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "abc").stat().st_mode & 0o777 == 0o750


BUILDER = """
    import sys
    from pathlib import Path
    from refusal.artifacts import building, complete, publish
    folder = Path(sys.argv[1])
    with building(folder):
        print("in", flush=True)
        if complete(folder):
            print("found", flush=True)
        else:
            with publish(folder, {"by": sys.argv[2]}) as temporary:
                (temporary / "half").write_text("x")
                print("half", flush=True)
                sys.stdin.readline()  # until the test says so
            print("built", flush=True)
"""


def expect(process: subprocess.Popen[str], *lines: str) -> None:
    """Read these lines from a process."""
    assert process.stdout is not None
    for line in lines:
        assert process.stdout.readline().strip() == line


def test_a_killed_builder_leaves_no_half_result_and_no_lock(tmp_path: Path) -> None:
    folder = tmp_path / "saes" / "abc"
    killed = run(BUILDER, folder, "first")
    expect(killed, "in", "half")
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    assert complete(folder) is None
    assert not folder.exists()
    neighbour = folder.with_name(".abc.d." + "0" * 32 + ".tmp")  # a part of another result, perhaps in the making
    neighbour.mkdir()
    out, err = run(BUILDER, folder, "second").communicate("go", timeout=60)
    assert out.split() == ["in", "half", "built"]
    assert err == ""
    assert complete(folder) == {"by": "second"}
    assert {path.name for path in folder.parent.iterdir()} - {".abc.lock"} == {"abc", neighbour.name}


def test_the_second_process_waits_says_so_and_finds_the_result(tmp_path: Path) -> None:
    folder = tmp_path / "saes" / "abc"
    first = run(BUILDER, folder, "first")
    expect(first, "in", "half")
    second = run(BUILDER, folder, "second")
    expect(second, f"saes          waiting  another process is building {folder}")
    assert first.communicate("go", timeout=60)[0].split() == ["built"]
    assert second.communicate(timeout=60)[0].split() == ["in", "found"]
    assert first.returncode == second.returncode == 0
    assert json.loads((folder / "card.json").read_text()) == {"by": "first"}


def test_a_failing_builder_gives_the_lock_back(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), building(tmp_path / "abc"):
        raise RuntimeError
    with building(tmp_path / "abc"):
        pass

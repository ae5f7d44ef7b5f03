"""Files are written whole or not at all, read as UTF-8, and nothing of a killed process stays."""

from __future__ import annotations

import ast
import multiprocessing
import os
import re
import stat
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import ROOT, run_python

from yolo_attn import cli, files
from yolo_attn.errors import DataError, FileError
from yolo_attn.evaluation import dataset
from yolo_attn.system import drafts, locks
from yolo_attn.training.shapes import Recipe
from yolo_attn.training.shapes import make as make_shapes

posix = pytest.mark.skipif(os.name == "nt", reason="signals and limits of POSIX")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def spawn(code: str, *argv: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    full = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), **(env or {})}
    command = [sys.executable, "-c", textwrap.dedent(code), *argv]
    return subprocess.Popen(command, env=full, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, OSError])
def test_an_error_leaves_the_old_file_and_no_draft(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "a.yaml"
    target.write_text("old")

    def interrupted() -> None:
        with files.replacing(target) as draft:
            draft.write_text("half of")
            assert len(names(tmp_path)) == 2
            raise error(1, "on purpose")

    with pytest.raises(FileError if error is OSError else error):
        interrupted()
    assert names(tmp_path) == ["a.yaml"]
    assert target.read_text() == "old"


def test_a_file_keeps_its_permissions_its_link_and_its_line_ends(tmp_path: Path) -> None:
    target, link = tmp_path / "a.yaml", tmp_path / "link.yaml"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    files.write_text(link, "é\r\nb\n")
    assert link.is_symlink() and target.read_bytes() == "é\r\nb\n".encode()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    fresh = tmp_path / "fresh"
    fresh.write_text("")
    files.write_text(tmp_path / "b", "")
    files.write_text(tmp_path / "c", "", private=True)
    assert (tmp_path / "b").stat().st_mode == fresh.stat().st_mode  # what the umask leaves
    assert stat.S_IMODE((tmp_path / "c").stat().st_mode) == 0o600
    assert names(tmp_path) == ["a.yaml", "b", "c", "fresh", "link.yaml"]


@posix
def test_a_pipe_is_written_as_it_is(tmp_path: Path) -> None:
    """`--json /dev/stdout` prints, and replaces no device."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(pipe.read_text)
        files.write_text(pipe, "told")
        assert read.result(10) == "told"
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_writers_at_once_never_meet_in_one_draft(tmp_path: Path) -> None:
    """Every reader at any moment sees one writer's text, and all of it; no writer fails."""
    target = tmp_path / "a.txt"
    files.write_text(target, "0" * 100_000)
    code = """
    import sys
    from yolo_attn import files
    sys.stdin.readline()
    for _ in range(60):
        files.write_text(sys.argv[1], sys.argv[2] * 100_000, durable=False)
    """
    writers = [spawn(code, str(target), str(k)) for k in range(1, 5)]
    for w in writers:
        assert w.stdin is not None
        w.stdin.write("go\n")
        w.stdin.flush()
    seen = set()
    while any(w.poll() is None for w in writers):
        text = target.read_text()
        assert len(text) == 100_000
        assert len(set(text)) == 1
        seen.add(text[0])
    assert [w.wait() for w in writers] == [0] * 4
    assert names(tmp_path) == ["a.txt"]
    assert seen <= set("01234")


def test_threads_share_no_draft(tmp_path: Path) -> None:
    barrier = threading.Barrier(4)
    drafts = []

    def write(k: int) -> None:
        with files.replacing(tmp_path / "a") as draft:
            drafts.append(draft)
            barrier.wait(10)
            draft.write_text(str(k))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert len(set(drafts)) == 4
    assert names(tmp_path) == ["a"]


@posix
def test_the_next_command_removes_what_a_killed_process_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draft, scratch folder and lock of a dead process go, wherever it wrote; a living one's and others' files stay."""
    temp, far = tmp_path / "temp", tmp_path / "far"
    temp.mkdir()
    far.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temp))
    code = """
    import sys
    from pathlib import Path
    from yolo_attn import files
    from yolo_attn.system import drafts, locks
    folder = Path(sys.argv[1])
    with drafts.scratch() as a, drafts.scratch(folder) as b, files.replacing(folder / "x.pt") as draft:
        locks.take(folder / drafts.LOCK)
        for file in (a / "checkpoint", b / "onnx", draft):
            file.write_text("big")
        print("ready", flush=True)
        sys.stdin.read()
    """
    dead, living = (spawn(code, str(far), env={"TMPDIR": str(temp)}) for _ in range(1)), None
    (killed,) = dead
    assert killed.stdout is not None and killed.stdout.readline() == "ready\n"
    killed.kill()
    killed.wait()
    left = names(far)
    assert len(left) == 3 and len(names(temp)) == 2, (left, names(temp))
    living = spawn(code, str(tmp_path / "far"), env={"TMPDIR": str(temp)})
    assert living.stdout is not None and living.stdout.readline() == "ready\n"
    (far / ".yolo_attn-mine.txt").write_text("not the kit's")
    before = set(names(far))
    assert not set(left) - {drafts.LOCK} & before  # who writes there sweeps there
    assert cli.main(["list"]) == 0
    assert set(names(far)) == before and len(names(temp)) == 2
    living.kill()
    living.wait()
    assert cli.main(["list"]) == 0
    assert names(far) == [".yolo_attn-mine.txt"]
    assert names(temp) == []


def test_another_machines_draft_is_left_alone(tmp_path: Path) -> None:
    name = ".yolo_attn-0123abcd-1-0-0123abcd.pt"
    (tmp_path / name).write_text("of a machine that shares this folder")
    assert drafts.sweep(tmp_path) == []
    assert names(tmp_path) == [name]


@posix
def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    code = "import sys\nfrom pathlib import Path\nfrom yolo_attn.system import locks\nlocks.take(Path(sys.argv[1]))\nprint('held', flush=True)\nsys.stdin.read()"
    holder = spawn(code, str(lock))
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(locks.Busy, match=f"process {holder.pid} on "):
        locks.take(lock)
    assert locks.clear(lock) is False
    holder.kill()
    holder.wait()
    assert f"process {holder.pid} on " in locks.take(lock)
    assert locks.take(lock) == ""  # counted
    locks.release(lock)
    assert lock.is_file()
    locks.release(lock)
    assert not lock.exists()


# Where something else may write: `file: function`, and the reason.
MAY_WRITE = {
    "detectors/bundle.py: save": "a ZIP into a draft",
    "export/classic.py: write_onnx": "into a scratch folder",
    "export/int8.py: quantize": "into a scratch folder, then published",
    "export/onnx.py: write_onnx": "into a scratch folder, then published",
    "export/ultralytics.py: write_onnx": "moves within a scratch folder",
    "inside/explain_report.py: _folder": "moves the finished folder",
    "inside/gate_report.py: write": "removes a figure of an earlier report, when there is nothing to draw any more",
    "inside/check/child.py: main": "what a module prints to nowhere",
    "inside/check/life.py: saved": "into memory",
    "inside/draw/picture.py: draw": "by the writer of figures",
    "runtime/output.py: _picture": "a video, frame by frame, into a draft",
    "export/formats/launched.py: __init__": "why a process cannot be launched, into a file without a name",
    "export/formats/converter.py: printing_to": "what a converter prints, into a scratch folder",
    "export/formats/litert_file.py: add_about": "within a scratch folder",
    "export/formats/litert_file.py: write_like": "within a scratch folder",
    "export/formats/litert_int8.py: quantize": "within a scratch folder",
    "export/formats/litert_int8.py: losses": "within a scratch folder",
    "export/formats/openvino.py: _quantize": "the int8 network in its place, within a scratch folder",
    "export/formats/mnn.py: convert_rounded": "the graph as its converter takes it, in the converter's scratch folder",
    "export/formats/rknn.py: load_onnx": "the graph as its compiler takes it, in the converter's scratch folder",
    "runtime/engines/rknn.py: _elsewhere": "a folder for the drafts that the compiler leaves, gone with it",
    "export/formats/rknn.py: convert": "within a scratch folder",
    "export/formats/torchscript.py: convert": "into a scratch folder",
    "export/formats/write.py: converted": "the converter's file, within a scratch folder",
    "runtime/engines/mnn.py: _silent": "what native code prints to nowhere",
    "runtime/child.py: __init__": "what a runtime prints, as it prints it, into a file without a name",
    "study/record.py: _to_disk": "waits for the disk, and changes nothing",
    "study/record.py: clear": "moves what an unfinished run left into a scratch folder",
    "study/jobs.py: launched": "what a run prints, as it prints it",
    "system/console.py: drop_output": "standard output to nowhere, behind a reader that left",
    "training/pictures.py: truth_beside_prediction": "into a draft",
    "training/shapes.py: _draw": "into a scratch folder, which is moved as a whole",
    "training/shapes.py: _make": "moves the finished folder",
    "weights/start_from.py: save": "into memory",
}
WRITERS = {
    "write_text",
    "write_bytes",
    "imwrite",
    "VideoWriter",
    "save",
    "touch",
    "replace",
    "rename",
    "tofile",
    "savez",
}


def calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    """Every call with the function that it stands in."""
    found: list[tuple[str, ast.Call]] = []

    def walk(node: ast.AST, where: str) -> None:
        for child in ast.iter_child_nodes(node):
            inside = child.name if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) else where
            if isinstance(child, ast.Call):
                found.append((where, child))
            walk(child, inside)

    walk(tree, "*")
    return found


def kind(call: ast.Call) -> str:
    """`write`, `read`, or nothing."""
    f = call.func
    name = f.attr if isinstance(f, ast.Attribute) else getattr(f, "id", "")
    of = getattr(f.value, "id", "") if isinstance(f, ast.Attribute) else ""
    mode = "".join(
        a.value
        for a in [*call.args, *(k.value for k in call.keywords)]
        if isinstance(a, ast.Constant) and isinstance(a.value, str)
    )
    if name == "ZipFile":
        return "write" if set(mode) & set("wax") else ""
    if name == "open":
        if of == "os":
            return (
                "write"
                if {"O_WRONLY", "O_RDWR"} & {n.attr for n in ast.walk(call) if isinstance(n, ast.Attribute)}
                else ""
            )
        if set(mode) & set("wax+"):
            return "write"
        return "" if of == "tokenize" or "rb" in mode else "read"  # Python source says its encoding; bytes have none
    if name == "read_text" and isinstance(f, ast.Attribute) and of != "files":
        return "read"
    if name in WRITERS and isinstance(f, ast.Attribute) and of not in ("files", "start_from"):
        if name == "replace" and of != "os":  # of a string
            return ""
        return "write"
    return "write" if of == "tempfile" and name != "gettempdir" else ""


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("open('x', 'w')", "write"),
        ("path.open('r+b')", "write"),
        ("path.open(encoding='utf-8')", "read"),
        ("open(x).read()", "read"),
        ("path.open('rb')", ""),
        ("tokenize.open(path)", ""),
        ("path.write_text('x')", "write"),
        ("torch.save(x, 'a.pt')", "write"),
        ("zipfile.ZipFile(path, 'w')", "write"),
        ("zipfile.ZipFile(path)", ""),
        ("tempfile.mkstemp()", "write"),
        ("'text'.replace('a', 'b')", ""),
        ("os.replace(a, b)", "write"),
        ("write_text(path, 'x')", ""),
        ("path.read_text()", "read"),
        ("read_text(path, Error)", ""),
    ],
)
def test_what_counts_as_reading_and_writing(code: str, expected: str) -> None:
    assert {kind(c) for _, c in calls(ast.parse(code))} - {""} == {expected} - {""}


def test_everything_goes_through_the_one_writer_and_the_one_reader() -> None:
    ground = {"files.py", "system/drafts.py", "system/locks.py"}
    found: dict[str, set[str]] = {"write": set(), "read": set()}
    for path in sorted((ROOT / "yolo_attn").rglob("*.py")):
        name = path.relative_to(ROOT / "yolo_attn").as_posix()
        if name in ground:
            continue
        for where, call in calls(ast.parse(path.read_text(encoding="utf-8"))):
            what = kind(call)
            if what:
                found[what].add(f"{name}: {where}")
    assert found["write"] == set(MAY_WRITE)
    assert found["read"] == set()


TEXTS = {
    "gbk": ("圆形.png".encode("gbk"), r"is not UTF-8 text \(line 2, byte \d+\). Save it as UTF-8"),
    "utf-16": ("x.png".encode("utf-16"), "is UTF-16 text. Save it as UTF-8"),
}


@pytest.mark.parametrize("coding", TEXTS)
def test_text_in_another_coding_is_one_message(here: Path, capsys: pytest.CaptureFixture[str], coding: str) -> None:
    """Image lists, data sets, hyperparameters, models: each named, with what to do, on every command that reads it."""
    content, told = TEXTS[coding]
    head = b"# 1\n" if coding == "gbk" else b""
    content = head + content if coding == "gbk" else content
    for name in ("list.txt", "data.yaml", "hyp.yaml", "m.yaml"):
        Path(name).write_bytes(content)
    Path("listed.yaml").write_text("train: list.txt\nval: list.txt\nnames: [a]\n")
    Path("host/models").mkdir(parents=True)
    Path("host/utils").mkdir()
    for name in ("train.py", "models/yolo.py", "utils/general.py"):
        Path("host", name).write_text("parse_model = 1\n")
    make_shapes("shapes", Recipe(train=1, val=1, size=32))
    for file, command in {
        "list.txt": "train --data listed.yaml",
        "data.yaml": "train --data data.yaml",
        "hyp.yaml": "train --hyp hyp.yaml",
        "./hyp.yaml": "train --host host --data shapes/shapes.yaml --hyp ./hyp.yaml",
        "m.yaml": "insert m.yaml --module SE --where neck",
        "./m.yaml": "train --cfg ./m.yaml",
        "./list.txt": "detect no.onnx --source ./list.txt",
    }.items():
        if command.startswith("detect"):
            from yolo_attn.runtime.source import Source

            with pytest.raises(DataError, match=rf"list.txt: {told}"):
                Source("list.txt")
            continue
        assert cli.main(command.split()) == 1, command
        err = capsys.readouterr().err
        message = [t for t in err.splitlines() if t.startswith("yolo-attn")]
        assert len(message) == 1 and "Traceback" not in err, err
        assert re.search(rf"{Path(file).name}: {told}", message[0]), message


def test_a_byte_order_mark_is_no_part_of_the_text(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As Windows editors write it; a YAML that is written back keeps its own."""
    made = make_shapes("shapes", Recipe(train=2, val=1, size=32))
    images = sorted((made.parent / "images" / "train").iterdir())
    mark = b"\xef\xbb\xbf"
    Path("list.txt").write_bytes(mark + "\r\n".join(map(str, images)).encode())
    assert dataset.image_files(Path("list.txt")) == images
    Path("data.yaml").write_bytes(mark + made.read_bytes())
    assert dataset.check("data.yaml") is False
    label = made.parent / "labels" / "train" / "0000.txt"
    label.write_bytes(mark + b"0 0.5 0.5 0.2 0.2\n")
    assert dataset.read_labels(images[0]) == ([[0, 0.5, 0.5, 0.2, 0.2]], "")
    plain = (ROOT / "model_cfgs" / "yolov5_se_p5.yaml").read_bytes()
    Path("m.yaml").write_bytes(mark + plain)
    assert cli.main("insert m.yaml --module ECA --where backbone -o n.yaml".split()) == 0
    assert cli.main("insert n.yaml --remove --module ECA -o n.yaml --force".split()) == 0, capsys.readouterr().err
    assert Path("n.yaml").read_bytes() == mark + plain


@pytest.mark.slow
@posix
@pytest.mark.parametrize("limit", [0, 512])
def test_a_full_disk_leaves_the_old_yaml(here: Path, limit: int) -> None:
    """`insert X --force -o X`: one line, exit code 1, the user's file to the last byte, no draft."""
    run_python(
        "-m", "yolo_attn", "insert", "yolov5n.yaml", "--module", "SE", "--where", "neck", "-o", "m.yaml", cwd=here
    ).ok()
    before = Path("m.yaml").read_bytes()
    command = "insert m.yaml --module ECA --where backbone -o m.yaml --force".split()
    message = on_a_full_disk(here, limit, *command)
    assert message == "yolo-attn insert: m.yaml: cannot be written: File too large\n"
    assert Path("m.yaml").read_bytes() == before
    assert names(here) == ["m.yaml"]


def on_a_full_disk(folder: Path, limit: int, *command: str) -> str:
    """Run a command that may write no file beyond `limit` bytes; return its one message."""
    code = """
    import resource, signal, sys
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    from yolo_attn.cli import main
    sys.dont_write_bytecode = True  # Python before 3.12 leaves a cut file, which the next process reads
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), -1))
    raise SystemExit(main(sys.argv[2:]))
    """
    run = run_python("-c", textwrap.dedent(code), str(limit), *command, cwd=folder)
    assert run.code == 1, run.err
    return run.mistake()


@posix
def test_a_full_disk_and_the_embedded_data(here: Path) -> None:
    message = on_a_full_disk(here, 300, "data", "shapes")
    assert "yolo-attn data: cannot write the embedded data set to" in message and "File too large" in message
    assert names(here) == []


def test_first_runs_at_once_give_whole_data_sets(tmp_path: Path) -> None:
    """Four processes, a fresh cache, several rounds: each sees every picture of a set that nobody removes."""
    code = """
    import os, sys, time
    from pathlib import Path
    from yolo_attn.training.shapes import Recipe, make as make_shapes
    recipe = Recipe(train=24, val=4, size=48)
    import cv2
    for line in sys.stdin:
        os.environ["YOLO_ATTN_CACHE"] = line.strip()
        time.sleep(float(sys.argv[1]))
        made = make_shapes(recipe=recipe).parent
        stamp = made.stat().st_ino
        seen = [len(list((made / kind / "train").iterdir())) for kind in ("images", "labels")]
        time.sleep(0.05)
        print(*seen, made.stat().st_ino == stamp, len(list((made / "images" / "train").iterdir())), flush=True)
    """
    workers = [spawn(code, str(0.02 * k)) for k in range(4)]
    for number in range(4):
        cache = tmp_path / str(number)
        for w in workers:
            assert w.stdin is not None
            w.stdin.write(f"{cache}\n")
            w.stdin.flush()
        for w in workers:
            assert w.stdout is not None
            assert w.stdout.readline() == "24 24 True 24\n"
        (made,) = cache.iterdir()
        assert made.name.startswith("shapes-")
    for w in workers:
        w.communicate()


def test_a_damaged_set_in_the_cache_is_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YOLO_ATTN_CACHE", str(tmp_path))
    recipe = Recipe(train=3, val=1, size=32)
    made = make_shapes(recipe=recipe)
    (made.parent / "images" / "train" / "0001.png").unlink()
    assert make_shapes(recipe=recipe) == made
    assert len(list((made.parent / "images" / "train").iterdir())) == 3
    assert names(tmp_path) == [made.parent.name]


def test_a_user_without_a_home(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The temporary folder stands in, is named, and is what children and hosts see while the command runs."""
    from yolo_attn.registry import memory

    def no_home() -> Path:
        if "HOME" in os.environ:
            return Path(os.environ["HOME"])
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("HOME", "YOLO_ATTN_CACHE", "YOLO_ATTN_CONFIG_DIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    instead = files.home_folder()
    assert instead.parent == tmp_path
    assert files.cache_folder() == instead / ".cache" / "yolo_attn"
    assert memory.folder() == instead / ".config" / "yolo_attn" / "plugins"
    assert cli.main("data --train 1 --val 1 --size 32".split()) == 0
    told = capfd.readouterr()
    assert Path(told.out.strip()).is_relative_to(instead)
    assert f"using {instead}. Set HOME" in told.err and "HOME" not in os.environ


@posix
@pytest.mark.parametrize(
    "command",
    [
        pytest.param("insert 模型.yaml --module SE --where neck --dry-run", marks=pytest.mark.slow),
        "insert 模型.yaml --module SE --where neck",
        "list",
        pytest.param("show 模型.yaml", marks=pytest.mark.slow),
    ],
)
def test_a_terminal_that_knows_ascii_alone(here: Path, command: str) -> None:
    text = (ROOT / "model_cfgs" / "yolov5_se_p5.yaml").read_text(encoding="utf-8")
    Path("模型.yaml").write_text("# 注意力 é\n" + text.replace("yolov5", "模型"), encoding="utf-8")
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    run = run_python("-m", "yolo_attn", *command.split(), cwd=here, env=env)
    assert "Traceback" not in run.err and run.code == 0, run.err


@posix
@pytest.mark.parametrize("kind", ["link", "hard link", "another file", "folder"])
def test_what_is_no_lock_is_left_as_it_is(tmp_path: Path, kind: str) -> None:
    """A folder of somebody else's making may have a link where the kit looks for a lock, which it would remove."""
    precious, lock = tmp_path / "precious", tmp_path / "theirs" / drafts.LOCK
    lock.parent.mkdir()
    precious.write_text("years of work\n")
    if kind == "link":
        lock.symlink_to(precious)
    elif kind == "hard link":
        os.link(precious, lock)
    elif kind == "another file":
        lock.write_text("years of work\n")
    else:
        lock.mkdir()
    files.write_text(lock.parent / "a.yaml", "x")  # which clears locks that nobody holds
    drafts.sweep(lock.parent)
    assert not locks.clear(lock)
    with pytest.raises(OSError, match="is not a lock of this kit|directory") as caught:
        locks.take(lock)
    assert caught.value.errno in files.REFUSED
    if kind != "folder":
        assert lock.read_text() == "years of work\n"
    assert precious.read_text() == "years of work\n" and os.path.lexists(lock)


@posix
def test_a_child_that_is_forked_while_a_thread_waits_for_a_lock(tmp_path: Path) -> None:
    """The child takes and clears locks; those of its parent are not its own."""
    code = """
    import os, sys, threading, time
    from pathlib import Path
    from yolo_attn.system import drafts, locks
    folder = Path(sys.argv[1])
    locks.take(folder / "parents")
    threading.Thread(target=locks.take, args=(folder / "others",), kwargs={"wait": True}, daemon=True).start()
    time.sleep(0.5)
    pid = os.fork()
    if not pid:
        try:
            locks.take(folder / "parents")
        except locks.Busy:
            drafts.sweep(folder)
            locks.take(folder / "mine")
            locks.release(folder / "mine")
            os._exit(0)
        os._exit(1)
    for _ in range(3000):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        time.sleep(0.1)
    else:
        os.kill(pid, 9)
    print("CHILD", "ended" if done else "hung", status, flush=True)
    os._exit(0)
    """
    locks.take(tmp_path / "others")
    try:
        out, _ = spawn(code, str(tmp_path)).communicate(timeout=600)
    finally:
        locks.release(tmp_path / "others")
    assert out.split() == ["CHILD", "ended", "0"]


def test_a_worker_leaves_no_list_of_folders(tmp_path: Path) -> None:
    """Workers of multiprocessing, and those that load data, end without what is done at exit."""
    code = """
        import multiprocessing, sys
        from pathlib import Path
        from yolo_attn.files import write_text

        def work(place):
            write_text(Path(place) / "a.txt", "a")

        if __name__ == "__main__":
            worker = multiprocessing.get_context(sys.argv[1]).Process(target=work, args=(sys.argv[2],))
            worker.start()
            worker.join()
            sys.exit(worker.exitcode)
    """
    script, place, own = tmp_path / "script.py", tmp_path / "place", tmp_path / "own"
    script.write_text(textwrap.dedent(code), encoding="utf-8")
    place.mkdir()
    own.mkdir()
    for method in {"fork", "spawn"} & set(multiprocessing.get_all_start_methods()):
        env = {**os.environ, "TMPDIR": str(own), "TEMP": str(own), "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, script, method, place], env=env, check=True)
        assert (place / "a.txt").read_text(encoding="utf-8") == "a"
        assert [p.name for p in own.iterdir() if p.suffix == ".folders"] == []

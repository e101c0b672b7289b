# shellcheck shell=sh
# Sourced by ../try and ../check: finds a Python, and makes the project's .venv once.
# It installs nothing outside the project and never touches the system's own Python.
# Expects `root`, the project's directory. Sets `venv`. POSIX sh.

venv=${root:?}/.venv

fail() {
    printf '%s: %s\n' "${0##*/}" "$1" >&2
    shift
    for line in "$@"; do printf '  %s\n' "$line" >&2; done
    exit 1
}

# Prints the first Python that is new enough and can make environments. Asking it to run, not only whether it is on
# PATH, sorts out version managers that put a name there for every version they know of.
find_python() {
    without_venv=
    for name in python3.13 python3.12 python3.11 python3 python3.14; do
        "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        if "$name" -c 'import ensurepip, venv' 2>/dev/null; then
            command -v "$name"
            return
        fi
        without_venv=${without_venv:-$name}
    done
    if [ -n "$without_venv" ]; then
        version=$("$without_venv" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        fail "$without_venv (Python $version) cannot make virtual environments: its ensurepip is missing." \
            "On Debian and Ubuntu:  apt-get install python3-venv" \
            "or, for a Python that is not the default one:  apt-get install python$version-venv"
    fi
    fail "no Python 3.11 or newer was found (looked for python3.13, python3.12, python3.11, python3, python3.14)." \
        "On Debian 12, Ubuntu 24.04 and newer:  apt-get install python3 python3-venv"
}

# prepare_venv run: the package and what it needs to run.
# prepare_venv dev: that, and the tools that check it.
# .venv is ours to replace: it is made anew when the lock, or the place of the project, is another than it was made for,
# so that nothing from before can hide a missing dependency. Otherwise this costs two checksums.
prepare_venv() {
    kind=$1
    if ! "$venv/bin/python" -c '' 2>/dev/null || ! { made_for dev || made_for "$kind"; }; then
        python=$(find_python) || exit 1
        printf 'Preparing %s with %s, once; this takes a minute or two.\n' "$venv" "$python" >&2
        "$python" -m venv --clear "$venv" || fail "could not make $venv." "Nothing outside it was changed."
        pip_install --require-hashes -r "$(lock_of "$kind")"
        checksum "$(lock_of "$kind")" >"$venv/made-for-$kind"
    fi
    if [ "$(cat "$venv/made-for-package" 2>/dev/null)" != "$(checksum "$root/pyproject.toml" "$root/kdnsctl/__init__.py")" ]
    then
        # The development lock holds what builds the package; without it pip fetches that for a moment.
        if made_for dev; then isolation=--no-build-isolation; else isolation=; fi
        pip_install --no-deps $isolation -e "$root"
        checksum "$root/pyproject.toml" "$root/kdnsctl/__init__.py" >"$venv/made-for-package"
    fi
}

lock_of() {
    if [ "$1" = dev ]; then printf %s "$root/requirements-dev.lock"; else printf %s "$root/requirements.lock"; fi
}

made_for() {
    [ "$(cat "$venv/made-for-$1" 2>/dev/null)" = "$(checksum "$(lock_of "$1")")" ]
}

# Of the files given and of the place of the project: scripts in an environment name the place they were made in.
checksum() {
    { printf '%s\n' "$root" && cat "$@"; } | cksum
}

pip_install() {
    "$venv/bin/python" -m pip --disable-pip-version-check --no-input install -qq "$@" ||
        fail "pip could not install what is needed into $venv." \
            "Its message is above; a package index must be reachable. Nothing outside $venv was changed." \
            "Run the same command again to go on."
}

# Sourced by ../try and ../check: finds a Python, and makes the project's .venv once.
# It installs nothing outside the project and never touches the system's own Python.
# Expects `root`, the project's directory. Sets `venv`. POSIX sh.

venv=$root/.venv

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
# What is there already is kept: a stamp remembers which files, which place and which Python it was made from.
prepare_venv() {
    kind=$1
    if [ "$kind" = dev ]; then lock=$root/requirements-dev.lock; else lock=$root/requirements.lock; fi
    state=$(printf '%s\n' "$root" && cat "$root/pyproject.toml" "$root/requirements.lock" "$root/requirements-dev.lock" |
        cksum) || exit 1
    if [ -x "$venv/bin/python" ] && "$venv/bin/python" -c '' 2>/dev/null; then
        for made in "$kind" dev; do # dev holds everything that run does
            if [ "$(cat "$venv/made-for-$made" 2>/dev/null)" = "$state" ]; then return; fi
        done
    fi

    python=$(find_python) || exit 1
    printf 'Preparing %s with %s, once; this takes a minute or two.\n' "$venv" "$python" >&2
    if ! { [ -x "$venv/bin/python" ] && "$venv/bin/python" -m pip --version >/dev/null 2>&1 && [ -f "$venv/made-for" ] &&
        [ "$(cat "$venv/made-for")" = "$root" ]; }; then
        # None yet, broken half way, or moved here from another place: scripts in it name their old place.
        "$python" -m venv --clear "$venv" || fail "could not make $venv." "Nothing else was changed."
        printf '%s\n' "$root" >"$venv/made-for"
    fi
    rm -f "$venv/made-for-run" "$venv/made-for-dev"
    pip_install --require-hashes -r "$lock"
    if [ "$kind" = dev ]; then
        pip_install --no-deps --no-build-isolation -e "$root"
    else
        pip_install --no-deps -e "$root"
    fi
    printf '%s\n' "$state" >"$venv/made-for-$kind"
}

pip_install() {
    "$venv/bin/python" -m pip --disable-pip-version-check --no-input install -qq "$@" ||
        fail "pip could not install what is needed into $venv." \
            "Its message is above; a package index must be reachable. Nothing outside $venv was changed." \
            "Run the same command again to go on."
}

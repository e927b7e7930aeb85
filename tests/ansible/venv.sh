# shellcheck shell=bash
# Sourced by the scripts that need Python tools: virtual environments in the cache folder, made once per set of pins.

venvs="${XDG_CACHE_HOME:-$HOME/.cache}/nfslock/venvs"

# python_of VERSION: the interpreter's path, or nothing. A pyenv shim exists also for versions that are switched off.
python_of() {
    local candidate
    for candidate in "python$1" "$HOME/.pyenv/versions/$1".*/bin/python3; do
        if command -v "$candidate" >/dev/null && "$candidate" -c 'import ensurepip' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
}

# newest_python OLDEST: sets version and python to the newest Python that is here, from OLDEST on, and core to the newest ansible-core
# for it; fails where there is none.
newest_python() {
    for version in 3.13 3.12 3.11; do
        core=2.21.5
        # shellcheck disable=SC2034 # for the caller
        [ "$version" != 3.11 ] || core=2.19.14 # the last for this Python
        python="$(python_of "$version")"
        [ -z "$python" ] || return 0
        [ "$version" != "$1" ] || return 1
    done
}

# venv NAME PYTHON REQUIREMENT...: makes $venvs/NAME unless it has just these requirements, and prints its bin folder.
venv() {
    local dir="$venvs/$1" python="$2" pins
    shift 2
    pins="$("$python" --version) $*"
    mkdir -p "$venvs"
    (
        flock 9
        if [ "$(cat "$dir/pins" 2>/dev/null)" != "$pins" ]; then
            rm -rf "$dir"
            "$python" -m venv "$dir"
            "$dir/bin/pip" install --quiet --disable-pip-version-check "$@"
            echo "$pins" >"$dir/pins"
        fi
    ) 9>"$dir.lock" >&2 || return
    echo "$dir/bin"
}

# Sourced by deploy/test and deploy/demo: what a fresh Debian or Ubuntu lacks, and the virtual environment.
# Installs nothing that is there, and leaves no service running that it brought.

needed=()

say() { printf '   %s\n' "$*"; }
die() { printf '%s: %s\n' "$0" "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"
    elif command -v sudo >/dev/null; then sudo "$@"
    else die "'$1' needs root, and there is no sudo; run this as root, or install first: ${needed[*]}"
    fi
}

need_program() {  # program, Debian package
    PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null || needed+=("$2")
}

# Python of a version that setup.cfg allows: on the PATH, else among pyenv's. A shim that answers to no version is none.
find_python() {  # version such as 3.12; without one, the newest fit
    local version candidate
    for version in ${1:-3 3.13 3.12 3.11}; do
        for candidate in "python$version" "$HOME"/.pyenv/versions/"$version"*/bin/python; do
            if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
                command -v "$candidate"
                return 0
            fi
        done
    done
    return 1
}

need_python_venv() {
    local python
    python=$(find_python) || { needed+=(python3 python3-venv); return; }
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        needed+=("$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')")
}

install_needed() {
    [ "${#needed[@]}" -gt 0 ] || { say "all there"; return 0; }
    command -v apt-get >/dev/null || die "this machine has no apt-get; install these yourself: ${needed[*]}"
    say "installing: ${needed[*]}"
    local policy=/usr/sbin/policy-rc.d mine=no package
    # Debian starts a service as it installs it; we want the programs only.
    if [ ! -e "$policy" ]; then
        mine=yes
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod +x "$policy"
    fi
    local fault=0
    { as_root apt-get -q -y update &&
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends "${needed[@]}"
    } >.apt.log 2>&1 || fault=1
    [ "$mine" = no ] || as_root rm -f "$policy"
    [ "$fault" = 0 ] || { tail -n 20 .apt.log >&2; rm -f .apt.log; die "apt-get could not install: ${needed[*]}"; }
    rm -f .apt.log
    for package in "${needed[@]}"; do
        case "$package" in
            redis-server | postgresql)
                if [ -d /run/systemd/system ]; then as_root systemctl disable --now "$package" >/dev/null 2>&1 || true; fi ;;
        esac
    done
    needed=()
}

# A virtual environment with this clone installed editable; made anew only when setup.cfg or the Python has changed.
make_venv() {  # what to install, [python], [folder]
    local what=$1 python=${2:-} folder=${3:-.venv} stamp file
    [ -n "$python" ] || python=$(find_python) || die "no Python 3.11 to 3.13 on this machine"
    stamp="$("$python" -c 'import sys; print(sys.version)') $what $PWD $(cat setup.cfg pyproject.toml | cksum)"
    # One stamp for each set of extras: the demo and the tests share the folder.
    file="$folder/.stamp-$(printf '%s' "$what" | cksum | cut -d' ' -f1)"
    if [ -x "$folder/bin/python" ] && [ "$(cat "$file" 2>/dev/null)" = "$stamp" ]; then
        say "$folder is up to date"
        return 0
    fi
    say "installing $what into $folder ($("$python" -c 'import platform; print(platform.python_version())'))"
    [ -x "$folder/bin/python" ] && "$folder/bin/python" -c '' 2>/dev/null || "$python" -m venv --clear "$folder"
    if ! { "$folder/bin/python" -m pip install --upgrade 'pip>=24' && "$folder/bin/python" -m pip install -e "$what"
    } >"$folder/pip.log" 2>&1; then
        tail -n 15 "$folder/pip.log" >&2
        die "pip could not install $what"
    fi
    printf '%s' "$stamp" >"$file"
}

# The lab takes the machine's own Asterisk, else one that debootstrap fetches once into a cached folder.
lab_root() { printf '%s' "${RINGBRIDGE_LAB_ROOT:-${XDG_CACHE_HOME:-$HOME/.cache}/ringbridge/lab-root}"; }

need_asterisk() {
    PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v asterisk >/dev/null || [ -x "$(lab_root)/usr/sbin/asterisk" ] ||
        need_program debootstrap debootstrap
}

fetch_asterisk() {  # needs the virtual environment; debootstrap needs root
    PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v asterisk >/dev/null && return 0
    [ -x "$(lab_root)/usr/sbin/asterisk" ] && return 0
    [ -n "${RINGBRIDGE_LAB_ASTERISK:-}" ] && return 0
    printf 'An Asterisk for the lab (once; it takes a few minutes)\n'
    mkdir -p "$(dirname "$(lab_root)")"
    as_root env "RINGBRIDGE_LAB_ROOT=$(lab_root)" "PATH=$PATH:/usr/sbin:/sbin" "$PWD/.venv/bin/python" -P -c \
        'from ringbridge_lab.installation import find; find(progress=lambda line: print("   " + line, flush=True))'
}

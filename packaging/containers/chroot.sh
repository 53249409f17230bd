#!/bin/bash
# Run the steps of Dockerfile in a chroot of Debian, and the tool in it as the image's user, where no container engine runs:
#   packaging/containers/chroot.sh FOLDER
# Needs root and debootstrap. Both stages share the chroot, so that COPY --from has nothing to do. The names of ARG can be
# set in the environment, and pip takes its own from there (PIP_INDEX_URL ...).
set -euo pipefail
root=$(realpath -m "$1")
cd "$(dirname "$0")/../.."
[ -d "$root/usr" ] || debootstrap --variant=minbase --include=python3-venv,python-is-python3,ca-certificates bookworm "$root"
folder=/ user=root
inside() { chroot --userspec="$user" "$root" bash -euc "cd $folder; $1" < /dev/null; }
while read -r step rest; do
    case $step in
        ARG) name=${rest%%=*}; export "$name=${!name:-${rest#*=}}" ;;
        ENV) for pair in $rest; do export "$(eval echo "$pair")"; done ;;
        WORKDIR) folder=$rest; mkdir -p "$root$folder" ;;
        RUN) inside "$rest" ;;
        COPY)
            read -ra words <<< "$rest"
            [[ ${words[0]} == --from=* ]] || cp -r "${words[@]::${#words[@]}-1}" "$root$folder/${words[-1]}"
            ;;
        USER) user=$rest ;;
    esac
done < <(sed -e ':next' -e '/\\$/{N; s/\\\n//; b next' -e '}' packaging/containers/Dockerfile)
rm -r "$root/source"
inside "hyena --version; hyena doctor --no-speed; id -u"
du -sm "$root/opt/hyena" "$root/usr"

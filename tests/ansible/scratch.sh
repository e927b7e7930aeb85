# shellcheck shell=bash
# Sourced by the scripts that must not write into the checkout.

# scratch_copy ROOT DIR: copies what git knows or would add, and the built programs of plugins/modules if there are any.
scratch_copy() {
    (
        cd "$1" || exit
        {
            git ls-files -z --cached --others --exclude-standard
            find plugins/modules -type f -print0
        } | sort -zu | while IFS= read -r -d '' file; do
            [ ! -e "$file" ] || printf '%s\0' "$file" # deleted, and not committed yet
        done | tar --null -cf - -T -
    ) | tar -xf - -C "$2"
}

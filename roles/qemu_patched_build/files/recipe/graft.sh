# shellcheck shell=bash disable=SC2034,SC2154 # the variables are shared by the files of the recipe
# The distribution's own .deb with the new programs in it.

deb_name() { printf '%s_%s_%s.deb' "$1" "${new_version#*:}" "$architecture"; }

# graft PACKAGE: the stock package with the new programs, as a file in $private/result.
graft() {
  local root=$private/stock/$1 file
  while IFS= read -r -d '' file; do
    is_elf "$file" || continue
    install -m "$(stat -c %a "$file")" "$private/new/${file##*/}" "$private/replacement"
    mv "$private/replacement" "$file"
  done < <(find "$root/usr" -type f -print0)

  # A companion may demand this package in exactly the stock version: the package goes on providing it. The fields that begin with Nfslock are
  # nobody else's; dpkg keeps them in its database, and by them alone the collection knows a package as its own, whatever the version looks like.
  awk -v version="$new_version" -v provided="$1 (= $version)" -v source="$source_name ($source_version)" -v variant="$variant" -v suffix="$suffix" \
    -v built_from="$source_version" -v stock="$version" '
    BEGIN { FS = ": " }
    $1 == "Source" { next }
    $1 == "Package" { print; print "Source: " source; next }
    $1 == "Version" {
      print "Version: " version
      print "Nfslock-Variant: " variant
      print "Nfslock-Suffix: " suffix
      print "Nfslock-Built-From: " built_from
      print "Nfslock-Stock: " stock
      next
    }
    $1 == "Provides" { print $0 ", " provided; provided = ""; next }
    $1 == "Description" && provided != "" { print "Provides: " provided }
    { print }' "$root/DEBIAN/control" > "$private/control"
  cat "$private/control" > "$root/DEBIAN/control"
  (cd "$root" && cut -c 35- DEBIAN/md5sums | tr '\n' '\0' | xargs -0 md5sum) > "$private/md5sums"
  cat "$private/md5sums" > "$root/DEBIAN/md5sums"
  quiet "pack $1" dpkg-deb --root-owner-group -Zxz -b "$root" "$private/result/$(deb_name "$1")"
}

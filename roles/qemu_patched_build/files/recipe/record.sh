# shellcheck shell=bash disable=SC2034,SC2154 # the variables are shared by the files of the recipe
# manifest.yml, the patch set; build.yml, what the next run compares its inputs with; build-DISTRIBUTION-RELEASE-ARCHITECTURE.yml, all that
# went into one build. The first two are lists of flat maps, written here only, and read here line by line.

# entries FILE KEY…: one line per entry, first the values of KEYs, then its text with \037 for line ends.
entries() {
  awk -v keys="${*:2}" '
    function flush(  i, n, k, id) {
      if (text == "") return
      n = split(keys, k, " ")
      for (i = 1; i <= n; i++) id = id value[k[i]] " "
      print id "\t" text
      text = ""
      split("", value)
    }
    /^  - / { flush() }
    /^  (- |  )[a-z0-9_]+: / {
      name = $0; sub(/^  (- |  )/, "", name); v = name; sub(/:.*/, "", name); sub(/^[a-z0-9_]+: /, "", v); sub(/ +#.*/, "", v)
      value[name] = v
      text = text (text == "" ? "" : "\037") $0
    }
    END { flush() }' "$1"
}

# merge OLD NEW: the entries of OLD for other platforms, and all of NEW, in a fixed order.
merge() {
  local platform="$distribution $release $architecture "
  { [ ! -e "$1" ] || entries "$1" distribution release architecture name | awk -v here="$platform" 'index($0, here) != 1'
    entries "$2" distribution release architecture name
  } | LC_ALL=C sort | cut -f 2- | tr '\037' '\n'
}

value_in() { sed -n "s/^$2: *//p" "$1" | sed -E 's/ +#.*//' | head -n 1; }

write_record() {
  cat <<END
  - distribution: $distribution
    release: $release
    architecture: $architecture
    packages: ${packages[*]}
    version: $version
    variant: $variant
    suffix: $suffix
    patch_sha256: $patch_sha256
    recipe_sha256: $recipe_sha256
    identical: $1
END
}

# Whether --out holds what this call would build: the same inputs, and every package with the bytes that its manifest tells.
current() {
  local identical want name file size sum count=0
  [ -e "$out/build.yml" ] && [ -e "$out/manifest.yml" ] || return 1
  want=
  for identical in true but_order false; do
    [ "$identical" != false ] || [ "$allow_different" = yes ] || continue
    write_record "$identical" > "$private/record"
    entries "$out/build.yml" version | cut -f 2- | grep -qxF -- "$(entries "$private/record" version | cut -f 2-)" && want=$identical
  done
  [ -n "$want" ] || return 1
  while IFS=$'\t' read -r name file size sum; do
    [[ " ${packages[*]} " == *" $name "* ]] || continue
    [ "$(stat -c %s "$out/$file" 2> /dev/null)" = "$size" ] || return 1
    [ "$(sha256sum < "$out/$file")" = "$sum  -" ] || return 1
    count=$((count + 1))
  done < <(entries "$out/manifest.yml" distribution release architecture | awk -v here="$distribution $release $architecture " -F '\t' '$1 == here { print $2 }' |
    while IFS= read -r entry; do
      tr '\037' '\n' <<< "$entry" | sed -nE 's/^  (- |  )(name|file|size|sha256): //p' | paste -sd '\t'
    done)
  [ "$count" = ${#packages[@]} ]
}

refuse_other_set() {
  local key
  [ -e "$out/manifest.yml" ] || return 0
  [ "$(value_in "$out/manifest.yml" schema)" = 1 ] || die "cannot add to the patch set in that folder: its schema is $(value_in "$out/manifest.yml" schema), not 1"
  for key in variant suffix; do
    [ "$(value_in "$out/manifest.yml" $key)" = "${!key}" ] ||
      die "cannot add to the patch set in that folder: its $key is $(value_in "$out/manifest.yml" $key), not ${!key}; one set has one $key, so use another folder"
  done
}

listed_files() { [ ! -e "$1" ] || sed -n 's/^    file: //p' "$1" | sort; }

# name_and_sum: "sha256  name" lines in, a list of maps out.
name_and_sum() { sed -E 's/^([0-9a-f]{64}) [ *](.*)$/  - file: \2\n    sha256: \1/'; }

# quoted TEXT: a double-quoted scalar of YAML.
quoted() {
  local text=${1//\\/\\\\}
  printf '"%s"' "${text//\"/\\\"}"
}

# write_full_record: of one build, for people and for whoever wants to repeat it.
write_full_record() {
  cat <<END
# What $distribution $release $architecture in this folder was built from and with. The patch set itself is manifest.yml.
image: $(quoted "$image")
image_id: $(quoted "$image_id")
version: $version
variant: $variant
profile: $profile
identical: $identical
patch_sha256: $patch_sha256
source: $source_name $source_version
sources:
$(source_files | name_and_sum)
stock:
$(cd "$private/debs" && sha256sum -- *.deb | name_and_sum)
result:
$(cd "$private/result" && sha256sum -- *.deb | name_and_sum)
recipe:
$(recipe_sums | name_and_sum)
configure_options: $(quoted "$configure_options")
compiler: $(quoted "$(compiler_name | paste -sd ' ')")
seconds: $((EPOCHSECONDS - began))
logs: [$record_name.log, $record_name-detail.log]
installed:
$(dpkg-query -W -f '  - ${binary:Package} ${Version}\n')
END
}

publish() {
  local package file
  record_name=build-$distribution-$release-$architecture
  for package in "${packages[@]}"; do
    file=$(deb_name "$package")
    cat <<END
  - name: $package
    version: $new_version
    built_from: $source_version
    stock: $version
    distribution: $distribution
    release: $release
    architecture: $architecture
    file: $file
    size: $(stat -c %s "$private/result/$file")
    sha256: $(sha256sum < "$private/result/$file" | cut -d ' ' -f 1)
END
  done > "$private/packages"
  write_record "$identical" > "$private/record"

  # On the same filesystem as the result, so that each move is one rename.
  staging=$(mktemp -d "$out/.new.XXXXXX")
  {
    printf 'schema: 1\nvariant: %s\nsuffix: %s\npackages:\n' "$variant" "$suffix"
    merge "$out/manifest.yml" "$private/packages"
  } > "$staging/manifest.yml"
  {
    printf '# What the packages were built from, for the next run to compare with. The patch set itself is manifest.yml.\nbuilds:\n'
    merge "$out/build.yml" "$private/record"
  } > "$staging/build.yml"
  write_full_record > "$staging/$record_name.yml"
  cp "$private/result/"*.deb "$staging/"
  cp "$log" "$staging/$record_name.log"
  cp "$detail" "$staging/$record_name-detail.log"
  chmod 0644 "$staging"/*
  comm -23 <(listed_files "$out/manifest.yml") <(listed_files "$staging/manifest.yml") > "$private/superseded"
  mv -f "$staging"/*.deb "$staging/$record_name"* "$out/"
  mv -f "$staging/build.yml" "$out/build.yml"
  mv -f "$staging/manifest.yml" "$out/manifest.yml"
  while IFS= read -r file; do
    [[ $file == */* ]] || rm -f -- "$out/$file"
  done < "$private/superseded"
}

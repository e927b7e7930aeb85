#!/usr/bin/env bash
# One container's part of the matrix of image locks. /m is shared by the containers of one profile; this one opens images and keeps
# them open, waits until all the others have done so, runs its commands, and lets go when all are done.
# /m/NAME.holds and /m/NAME.cells: a line is FOLDER, IMAGE (holds only) and COMMAND, with tabs between. What a command said is in
# FOLDER/out and FOLDER/err; FOLDER/code is its exit code, 124 or 137 if it took longer than LIMIT, or "open" for an image kept open.
# usage: image-locks.sh LIMIT NAME ALL-NAMES…
set -uo pipefail
trap '' PIPE # a command that gave up does not read what it is told
cd /m || exit 1
limit=$1 me=$2
shift 2

# await WORD NAME…: until every container has left its mark
await() {
  local word=$1 name
  shift
  for name in "$@"; do
    until [ -e "$name.$word" ]; do
      if [ $SECONDS -gt 120 ]; then
        echo "$me: $name is not $word after 2 minutes" >&2
        exit 1
      fi
      sleep 0.05
    done
  done
}

# An open image is one whose qemu-io answers.
folders=() images=() pids=()
while IFS=$'\t' read -r folder image line; do
  mkfifo "$folder/in"
  (cd "$folder" && exec bash -c "exec $line" <in >out 2>err) &
  pids+=($!) folders+=("$folder") images+=("$image")
  exec {in}>"$folder/in"
  echo length >&"$in"
done <"$me.holds"
for i in "${!folders[@]}"; do
  code=
  until grep -q iB "${folders[i]}/out"; do
    if ! kill -0 "${pids[i]}" 2>/dev/null; then
      wait "${pids[i]}"
      code=$?
      break
    fi
    if [ $SECONDS -gt "$limit" ]; then code=124 && break; fi
    sleep 0.02
  done
  grep ":$(stat -c %i "${folders[i]}/${images[i]}") " /proc/locks >"${folders[i]}/locks"
  echo "${code:-open}" >"${folders[i]}/code"
done
touch "$me.ready"
await ready "$@"

while IFS=$'\t' read -r folder line; do
  (cd "$folder" && exec timeout -k 1 "$limit" bash -c "exec $line" </dev/null >out 2>err)
  echo $? >"$folder/code"
done <"$me.cells"
touch "$me.done"
await "done" "$@"
[ ${#pids[@]} = 0 ] || kill "${pids[@]}" 2>/dev/null
exit 0

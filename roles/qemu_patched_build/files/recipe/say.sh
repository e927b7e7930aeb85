# shellcheck shell=bash disable=SC2034,SC2154 # the variables are shared by the files of the recipe
# What people read while it runs, and where the commands' own words go: $log is build.log, $detail is build-detail.log.

die() {
  announce "error: $*" >&2
  exit 1
}

# announce LINE: for people, on the terminal and in build.log. Nothing is written into --out by --check.
announce() {
  printf '%s\n' "$*"
  [ -z "${log:-}" ] || printf '%s %s\n' "$(date +%T)" "$*" >> "$log"
}

# step WORD WHAT…: "4/9 compile: as the distribution does".
step() {
  [ -z "${step_began:-}" ] || announce "  $((EPOCHSECONDS - step_began)) s"
  step_began=$EPOCHSECONDS
  step_number=$((${step_number:-0} + 1))
  step_word=$1
  announce "$step_number/$steps $step_word: ${*:2}"
}

# progress DONE ALL: "4/9 compile 62 %", where that is 2 s and 5 % further than the last.
progress() {
  local percent=$(($1 * 100 / ($2 > 0 ? $2 : 1)))
  percent=$((percent > 100 ? 100 : percent))
  if ((percent < 100 && (EPOCHSECONDS - ${progress_at:-0} < 2 || percent - ${progress_percent:-0} < 5))); then return; fi
  progress_at=$EPOCHSECONDS progress_percent=$percent
  announce "$step_number/$steps $step_word $percent %"
}

# quiet WHAT COMMAND…: its output goes to build-detail.log, and its end also to the terminal when it fails.
quiet() {
  local what=$1 from
  shift
  from=$(wc -l < "$detail")
  printf '\n## %s: %s\n' "$what" "$*" >> "$detail"
  "$@" >> "$detail" 2>&1 < /dev/null && return
  tail -n "+$((from + 1))" "$detail" | tail -n 30 >&2
  die "cannot $what: ${1##*/} failed, see build-detail.log"
}

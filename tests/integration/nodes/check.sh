# shellcheck shell=bash
# Sourced by scripts that tell what they see of a host, and go on where it is wrong: checks that count in $passed and $failed. $scenario, which may be
# empty, stands in front of what failed.
# shellcheck disable=SC2034 # they are the script's that sources this
passed=0 failed=0 failures='' scenario=''

# outcome OK WHAT WRONG: WHAT is shown where OK is 0, and WRONG with the name of the check else
outcome() {
  if [ "$1" = 0 ]; then
    printf 'ok    %s\n' "$2"
    passed=$((passed + 1))
  else
    local line="FAIL  ${scenario:+$scenario: }$3"
    printf '%s\n' "$line"
    failures+=$line$'\n'
    failed=$((failed + 1))
  fi
}

# check WHAT SEEN WANT
check() {
  local rc=0
  [ "$2" = "$3" ] || rc=1
  outcome $rc "$1: $2" "$1: ${2:-nothing}, not $3"
}

# contains WHAT TEXT PART
contains() {
  local rc=0
  [[ $2 == *"$3"* ]] || rc=1
  outcome $rc "$1: …$3…" "$1: no \"$3\" in: $2"
}

# lacks WHAT TEXT PART
lacks() {
  local rc=0
  [[ $2 != *"$3"* ]] || rc=1
  outcome $rc "$1: no \"$3\"" "$1: \"$3\" in: $2"
}

# tally: what failed, once more and in the end, where somebody who sees the end of a log alone finds it. It fails if anything has.
tally() {
  printf '\n%s%d passed, %d failed\n' "$failures" "$passed" "$failed"
  [ "$failed" = 0 ]
}

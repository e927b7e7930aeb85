# shellcheck shell=bash
# Sourced. Long steps with an end and a sign of life.

# step SECONDS NAME WHAT COMMAND…: runs COMMAND, a program or a function, with its output in $logs/NAME.log; says what it does, each half minute
# the last line of that log, and how long it took. Ends it after SECONDS. Returns the command's code, 124 if it was ended. set -e does not hold in a
# function that is run so: it says itself where it ends.
step() {
  local limit=$1 name=$2 what=$3 began=$SECONDS said=$SECONDS rc=0 pid log
  shift 3
  mkdir -p "${logs:?}"
  log=$logs/$name.log
  printf -- '--    %s\n' "$what"
  set -m # a process group of its own, so that all of it can be ended
  ("$@") >"$log" 2>&1 </dev/null &
  pid=$!
  set +m
  trap 'kill -- -'"$pid"' 2>/dev/null; exit 130' INT TERM
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.2
    if [ $((SECONDS - began)) -ge "$limit" ]; then
      kill -- "-$pid" 2>/dev/null
      sleep 2
      kill -9 -- "-$pid" 2>/dev/null
      rc=124
      break
    fi
    if [ $((SECONDS - said)) -ge 30 ]; then
      said=$SECONDS
      printf '      %4d s: %s\n' $((SECONDS - began)) "$(last_line "$log")"
    fi
  done
  trap - INT TERM
  if [ "$rc" = 124 ]; then
    wait "$pid" 2>/dev/null || true
  else
    wait "$pid" || rc=$?
  fi
  printf '      %s: %d s\n' "$([ "$rc" = 0 ] && echo ok || echo "ended with $rc, see $log")" $((SECONDS - began))
  printf '%4d s  %s\n' $((SECONDS - began)) "$what" >>"$logs/times"
  return "$rc"
}

# last_line FILE: what can be read of it; a foreign word never rules the terminal.
last_line() { tail -c 2000 "$1" | tr -c '[:print:]\n' ' ' | grep -v '^ *$' | tail -1 | cut -c1-110; }

# must SECONDS NAME WHAT COMMAND…: a step without which nothing goes on
must() {
  step "$@" && return
  tail -n 40 "$logs/$2.log" | tr -c '[:print:]\n' ' ' >&2
  exit 1
}

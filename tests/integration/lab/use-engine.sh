# shellcheck shell=bash
# Sourced by tests that run alone as well as in the middle of others: these go on with the engine that was there before.

lab_engine=${BASH_SOURCE[0]%/*}/engine.sh
own_engine=

# use_engine: the engine that runs, or a private one
use_engine() {
  eval "$("$lab_engine" env)"
  if ! docker info >/dev/null 2>&1; then
    own_engine=yes
    "$lab_engine" up
    eval "$("$lab_engine" env)"
  fi
}

# leave_engine: ends the engine that use_engine has started
leave_engine() {
  [ -z "$own_engine" ] || "$lab_engine" down
}

# shellcheck shell=bash
# shellcheck disable=SC2034 # they are the script's that sources this
# Sourced. Options with which the lab's containers are made.

# Privileged, all but: engines refuse that where the machine lacks a capability, and in clouds this one is often missing. With a seccomp profile of the
# caller's choice.
privileged=(--cap-add ALL --cap-drop SYS_RESOURCE --device-cgroup-rule 'a *:* rwm' --security-opt apparmor=unconfined)
# What kolla-ansible gives each of its containers.
deployed=(-e KOLLA_CONFIG_STRATEGY=COPY_ALWAYS --health-interval 30s --health-timeout 30s --health-retries 3 --health-start-period 5s)

# shellcheck shell=bash disable=SC2034,SC2154 # the variables are shared by the files of the recipe
# What is rebuilt. A profile names stock packages, and how much of QEMU has to be configured so that their programs come out identical.

# system_package ARCHITECTURE: the package with the program that runs guests on a host of that architecture (dpkg's name).
system_package() {
  case $1 in
    amd64) echo qemu-system-x86 ;;
    arm64) echo qemu-system-arm ;;
  esac
}

choose_packages() {
  local system name
  packages=(qemu-utils)
  case $profile in
    tools) ;;
    host)
      system=$(system_package "$architecture")
      [ -n "$system" ] || die "cannot build profile host for $architecture: kolla has amd64 and arm64; name the package by --also"
      packages+=("$system")
      ;;
    *) die "cannot build profile $profile: there are tools and host" ;;
  esac
  for name in ${also//,/ }; do
    [[ $name =~ ^qemu-[a-z0-9-]+$ ]] || die "cannot build $name: --also takes names of QEMU's packages, with commas between"
    [[ " ${packages[*]} " == *" $name "* ]] || packages+=("$name")
  done

  # No manual, and for the tools one emulator instead of thirty, saves half a minute; neither is seen in the programs. For an emulator
  # the whole list is needed: each holds a table of all modules, and modules exist for each emulator.
  configure_options=--disable-docs
  if [[ " ${packages[*]} " != *" qemu-system-"* ]]; then
    configure_options+=" --target-list=x86_64-softmmu"
  fi
}

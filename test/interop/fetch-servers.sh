#!/usr/bin/env bash
# Fetches mail servers that Debian's packages keep from being installed side by side, and unpacks each into a folder of its
# own under test/interop/.cache, where the interop tests find them. Installs nothing, asks the package mirror alone, and
# does nothing for what is there already. Needs apt-get and dpkg; prints what it does.
set -euo pipefail
cd "$(dirname "$0")"
mkdir -p .cache

# DIRECTORY PACKAGE…
download() {
  local place="$1"
  shift
  (cd "$place" && apt-get -o APT::Sandbox::User=root download -qq "$@")
}

# SUITE DIRECTORY: apt reads this suite of Debian alone, with lists of its own, so that the machine's stay as they are.
use_suite() {
  local suite="$1" place="$2" mirror
  mkdir -p "$place"/{state/lists/partial,cache/archives/partial}
  mirror="$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -m1 '/debian/*$')"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$place/sources.list"
  cat >"$place/apt.conf" <<CONF
Dir::Etc::sourcelist "$place/sources.list";
Dir::Etc::sourceparts "-";
Dir::State "$place/state";
Dir::State::status "/dev/null";
Dir::Cache "$place/cache";
Acquire::Languages "none";
APT::Sandbox::User "root";
CONF
  export APT_CONFIG="$place/apt.conf"
  apt-get update -qq
}

# SERVER PROGRAM PACKAGE…: the packages, with the libraries that a machine without the server may lack.
fetch() {
  local server="$1" program="$2"
  shift 2
  if [[ -x ".cache/$server/$program" ]]; then
    echo "$server: there already"
    return
  fi
  local debs
  debs="$(mktemp -d)"
  if [[ -n "${suite:-}" ]]; then use_suite "$suite" "$debs/apt"; fi
  if ! download "$debs" "$@"; then
    apt-get update -qq
    download "$debs" "$@"
  fi
  unset APT_CONFIG
  rm -rf ".cache/$server.part"
  mkdir ".cache/$server.part"
  for deb in "$debs"/*.deb; do dpkg -x "$deb" ".cache/$server.part"; done
  # As on a machine where /lib is a link to /usr/lib.
  if [[ -d ".cache/$server.part/lib" ]]; then cp -a ".cache/$server.part/lib/." ".cache/$server.part/usr/lib/"; fi
  rm -rf "$debs" ".cache/$server"
  mv ".cache/$server.part" ".cache/$server"
  echo "$server: $*"
}

fetch exim usr/sbin/exim4 exim4-daemon-light exim4-base libidn12 libgnutls-dane0 libunbound8 libevent-2.1-7 libnsl2
# Debian 12's OpenSMTPD (6.8.0p2) cannot use any private key with OpenSSL 3 ("missing private key"), so no client
# certificate either. That of Debian 13 can; it comes with the C library that it was built for.
suite=trixie fetch opensmtpd usr/sbin/smtpd opensmtpd libc6 libcrypt1 libdb5.3t64 libevent-2.1-7t64 libpam0g libssl3t64 \
  zlib1g libaudit1 libcap-ng0 libzstd1
fetch sendmail usr/libexec/sendmail/sendmail sendmail-bin sendmail-base sendmail-cf libwrap0 liblockfile1 libldap-2.5-0 libsasl2-2 libnsl2 m4 libsigsegv2

# Three real Kafka nodes, each in a network namespace of its own, and clients in others: sourced by
# scripts/chaos and its relatives, which say ROOT before.
#
# Everything it makes has the script's process id in its name and is removed on every way out.
# shellcheck shell=bash

readonly NET=10.77.0 # inside namespaces of this run's own: another run may use the same
readonly CLIENT=$NET.10 PROXY=$NET.20
readonly BY_PROXY=$PROXY:9001,$PROXY:9002,$PROXY:9003
readonly NAME=rpchaos-$$

say() { printf '%s\n' "$*" >&2; }
die() {
  say "$(basename "$0"): $*"
  exit 2
}

# ---- what has to be there -------------------------------------------------------------------------

# Leaves the command in $chaos, and in $commit what it was made from.
build() {
  cd "$ROOT"
  commit=$(git rev-parse HEAD 2>/dev/null || echo unknown)
  cargo build --locked --release -q -p ringpost-chaos </dev/null
  local target
  target=$(cargo metadata --format-version 1 --no-deps --locked | grep -o '"target_directory":"[^"]*"' | cut -d '"' -f 4)
  chaos=$target/release/ringpost-chaos
}

install_missing() {
  local packages=()
  command -v nft >/dev/null || packages+=(nftables)
  command -v ip >/dev/null || packages+=(iproute2)
  ((${#packages[@]})) || return 0
  say "installing ${packages[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq && apt-get install -y -qq --no-install-recommends "${packages[@]}" >&2
}

# Leaves a directory of this run's own in $dir, and sees to its end.
prepare() {
  ((EUID == 0)) || die "network namespaces need root"
  install_missing
  dir=$(mktemp -d "${TMPDIR:-/tmp}/ringpost-chaos.XXXXXX")
  trap on_exit EXIT
  trap 'exit 130' INT TERM HUP
  # Data in memory: how long a busy disk takes to sync is no fault of this plan, and Kafka's controllers
  # wait for it. The small one is node 3's own, to be filled.
  mkdir "$dir/small" "$dir/kafka"
  mount -t tmpfs -o size=8g tmpfs "$dir/small"
  mount -t tmpfs -o size=8g tmpfs "$dir/kafka"
}

# ---- ending ---------------------------------------------------------------------------------------

declare -A process=() # name → pid, of what this script started and has to end
again=                # the command that repeats the run

end_process() { # name [signal]
  local pid=${process[$1]:-}
  [[ -n $pid ]] || return 0
  unset "process[$1]"
  kill -"${2:-KILL}" "$pid" 2>/dev/null || true
  kill -CONT "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
}

on_exit() {
  local status=$? name
  trap - EXIT
  trap '' INT TERM HUP
  set +e
  exec 7>&-
  for name in "${!process[@]}"; do end_process "$name"; done
  [[ ! -f $dir/kafka/cluster ]] || "$ROOT/scripts/kafka" down "$dir/kafka"
  for name in small kafka; do
    # Lazily: a killed node's last threads may still hold a file.
    ! mountpoint -q "$dir/$name" || umount --lazy "$dir/$name"
  done
  for name in switch client proxy node-1 node-2 node-3; do
    ! ip netns list | grep -q "^$NAME-$name\b" || ip netns del "$NAME-$name"
  done
  if ((status != 0)) && [[ -n $(ls "$dir"/*.history 2>/dev/null) ]]; then
    rm -rf "$dir/kafka" "$dir/small"
    say "failed; histories and logs stay in $dir"
    say "again with: $again"
  else
    rm -rf "$dir"
  fi
  exit "$status"
}

# A time that passes, and a signal that is acted on at once.
pass() { # milliseconds
  sleep "$(($1 / 1000)).$(printf '%03d' $(($1 % 1000)))" &
  process[pass]=$!
  wait "${process[pass]}"
  unset "process[pass]"
}

# ---- the network ----------------------------------------------------------------------------------

in_client() { ip netns exec "$NAME-client" "$@"; }

lay_network() {
  local name address
  ip netns add "$NAME-switch"
  ip -n "$NAME-switch" link add br0 type bridge
  ip -n "$NAME-switch" link set br0 up
  for name in client proxy node-1 node-2 node-3; do
    case $name in
      client) address=$CLIENT ;;
      proxy) address=$PROXY ;;
      node-*) address=$NET.${name#node-} ;;
    esac
    ip netns add "$NAME-$name"
    ip -n "$NAME-switch" link add "to-$name" type veth peer name eth0 netns "$NAME-$name"
    ip -n "$NAME-switch" link set "to-$name" master br0 up
    ip -n "$NAME-$name" address add "$address/24" dev eth0
    ip -n "$NAME-$name" link set eth0 up
    ip -n "$NAME-$name" link set lo up
  done
  for name in node-1 node-2 node-3; do
    ip netns exec "$NAME-$name" nft -f - <<'NFT'
add table inet chaos
add chain inet chaos in { type filter hook input priority 0; }
add chain inet chaos out { type filter hook output priority 0; }
NFT
  done
}

lose() { # node in|out address...
  local node=$1 way=$2 field=saddr address
  shift 2
  [[ $way == in ]] || field=daddr
  for address; do
    ip netns exec "$NAME-node-$node" nft add rule inet chaos "$way" ip "$field" "$address" counter drop
  done
}

# How many packets were lost since nothing was.
packets_lost() {
  local node
  for node in 1 2 3; do ip netns exec "$NAME-node-$node" nft list table inet chaos; done |
    awk '{ for (i = 1; i < NF; i++) if ($i == "packets") sum += $(i + 1) } END { print sum + 0 }'
}

lose_nothing() {
  local node
  for node in 1 2 3; do
    ip netns exec "$NAME-node-$node" nft 'flush chain inet chaos in; flush chain inet chaos out'
  done
}

peers_of() {
  local node
  for node in 1 2 3; do ((node == $1)) || printf '%s\n' "$NET.$node"; done
}

# ---- the processes --------------------------------------------------------------------------------

kafka() { "$ROOT/scripts/kafka" "$@"; }

# Leaves the brokers' own addresses in $bootstrap. What is given is for `scripts/kafka up`.
start_cluster() {
  local words
  lay_network
  words=$(kafka up --nodes 3 --dir "$dir/kafka" --data-on "3=$dir/small" \
    --place "$NET.1@$NAME-node-1,$NET.2@$NAME-node-2,$NET.3@$NAME-node-3" --advertise "$BY_PROXY" "$@")
  bootstrap=$(sed -n 's/^bootstrap=//p' <<<"$words")
  behind=$(sed -n 's/^behind=//p' <<<"$words")
  start_proxy
}

start_proxy() {
  local i routes=() behind_of=()
  IFS=, read -ra behind_of <<<"$behind"
  for i in 0 1 2; do routes+=("$PROXY:$((9001 + i))=${behind_of[i]}"); done
  mkfifo "$dir/proxy.commands"
  exec 7<>"$dir/proxy.commands"
  ip netns exec "$NAME-proxy" "$chaos" proxy "${routes[@]}" <"$dir/proxy.commands" >"$dir/proxy.log" 2>&1 7>&- &
  process[proxy]=$!
}
proxy() { printf '%s\n' "$*" >&7; }

producers=()
start_load() { # producer number, then what is its own
  local producer=$1
  shift
  mkfifo "$dir/$producer.pipe"
  "$chaos" keep "$dir/$producer.pipe" "$dir/$producer.history" >"$dir/$producer.kept" 2>&1 7>&- &
  process[keep-$producer]=$!
  # Not by a function: its pid would be a shell's.
  ip netns exec "$NAME-client" "$chaos" load --history "$dir/$producer.pipe" --run "$run" --producer "$producer" \
    --set request_timeout=5s --set connect_timeout=2s "$@" \
    >"$dir/$producer.load" 2>&1 7>&- &
  process[load-$producer]=$!
  producers+=("$producer")
}
# The history's first event is there when the producer has started.
await_load() {
  local tenths=600
  until [[ -s $dir/$1.history ]] || ! kill -0 "${process[load-$1]}" 2>/dev/null; do
    ((tenths-- > 0)) || break
    pass 100
  done
}

mark() {
  "$chaos" mark "$dir/timeline" "$@"
  printf '%7.1f s  %s\n' "$(bc_seconds)" "$*"
}
begun=${EPOCHREALTIME/[.,]/}
bc_seconds() {
  local now=${EPOCHREALTIME/[.,]/}
  printf '%d.%d' $(((now - begun) / 1000000)) $(((now - begun) / 100000 % 10))
}

# Tells the loads to stop; each closes in order, and who kept its history ends by itself. Leaves what they
# said in $dir/loads, the histories in $histories, and returns whether all ended well.
finish_loads() { # producer...
  local producer part status=0
  for producer; do kill -TERM "${process[load-$producer]}"; done
  histories=()
  for producer in "${producers[@]}"; do
    for part in load keep; do
      [[ -n ${process[$part-$producer]:-} ]] || continue
      wait "${process[$part-$producer]}" || status=1
      unset "process[$part-$producer]"
    done
    cat "$dir/$producer.load" "$dir/$producer.kept" | tee -a "$dir/loads"
    histories+=("$dir/$producer.history")
  done
  return $status
}

# What every results folder says about where it comes from.
provenance() { # command
  cat <<LINES
- ended: $(date -u +%Y-%m-%dT%H:%M:%SZ)
- host: $(uname -n), kernel $(uname -r), $(nproc) × $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), load average $(cut -d ' ' -f 1-3 /proc/loadavg)
- commit: $commit, release build, $(rustc --version)
- cluster: Apache Kafka 4.3.1, three nodes, each in a network namespace of its own
- command: \`$1\`
LINES
}

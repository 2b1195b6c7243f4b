# Init of a pool's pid namespace, holder of its network (one bridge) and of its mounts. Its death is the pool's.
#
#   keeper.sh DIR
#
# /proc stays the machine's: the numbers noted here are those by which the machine knows these processes.
dir=$1
read -r -a stat </proc/self/stat

# An overlay cannot have another overlay as its upper layer, and the machine may itself be a container.
if [ "$(stat --file-system --format %T "$dir")" = overlayfs ]; then
    mount -t tmpfs -o mode=755 tmpfs "$dir/hosts"
fi

ip link set lo up
ip link add switch type bridge
ip link set switch up

echo "${stat[0]} ${stat[21]}" >"$dir/keeper"
exec sleep infinity

# Becomes the init of one host: network, root file system, then a pause that reaps.
#
#   host.sh POOL_DIR NAME KEEPER_PID LOWER ADDRESS/BITS
#
# Runs in new network, mount, pid, uts and ipc namespaces; /proc is the machine's until the last moment.
pool=$1 name=$2 keeper=$3 lower=$4 address=$5
read -r -a stat </proc/self/stat
echo "$name" >/proc/sys/kernel/hostname

# Made from inside and the peer pushed out: nobody has to wait for a namespace to appear.
ip link add eth0 type veth peer name "$name" netns "/proc/$keeper/ns/net"
nsenter --net="/proc/$keeper/ns/net" ip link set "$name" master switch up
ip address add "$address" dev eth0
ip link set lo up
ip link set eth0 up

dir=$pool/hosts/$name
root=$dir/root
mkdir -p "$dir/upper" "$dir/work" "$root"
mount -t overlay -o "lowerdir=$lower,upperdir=$dir/upper,workdir=$dir/work" overlay "$root"

# /proc and /sys without anything mounted over parts of them, or the kernel refuses a job's own /proc in its user namespace.
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
mount -t tmpfs -o mode=755,nosuid tmpfs "$root/dev"
for device in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0 fuse:10:229; do
    IFS=: read -r node major minor <<<"$device"
    # A container may not be allowed to make device nodes, but can show its own.
    if ! mknod -m 666 "$root/dev/$node" c "$major" "$minor" 2>/dev/null && [ -c "/dev/$node" ]; then
        touch "$root/dev/$node"
        mount --bind "/dev/$node" "$root/dev/$node"
    fi
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5,nosuid,noexec devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s /proc/self/fd/0 "$root/dev/stdin"
ln -s /proc/self/fd/1 "$root/dev/stdout"
ln -s /proc/self/fd/2 "$root/dev/stderr"
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs "$root/run"

# What no real hosts have: a directory of the pool's, for jobs of tests to note what they do outside of any sandbox.
mkdir -p "$root/shared"
mount --bind "$pool/shared" "$root/shared"

# pivot_root, not chroot: the kernel makes no user namespace for a process in a chroot.
exec 3>"$pool/init/$name"
mkdir -p "$root/.machine"
cd "$root"
pivot_root . .machine
cd /
umount -l /.machine
rmdir /.machine
echo "${stat[0]} ${stat[21]}" >&3
exec 3>&-
exec catatonit -P

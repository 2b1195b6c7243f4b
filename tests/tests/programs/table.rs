//! Every program of the table, how it is started, and what becomes of it.

use Ends::{Code, Signal};
use Outcome::{GoesOn, Refused};
use Start::{Program, Script, Specimen};

/// What a freeze and a thaw do to a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It ends elsewhere as it would have ended here.
    GoesOn,
    /// It is not frozen and runs on unharmed; the log has this piece of a sentence.
    Refused(&'static str),
}

/// How a program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    Code(i32),
    Signal(i32),
}

/// What is run.
#[derive(Debug, Clone, Copy)]
pub(super) enum Start {
    /// A word of the static program `specimens`.
    Specimen(&'static str),
    /// A program of that name beside it.
    Program(&'static str),
    /// An interpreter and a script of `tests::specimens::SCRIPTS`.
    Script(&'static str, &'static str),
}

/// One program.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row {
    pub(super) family: &'static str,
    pub(super) start: Start,
    /// What it is, for people.
    pub(super) what: &'static str,
    pub(super) ends: Ends,
    /// On CRIU 4.1.1 and on 4.2.1.
    pub(super) outcomes: [Outcome; 2],
    /// Root runs it as root.
    pub(super) as_root: bool,
}

impl Row {
    const fn ends(mut self, ends: Ends) -> Row {
        self.ends = ends;
        self
    }

    const fn as_root(mut self) -> Row {
        self.as_root = true;
        self
    }

    const fn refused(mut self, because: &'static str) -> Row {
        self.outcomes = [Refused(because), Refused(because)];
        self
    }

    /// Unlike 4.2.1, 4.1.1 cannot.
    const fn refused_by_4_1(mut self, because: &'static str) -> Row {
        self.outcomes[0] = Refused(because);
        self
    }

    /// The name of its directory and of its row.
    pub(super) fn name(&self) -> &'static str {
        match self.start {
            Specimen(name) | Program(name) | Script(_, name) => name,
        }
    }
}

const fn specimen(family: &'static str, name: &'static str, what: &'static str) -> Row {
    Row {
        family,
        start: Specimen(name),
        what,
        ends: Code(7),
        outcomes: [GoesOn, GoesOn],
        as_root: false,
    }
}

const fn script(
    family: &'static str,
    program: &'static str,
    name: &'static str,
    what: &'static str,
) -> Row {
    Row {
        start: Script(program, name),
        ..specimen(family, name, what)
    }
}

const fn program(family: &'static str, name: &'static str, what: &'static str) -> Row {
    Row {
        start: Program(name),
        ..specimen(family, name, what)
    }
}

const LISTENER: &str = "CRIU 4.1 cannot read on Linux 6.16";

#[rustfmt::skip]
pub(super) const TABLE: &[Row] = &[
    specimen("files", "counter", "counter that appends to an open file"),
    specimen("files", "positions", "shared and separate file positions, a hole of 1 GB"),
    specimen("files", "ghost", "deleted but open file, 64 kB"),
    specimen("files", "big-ghost", "deleted but open file, 600 MB"),
    specimen("files", "linked-ghost", "open file whose one of two names was deleted"),
    specimen("files", "tmpfile", "O_TMPFILE"),
    specimen("files", "flock", "flock"),
    specimen("files", "locks", "fcntl lock, open file description lock"),
    specimen("files", "fifo", "named pipe with bytes in it"),
    specimen("files", "removed-cwd", "working directory that was removed"),
    specimen("files", "devices", "/dev/null, zero, urandom, /proc/self, a directory"),
    specimen("files", "private-tmp", "files in /tmp and /dev/shm"),
    specimen("files", "stdin", "standard input from a file, half read"),

    specimen("processes", "plain", "statically linked program"),
    specimen("processes", "threads", "nine threads, mutexes and conditions"),
    specimen("processes", "tree", "tree of ten processes that talk through pipes"),
    specimen("processes", "groups", "process groups and sessions"),
    specimen("processes", "stopped", "stopped child"),
    specimen("processes", "zombie", "child that ended and was not waited for"),
    specimen("processes", "orphan", "process whose parent has ended"),
    specimen("processes", "limits", "resource limits, umask, working directory"),
    specimen("processes", "affinity", "CPU affinity of a process and of a thread"),
    specimen("processes", "memory", "32 MB of random memory"),
    specimen("processes", "dies", "job that dies by a signal after the thaw").ends(Signal(10)),
    specimen("processes", "code-85", "job whose own exit code is 85").ends(Code(85)),

    specimen("events", "epoll", "epoll"),
    specimen("events", "eventfd", "eventfd"),
    specimen("events", "timerfd", "timerfd, one shot"),
    specimen("events", "ticking-timerfd", "timerfd, periodic"),
    specimen("events", "posix-timer", "POSIX timer"),
    specimen("events", "alarm", "alarm"),
    specimen("events", "pending", "pending signals"),
    specimen("events", "signalfd", "signalfd"),
    specimen("events", "inotify", "inotify on a directory and a file"),
    specimen("events", "clock", "monotonic clock"),

    specimen("sockets", "unix-pair", "Unix stream pair with bytes under way"),
    specimen("sockets", "unix-named", "Unix listeners, by path and abstract"),
    specimen("sockets", "unix-datagrams", "Unix datagrams under way"),
    specimen("sockets", "tcp-listener", "TCP listener").refused_by_4_1(LISTENER),
    specimen("sockets", "tcp-pair", "TCP connection inside the job: closed, the listener stays").refused_by_4_1(LISTENER),
    specimen("sockets", "tcp-outside", "TCP connection to the outside: closed, the job connects again").refused_by_4_1(LISTENER),
    specimen("sockets", "udp", "UDP, bound and connected").refused_by_4_1(LISTENER),
    script("sockets", "python3", "in-flight.py", "descriptors in flight (SCM_RIGHTS)"),
    script("sockets", "python3", "netlink.py", "netlink socket"),

    script("events", "python3", "itimer.py", "itimers, real and profiling"),
    script("events", "python3", "raised-timerfd.py", "timerfd, periodic, with unread ticks"),
    script("events", "python3", "fanotify.py", "fanotify"),

    script("processes", "python3", "pidfd.py", "pidfd"),
    script("processes", "python3", "vfork.py", "vfork over and over"),
    script("processes", "python3", "traced.py", "traced process, as by gdb or strace").refused("traced by a debugger"),
    script("processes", "python3", "io-uring.py", "io_uring").refused("io_uring"),
    script("processes", "python3", "seccomp.py", "seccomp filter of its own").refused("seccomp"),

    script("memory", "python3", "mapped-file.py", "mapped file, shared and private"),
    script("memory", "python3", "anonymous-shared.py", "anonymous memory shared by two processes"),
    script("memory", "python3", "posix-shm.py", "POSIX shared memory"),
    script("memory", "python3", "semaphore.py", "POSIX semaphore"),
    script("memory", "python3", "unlinked-semaphore.py", "POSIX semaphore, unlinked and mapped"),
    script("memory", "python3", "memfd.py", "memfd, mapped").refused("memfd"),
    script("memory", "python3", "unmapped-memfd.py", "memfd, not mapped"),
    script("memory", "python3", "system-v-shm.py", "System V shared memory").refused("System V"),
    script("memory", "python3", "message-queue.py", "POSIX message queue").refused("outside its sandbox's mounts"),
    script("memory", "python3", "system-v-sem.py", "System V semaphores").refused("System V"),

    script("root", "python3", "memfd.py", "memfd, mapped").as_root(),
    script("root", "python3", "system-v-shm.py", "System V shared memory").as_root(),
    script("root", "python3", "system-v-sem.py", "System V semaphores").as_root(),
    script("root", "python3", "seccomp.py", "seccomp filter of its own").as_root(),

    script("languages", "python3", "python-threads.py", "python with threads and queues"),
    script("languages", "python3", "python-queue.py", "python multiprocessing, queues"),
    script("languages", "python3", "python-pool.py", "python multiprocessing, a pool"),
    script("languages", "python3", "python-forkserver-queue.py", "python multiprocessing by forkserver, queues"),
    script("languages", "python3", "python-forkserver-join.py", "python multiprocessing by forkserver, a worker that ends"),
    script("languages", "python3", "python-forkserver-pool.py", "python multiprocessing by forkserver, a pool"),
    script("languages", "python3", "python-shared-memory.py", "python multiprocessing, shared memory"),
    script("languages", "python3", "terminal.py", "pseudo-terminal with a shell on it"),
    script("languages", "perl", "perl.pl", "perl"),
    script("languages", "bash", "bash.sh", "bash with children and a coprocess"),
    script("languages", "dash", "dash.sh", "shell script"),

    script("runtimes", "python3", "numpy-threads.py", "python with numpy, OpenBLAS and threads"),
    script("runtimes", "Rscript", "r.R", "R"),
    script("runtimes", "rhino", "jvm.js", "JVM, threads that make garbage"),
    script("runtimes", "node", "node.js", "node, a worker thread and a child").refused("io_uring"),
    script("runtimes", "elvish", "go.elv", "Go program, goroutines"),
    program("runtimes", "openmp", "OpenMP, four threads, statically linked against glibc"),
    script("runtimes", "bash", "unhidden.sh", "bash with a python that got an empty environment"),
    script("runtimes", "bash", "debugged.sh", "program under gdb").refused("traced by a debugger"),
];

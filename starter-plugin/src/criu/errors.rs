//! CRIU's error lines, as sentences with a way out.
//!
//! Each row was seen on a real kernel; the text is a piece of CRIU's own line
//! that its versions share. The first row whose piece is in the log wins, so
//! causes stand before their consequences.

struct Known {
    /// A piece of CRIU's line.
    piece: &'static str,
    /// What the job has or the slot lacks.
    cause: &'static str,
    /// What its user can do.
    way_out: &'static str,
}

const KNOWN: &[Known] = &[
    Known {
        piece: "anon_inode:[io_uring]",
        cause: "the job uses io_uring, which CRIU cannot freeze",
        way_out: "switch the program to ordinary or epoll I/O (node: UV_USE_IO_URING=0 with libuv before 1.50; newer ones always use it)",
    },
    Known {
        piece: "send_fds failed (-22)",
        cause: "the job has a descriptor that the kernel hands to nobody, which is io_uring",
        way_out: "switch the program to ordinary or epoll I/O (node: UV_USE_IO_URING=0 with libuv before 1.50; newer ones always use it)",
    },
    Known {
        piece: "Can't get 1:16 opt",
        cause: "the job has a TCP or UDP socket, which CRIU 4.1 cannot read on Linux 6.16 and newer",
        way_out: "ask for slots with CRIU 4.2 or newer",
    },
    Known {
        piece: "suspending seccomp failed",
        cause: "the job has a seccomp filter of its own, which only root can suspend",
        way_out: "run the program without its sandbox option",
    },
    Known {
        piece: "Can't open mapped [",
        cause: "the job has mapped a file that was deleted (python multiprocessing does this to its semaphores where it forks)",
        way_out: "keep the file's name until it is unmapped (for python: multiprocessing.set_start_method('forkserver')), or use a slot whose CRIU runs as root",
    },
    Known {
        piece: "doesn't live in IPC ns",
        cause: "the job uses System V shared memory, semaphores or queues",
        way_out: "use POSIX shared memory",
    },
    Known {
        piece: "Can't lookup mount=",
        cause: "the job has a file open that lies outside its sandbox's mounts",
        way_out: "open files by their path in the job's directory",
    },
    Known {
        piece: "Unseizable non-zombie",
        cause: "a process of the job is traced by a debugger",
        way_out: "let the job run without gdb or strace",
    },
    Known {
        piece: "has bad size",
        cause: "a file that the job has open or mapped is another one on this slot",
        way_out: "name a container image, so that the libraries are the same everywhere",
    },
    Known {
        piece: "No space left on device",
        cause: "the slot's disk is full",
        way_out: "raise request_disk by the job's memory",
    },
    Known {
        piece: "Can't fork for",
        cause: "a pid that the job needs is taken",
        way_out: "report this: the supervisor should have kept it free",
    },
    Known {
        piece: "ELF header magic mismatch",
        cause: "this CRIU cannot restore an image of another kernel here",
        way_out: "ask for slots with CRIU 4.2 or newer",
    },
];

/// The sentence for a log, with CRIU's own first error line attached.
pub(crate) fn explain(log: &str) -> String {
    let errors: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("Error ("))
        .filter(|line| !is_noise(line))
        .collect();
    let Some(first) = errors.first() else {
        return "CRIU ended without naming an error".to_owned();
    };
    let line = first.split_once("Error ").map_or(*first, |(_, rest)| rest);
    for known in KNOWN {
        if errors.iter().any(|error| error.contains(known.piece)) {
            return format!("{}; {} (CRIU: {line})", known.cause, known.way_out);
        }
    }
    format!("CRIU: {line}")
}

/// Lines that every rootless run prints, successful ones included.
fn is_noise(line: &str) -> bool {
    const NOISE: [&str; 5] = ["net.c:", "util.c:", "kerndat.c:", "tun.c:", "sk-unix.c:224"];
    NOISE.iter().any(|place| line.contains(place)) && !line.contains("No space left")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_cause_comes_with_a_way_out_and_the_line() {
        let log = "(00.002) Error (criu/kerndat.c:1195): $XDG_RUNTIME_DIR not set\n\
                   (00.010) Error (criu/cr-dump.c:460): Task 2 with SysVIPC shmem map doesn't live in IPC ns\n\
                   (00.011) Error (criu/cr-dump.c:2128): Dumping FAILED.\n";
        let sentence = explain(log);
        assert!(sentence.contains("System V"), "{sentence}");
        assert!(sentence.contains("use POSIX"), "{sentence}");
        assert!(sentence.contains("cr-dump.c:460"), "{sentence}");
    }

    #[test]
    fn an_unknown_error_is_quoted() {
        let sentence = explain("(00.1) Error (criu/new.c:1): something else\n");
        assert_eq!(sentence, "CRIU: (criu/new.c:1): something else");
    }

    #[test]
    fn noise_alone_is_no_cause() {
        let sentence = explain("(00.1) Error (criu/net.c:1253): Unexpected error: -1\n");
        assert_eq!(sentence, "CRIU ended without naming an error");
    }
}

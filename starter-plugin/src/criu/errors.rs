//! CRIU's error lines, as sentences with a way out.
//!
//! Each row was seen on a real kernel; the text is a piece of CRIU's own line
//! that its versions share. The first row whose piece is in the log wins, so
//! causes stand before their consequences.

/// A piece of CRIU's line; what the job has or the slot lacks; what its user can do; what the slot's admin can do.
struct Known(&'static str, &'static str, &'static str, &'static str);

/// For what no slot can change.
const NOTHING: &str = "nothing to change on the slot";

/// For a node that refuses what everything here stands on.
const PROBE: &str = "run `criu-pilot probe` as the job's user: it names what is missing";

const NO_IO_URING: &str = "switch the program to ordinary or epoll I/O (node: UV_USE_IO_URING=0 with libuv before 1.50; newer ones always use it)";

const KNOWN: &[Known] = &[
    Known(
        "anon_inode:[io_uring]",
        "the job uses io_uring, which CRIU cannot freeze",
        NO_IO_URING,
        "kernel.io_uring_disabled = 2 makes most programs do without",
    ),
    Known(
        "send_fds failed (-22)",
        "the job has a descriptor that the kernel hands to nobody, which is io_uring",
        NO_IO_URING,
        "kernel.io_uring_disabled = 2 makes most programs do without",
    ),
    Known(
        "Can't get 1:16 opt",
        "the job has a TCP or UDP socket, which CRIU 4.1 cannot read on Linux 6.16 and newer",
        "ask for slots with CRIU 4.2 or newer",
        "install CRIU 4.2 or the bundle",
    ),
    Known(
        "Can't turn TCP repair mode ON",
        "the job has an open TCP connection whose state only root may read",
        "close connections before they are idle for long, or connect again after a failure",
        NOTHING,
    ),
    Known(
        "Connected TCP socket",
        "the job has an open TCP connection to another machine",
        "close connections before they are idle for long, or connect again after a failure",
        NOTHING,
    ),
    Known(
        "Address already in use",
        "the job listened on a port that is taken on this slot",
        "let the program choose a free port (bind to port 0)",
        "let one job at a time use that port",
    ),
    Known(
        "suspending seccomp failed",
        "the job has a seccomp filter of its own, which only root can suspend",
        "run the program without its sandbox option",
        "start the pilot without a seccomp filter",
    ),
    Known(
        "Can't open mapped [",
        "the job has mapped a file that was deleted (python multiprocessing does this to its semaphores where it forks)",
        "keep the file's name until it is unmapped (for python: multiprocessing.set_start_method('forkserver'))",
        "a CRIU that runs as root can open it",
    ),
    Known(
        "Can't stat map_files",
        "the job uses System V shared memory, which only root can open",
        "use POSIX shared memory",
        "a CRIU that runs as root can open it",
    ),
    Known(
        "doesn't live in IPC ns",
        "the job uses System V shared memory, semaphores or queues",
        "use POSIX shared memory",
        NOTHING,
    ),
    Known(
        "increase limit",
        "the job holds a deleted file open that is too large to go into the image",
        "give large scratch files a name and delete them at the end",
        NOTHING,
    ),
    Known(
        "Can't dump that handle",
        "the job watches a file (inotify, fanotify) that cannot be found by a path in its directory",
        "watch files of the job's own directory only",
        NOTHING,
    ),
    Known(
        "trim failed",
        "the job deleted one of a file's names and has it open, which needs Linux 6.10 without privileges",
        "ask for slots with a newer kernel, or keep the name",
        "Linux 6.10 or newer",
    ),
    Known(
        "Some file locks are hold",
        "the job holds a file lock that CRIU was not told to keep",
        "report this: criu-starter should have said --file-locks",
        NOTHING,
    ),
    Known(
        "Can't dump nested",
        "the job has started a container or a sandbox of its own",
        "name the image as container_image instead of starting apptainer in the job",
        NOTHING,
    ),
    Known(
        "doesn't belong to the target user namespace",
        "the job has started a container or a sandbox of its own",
        "name the image as container_image instead of starting apptainer in the job",
        NOTHING,
    ),
    Known(
        "Unable to convert uid or gid",
        "the job has a file or process of an id that its user namespace does not map",
        "run the program without a sandbox of its own",
        NOTHING,
    ),
    Known(
        "Can't setup uid 65534",
        "the job has a terminal open that belongs to somebody outside of it",
        "open terminals in the job itself (forkpty, script)",
        NOTHING,
    ),
    Known(
        "Failed to resolve mapping",
        "the job's program lies on an overlay file system, which this CRIU cannot look through",
        "put the program into the job's own files, or name a container image",
        "mount images by squashfuse or CVMFS instead of the kernel's overlayfs",
    ),
    Known(
        "Can't lookup mount=",
        "the job has a file open that lies outside its sandbox's mounts",
        "open files by their path in the job's directory",
        NOTHING,
    ),
    Known(
        "of that type",
        "the job has something open that CRIU cannot freeze (perf events, BPF, a device)",
        "run the program without its profiler, or without the device",
        NOTHING,
    ),
    Known(
        "Unseizable non-zombie",
        "a process of the job is traced by a debugger",
        "let the job run without gdb or strace",
        NOTHING,
    ),
    Known(
        "Unable to ptrace the child",
        "this slot forbids every process to look into another",
        "ask for slots with HasCRIU",
        "kernel.yama.ptrace_scope must be 2 or less",
    ),
    Known(
        "has rseq but kernel lacks get_rseq_conf",
        "the job's libc uses restartable sequences, which this kernel cannot report",
        "start the program with GLIBC_TUNABLES=glibc.pthread.rseq=0",
        "Linux 5.13 or newer",
    ),
    Known(
        "needs to have the CAP_SYS_ADMIN",
        "CRIU was started without the capabilities of the job's own user namespace",
        "ask for slots with HasCRIU",
        PROBE,
    ),
    Known(
        "Unable to initialize id-s",
        "CRIU tried to become uid 0, which nothing here maps",
        "report this: criu-starter should have taken CAP_SETUID away",
        PROBE,
    ),
    Known(
        "Can't setgroups",
        "the image names groups of the slot where it was taken",
        "report this: criu-starter should have taken them out",
        PROBE,
    ),
    Known(
        "ns_last_pid",
        "this kernel lets nobody but uid 0 choose a process's number",
        "ask for slots with Linux 5.3 or newer",
        "Linux 5.3 or newer",
    ),
    Known(
        "Can't open sysctl kernel/",
        "this slot does not let the job's namespaces be set up as they were",
        "ask for slots with HasCRIU",
        PROBE,
    ),
    Known(
        "Can't open file dev/shm",
        "a file of the job's /dev/shm did not come with the image",
        "report this: /dev/shm travels with the job",
        NOTHING,
    ),
    Known(
        "has bad size",
        "a file that the job has open or mapped is another one on this slot",
        "name a container image, so that the libraries are the same everywhere",
        "slots of one distribution restore each other's jobs",
    ),
    Known(
        "has bad mode",
        "a directory or file that the job has open has other permissions on this slot",
        "name a container image, so that directories are the same everywhere",
        NOTHING,
    ),
    Known(
        "No space left on device",
        "the slot's disk is full",
        "raise request_disk by the job's memory",
        "give EXECUTE a disk with room for an image of each slot",
    ),
    Known(
        "Can't fork for",
        "a pid that the job needs is taken",
        "report this: the supervisor should have kept it free",
        NOTHING,
    ),
    Known(
        "FPU xsave area present",
        "the image holds registers that this CPU does not have",
        "ask for slots that the image's fingerprint admits (criu-pilot where JOB)",
        NOTHING,
    ),
    Known(
        "CPU xsave size mismatch",
        "the image holds registers that this CPU does not have",
        "ask for slots that the image's fingerprint admits (criu-pilot where JOB)",
        NOTHING,
    ),
    Known(
        "ELF header magic mismatch",
        "this CRIU cannot restore an image of another kernel here",
        "ask for slots with CRIU 4.2 or newer",
        "install CRIU 4.2 or the bundle",
    ),
];

/// The sentence for a log: the cause, both ways out and the line of CRIU's that tells it.
pub(crate) fn explain(log: &str) -> String {
    let errors: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("Error ("))
        .filter(|line| !is_noise(line))
        .map(|line| line.split_once("Error ").map_or(line, |(_, rest)| rest))
        .collect();
    for Known(piece, cause, user, admin) in KNOWN {
        if let Some(line) = errors.iter().find(|error| error.contains(piece)) {
            return format!("{cause}; {user}; for the admin: {admin} (CRIU: {line})");
        }
    }
    // Some errors are survived, and the one that ended it is the last.
    match errors.as_slice() {
        [] => "CRIU ended without naming an error".to_owned(),
        [only] => format!("CRIU: {only}"),
        [first, .., last] => format!("CRIU: {first}; at last: {last}"),
    }
}

/// Lines that every rootless run prints, successful ones included, and those that end every failure.
fn is_noise(line: &str) -> bool {
    const NOISE: [&str; 7] = [
        "criu/net.c:",
        "criu/util.c:",
        "criu/kerndat.c:",
        "criu/tun.c:",
        "sk-unix.c:224",
        "Dumping FAILED",
        "Restoring FAILED",
    ];
    const CAUSES: [&str; 2] = ["No space left", "Unable to ptrace the child"];
    NOISE.iter().any(|place| line.contains(place))
        && !CAUSES.iter().any(|cause| line.contains(cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines as kernels and CRIUs gave them, and a word of what is made of each.
    const SEEN: [(&str, &str); 35] = [
        (
            "criu/cr-check.c:1961): CRIU needs to have the CAP_SYS_ADMIN or the CAP_CHECKPOINT_RESTORE capability",
            "without the capabilities",
        ),
        (
            "criu/namespaces.c:1625): Unable to initialize id-s: Invalid argument",
            "become uid 0",
        ),
        (
            "criu/namespaces.c:931): Unable to convert uid or gid",
            "does not map",
        ),
        (
            "criu/namespaces.c:997): One or more namespaces doesn't belong to the target user namespace",
            "container",
        ),
        (
            "criu/namespaces.c:460): Can't dump nested user namespace for 5",
            "container",
        ),
        (
            "criu/sysctl.c:258): Can't open sysctl kernel/hostname: Permission denied",
            "namespaces be set up",
        ),
        (
            "criu/pie/restorer.c:226): Can't setgroups([3 gids]): -1",
            "groups",
        ),
        (
            "criu/proc_parse.c:353): Can't open mapped [/dev/shm/sem.X (deleted)]",
            "deleted",
        ),
        (
            "criu/sockets.c:628): Can't get 1:16 opt: Operation not supported",
            "CRIU 4.2",
        ),
        (
            "soccr/soccr.c:94): Can't turn TCP repair mode ON: Operation not permitted",
            "TCP connection",
        ),
        (
            "criu/sk-inet.c:200): inet: Connected TCP socket, consider using --tcp-established option.",
            "TCP connection",
        ),
        (
            "criu/sk-inet.c:1059): inet: Can't bind inet socket (id 7): Address already in use",
            "port",
        ),
        (
            "criu/files-reg.c:2353): Can't open file dev/shm/pshm on restore: No such file or directory",
            "/dev/shm",
        ),
        (
            "criu/cr-dump.c:460): Task 2 with SysVIPC shmem map @7f00 doesn't live in IPC ns",
            "System V",
        ),
        (
            "criu/ipc_ns.c:384): Can't stat map_files: Operation not permitted",
            "System V",
        ),
        (
            "criu/files-reg.c:906): Can't dump ghost file /srv/x of 629145600 size, increase limit",
            "too large",
        ),
        ("criu/files-reg.c:1200): trim failed", "Linux 6.10"),
        (
            "criu/file-lock.c:110): Some file locks are hold by dumping tasks! You can try --file-locks to dump them.",
            "file lock",
        ),
        (
            "criu/fsnotify.c:284): fsnotify: Can't dump that handle",
            "watches a file",
        ),
        (
            "criu/tty.c:890): tty: Can't setup uid 65534 gid 65534 on 3",
            "terminal",
        ),
        (
            "criu/proc_parse.c:415): Failed to resolve mapping usr/bin/python3 filename",
            "overlay",
        ),
        (
            "compel/src/lib/ptrace.c:27): suspending seccomp failed: Operation not permitted",
            "seccomp",
        ),
        (
            "criu/pie/parasite.c:588): send_fds failed (-22)",
            "io_uring",
        ),
        (
            "criu/files-ext.c:94): Can't dump file 5 of that type [20444] (anon anon_inode:[io_uring])",
            "io_uring",
        ),
        (
            "criu/files-ext.c:94): Can't dump file 5 of that type [20444] (anon anon_inode:[perf_event])",
            "profiler",
        ),
        (
            "compel/src/lib/infect.c:263): Unseizable non-zombie 9 found, state S, err -1/1",
            "debugger",
        ),
        (
            "criu/util.c:741): Unable to ptrace the child: Operation not permitted",
            "ptrace_scope",
        ),
        (
            "criu/cr-restore.c:1068): Can't open /proc/sys/kernel/ns_last_pid: Permission denied",
            "Linux 5.3",
        ),
        (
            "criu/cr-dump.c:227): 2 has rseq but kernel lacks get_rseq_conf feature",
            "rseq=0",
        ),
        (
            "criu/files-reg.c:1790): Can't lookup mount=160 for fd=1 path=/tmp/out",
            "outside its sandbox",
        ),
        (
            "criu/files-reg.c:2175): File srv/out.txt has bad size 530 (expect 125)",
            "another one",
        ),
        (
            "criu/files-reg.c:2304): File . has bad mode 041777 (expect 040755)",
            "permissions",
        ),
        (
            "criu/cr-restore.c:1230): Can't fork for 5: File exists",
            "pid",
        ),
        (
            "criu/crtools.c:395): FPU xsave area present, but host cpu doesn't support it",
            "registers",
        ),
        (
            "criu/pie/util-vdso.c:117): vdso: ELF header magic mismatch",
            "another kernel",
        ),
    ];

    #[test]
    fn each_line_that_was_seen_has_its_sentence() {
        for (line, word) in SEEN {
            let sentence = explain(&format!("(00.1) Error ({line}\n"));
            assert!(sentence.contains(word), "{line}\n{sentence}");
            assert!(sentence.contains("for the admin: "), "{sentence}");
            assert!(
                sentence.ends_with(&format!("(CRIU: ({line})")),
                "{sentence}"
            );
        }
    }

    #[test]
    fn a_cause_is_found_among_noise_and_consequences() {
        let log = "(00.002) Error (criu/kerndat.c:1195): $XDG_RUNTIME_DIR not set\n\
                   (00.010) Error (criu/cr-dump.c:460): Task 2 with SysVIPC shmem map doesn't live in IPC ns\n\
                   (00.011) Error (criu/cr-dump.c:2128): Dumping FAILED.\n";
        let sentence = explain(log);
        assert!(sentence.contains("use POSIX"), "{sentence}");
        assert!(sentence.contains("cr-dump.c:460"), "{sentence}");
    }

    #[test]
    fn unknown_errors_are_quoted_the_first_and_the_last() {
        let log = "(00.1) Error (criu/new.c:1): something else\n\
                   (00.2) Error (criu/new.c:2): and on\n\
                   (00.3) Error (criu/new.c:3): the end\n\
                   (00.4) Error (criu/cr-restore.c:9): Restoring FAILED.\n";
        assert_eq!(
            explain(log),
            "CRIU: (criu/new.c:1): something else; at last: (criu/new.c:3): the end"
        );
    }

    #[test]
    fn noise_alone_is_no_cause() {
        let sentence = explain("(00.1) Error (criu/net.c:1253): Unexpected error: -1\n");
        assert_eq!(sentence, "CRIU ended without naming an error");
    }
}

//! System calls in another process, made by one of its threads that stands still.

use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::errno::Errno;
use nix::libc::{self, user_regs_struct};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::{NamelessError, Range, of};

/// `syscall`
const INSTRUCTION: [u8; 2] = [0x0f, 0x05];

/// The code segment of 64 bit programs.
const LONG_MODE: u64 = 0x33;

/// Below the stack pointer lie 128 bytes that a function may use unasked.
const RED_ZONE: u64 = 128;

/// A thread whose registers are ours until this is dropped.
pub(super) struct Puppet {
    process: Pid,
    thread: Pid,
    memory: File,
    saved: user_regs_struct,
    /// Where its vDSO has the instruction.
    instruction: u64,
}

impl Puppet {
    pub(super) fn new(proc: &Path, process: Pid, thread: Pid) -> Result<Puppet, NamelessError> {
        let saved =
            ptrace::getregs(thread).map_err(|source| NamelessError::Trace { thread, source })?;
        let memory = OpenOptions::new()
            .read(true)
            .write(true)
            .open(of(proc, process, "mem"))?;
        let maps = fs::read_to_string(of(proc, process, "maps"))?;
        let instruction = find(&maps, &memory).filter(|_| saved.cs == LONG_MODE);
        Ok(Puppet {
            process,
            thread,
            memory,
            saved,
            instruction: instruction.ok_or(NamelessError::Foreign(process))?,
        })
    }

    /// Opens a file for reading and writing; its descriptor.
    pub(super) fn open(&mut self, path: &Path) -> Result<u64, NamelessError> {
        let mut text = path.as_os_str().as_bytes().to_vec();
        text.push(0);
        let at = (self.saved.rsp - RED_ZONE - text.len() as u64) & !15;
        let mut before = vec![0; text.len()];
        self.memory.read_exact_at(&mut before, at)?;
        self.memory.write_all_at(&text, at)?;
        let flags = (libc::O_RDWR | libc::O_CLOEXEC) as u64;
        let cwd = i64::from(libc::AT_FDCWD).cast_unsigned();
        let fd = self.call(
            "open its new file",
            libc::SYS_openat,
            [cwd, at, flags, 0, 0, 0],
        );
        self.memory.write_all_at(&before, at)?;
        fd
    }

    /// Maps the file over a range.
    pub(super) fn map(&mut self, range: &Range, fd: u64) -> Result<(), NamelessError> {
        let mut protection = libc::PROT_READ;
        if range.writable {
            protection |= libc::PROT_WRITE;
        }
        if range.executable {
            protection |= libc::PROT_EXEC;
        }
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        let arguments = [
            range.start,
            range.end - range.start,
            protection as u64,
            flags as u64,
            fd,
            range.offset,
        ];
        self.call("map its new file", libc::SYS_mmap, arguments)
            .map(drop)
    }

    pub(super) fn close(&mut self, fd: u64) -> Result<(), NamelessError> {
        self.call("close its new file", libc::SYS_close, [fd, 0, 0, 0, 0, 0])
            .map(drop)
    }

    fn call(
        &mut self,
        what: &'static str,
        number: i64,
        arguments: [u64; 6],
    ) -> Result<u64, NamelessError> {
        let failed = |source| NamelessError::Call {
            process: self.process,
            what,
            source,
        };
        let [rdi, rsi, rdx, r10, r8, r9] = arguments;
        let registers = user_regs_struct {
            rip: self.instruction,
            rax: number.cast_unsigned(),
            // No call is under way: nothing for the kernel to restart here.
            orig_rax: u64::MAX,
            rdi,
            rsi,
            rdx,
            r10,
            r8,
            r9,
            ..self.saved
        };
        ptrace::setregs(self.thread, registers).map_err(failed)?;
        loop {
            ptrace::step(self.thread, None).map_err(failed)?;
            match waitpid(self.thread, Some(WaitPidFlag::__WALL)).map_err(failed)? {
                WaitStatus::Stopped(_, Signal::SIGTRAP) => break,
                // It gets it when it goes on.
                WaitStatus::Stopped(_, signal) => kill(self.process, signal).map_err(failed)?,
                WaitStatus::PtraceEvent(..) => {}
                _ => return Err(failed(Errno::ESRCH)),
            }
        }
        let result = ptrace::getregs(self.thread)
            .map_err(failed)?
            .rax
            .cast_signed();
        if (-4095..0).contains(&result) {
            return Err(failed(Errno::from_raw(-result as i32)));
        }
        Ok(result.cast_unsigned())
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        // With these the kernel takes up again the call that the thread was in.
        let _ = ptrace::setregs(self.thread, self.saved);
    }
}

/// The instruction in a vDSO.
fn find(maps: &str, memory: &File) -> Option<u64> {
    let line = maps.lines().find(|line| line.ends_with("[vdso]"))?;
    let (start, end) = line.split(' ').next()?.split_once('-')?;
    let start = u64::from_str_radix(start, 16).ok()?;
    let length = u64::from_str_radix(end, 16).ok()?.checked_sub(start)?;
    let mut code = vec![0; usize::try_from(length.min(64 << 10)).ok()?];
    memory.read_exact_at(&mut code, start).ok()?;
    let at = code.windows(2).position(|bytes| bytes == INSTRUCTION)?;
    Some(start + at as u64)
}

//! Timers, signals, and descriptors that wait for something.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{SigEvent, SigSet, SigevNotify, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags, TimerSetTimeFlags as FdTimerSetTimeFlags};
use nix::time::ClockId as Clock;
use nix::unistd::alarm;

use super::{Program, freeze};

pub(super) const PROGRAMS: &[(&str, Program)] = &[
    ("epoll", epoll),
    ("eventfd", eventfd),
    ("timerfd", timerfd),
    ("ticking-timerfd", ticking_timerfd),
    ("posix-timer", posix_timer),
    ("alarm", alarm_clock),
    ("pending", pending),
    ("signalfd", signalfd),
    ("inotify", inotify),
    ("clock", clock),
];

const HOUR: Duration = Duration::from_secs(3600);

/// An hour less what a test takes.
fn about_an_hour(left: Duration) -> bool {
    left <= HOUR && left > HOUR - Duration::from_secs(300)
}

/// One descriptor is ready, another becomes ready after the thaw.
fn epoll() -> Result<()> {
    let (read, mut write) = std::io::pipe()?;
    let (other, mut filled) = std::io::pipe()?;
    filled.write_all(b"x")?;
    let poll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    poll.add(&read, EpollEvent::new(EpollFlags::EPOLLIN, 11))?;
    poll.add(&other, EpollEvent::new(EpollFlags::EPOLLIN, 22))?;
    freeze()?;
    let ready = || -> Result<Vec<u64>> {
        let mut events = [EpollEvent::empty(); 4];
        let count = poll.wait(&mut events, EpollTimeout::from(1000_u16))?;
        let mut names: Vec<u64> = events[..count].iter().map(EpollEvent::data).collect();
        names.sort_unstable();
        Ok(names)
    };
    ensure!(ready()? == [22]);
    write.write_all(b"y")?;
    ensure!(ready()? == [11, 22]);
    Ok(())
}

fn eventfd() -> Result<()> {
    let event = EventFd::new()?;
    event.write(41)?;
    freeze()?;
    event.write(1)?;
    let value = event.read()?;
    ensure!(value == 42, "{value}");
    Ok(())
}

/// Not due for an hour, and less than that afterwards.
fn timerfd() -> Result<()> {
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::empty())?;
    let due = Expiration::OneShot(TimeSpec::from(HOUR));
    timer.set(due, FdTimerSetTimeFlags::empty())?;
    freeze()?;
    let Some(Expiration::OneShot(left)) = timer.get()? else {
        anyhow::bail!("the timer is not armed");
    };
    ensure!(about_an_hour(left.into()), "{left:?} left");
    Ok(())
}

/// Goes on ticking. What is unread must be read before a freeze: see the row of the unread one.
fn ticking_timerfd() -> Result<()> {
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::empty())?;
    let every = Expiration::Interval(TimeSpec::from(Duration::from_millis(20)));
    timer.set(every, FdTimerSetTimeFlags::empty())?;
    // A thread keeps reading, so that hardly ever a tick is unread.
    let watched = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let count = watched.clone();
    std::thread::spawn(move || {
        while timer.wait().is_ok() {
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }
    });
    freeze()?;
    let before = watched.load(std::sync::atomic::Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(500));
    let after = watched.load(std::sync::atomic::Ordering::SeqCst);
    ensure!(after > before, "it ticks no more");
    Ok(())
}

/// A timer of the process that sends a signal.
fn posix_timer() -> Result<()> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGUSR2);
    mask.thread_block()?;
    let event = SigEvent::new(SigevNotify::SigevSignal {
        signal: Signal::SIGUSR2,
        si_value: 99,
    });
    let mut timer = Timer::new(Clock::CLOCK_MONOTONIC, event)?;
    let due = Expiration::OneShot(TimeSpec::from(HOUR));
    timer.set(due, TimerSetTimeFlags::empty())?;
    freeze()?;
    let Some(Expiration::OneShot(left)) = timer.get()? else {
        anyhow::bail!("the timer is not armed");
    };
    ensure!(about_an_hour(left.into()), "{left:?} left");
    let soon = Expiration::OneShot(TimeSpec::from(Duration::from_millis(1)));
    timer.set(soon, TimerSetTimeFlags::empty())?;
    let fd = SignalFd::new(&mask)?;
    let info = fd.read_signal()?.context("no signal")?;
    ensure!(info.ssi_signo == Signal::SIGUSR2 as u32 && info.ssi_int == 99);
    Ok(())
}

fn alarm_clock() -> Result<()> {
    alarm::set(3600);
    freeze()?;
    let left = alarm::cancel().context("the alarm is off")?;
    ensure!(
        about_an_hour(Duration::from_secs(left.into())),
        "{left} s left"
    );
    Ok(())
}

/// Blocked signals that came before the freeze arrive after it.
fn pending() -> Result<()> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGUSR1);
    mask.add(Signal::SIGWINCH);
    mask.thread_block()?;
    raise(Signal::SIGUSR1)?;
    nix::sys::signal::kill(nix::unistd::getpid(), Signal::SIGWINCH)?;
    freeze()?;
    let mut came = [mask.wait()?, mask.wait()?];
    came.sort_unstable();
    ensure!(came == [Signal::SIGUSR1, Signal::SIGWINCH], "{came:?}");
    Ok(())
}

fn signalfd() -> Result<()> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGUSR1);
    mask.add(Signal::SIGUSR2);
    mask.thread_block()?;
    let fd = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK)?;
    raise(Signal::SIGUSR1)?;
    freeze()?;
    raise(Signal::SIGUSR2)?;
    let mut came = Vec::new();
    while let Some(info) = fd.read_signal()? {
        came.push(Signal::try_from(i32::try_from(info.ssi_signo)?)?);
    }
    came.sort_unstable();
    ensure!(came == [Signal::SIGUSR1, Signal::SIGUSR2], "{came:?}");
    Ok(())
}

/// A watched directory and a watched file are watched on.
fn inotify() -> Result<()> {
    fs::create_dir("watched")?;
    fs::write("file", "")?;
    let watch = Inotify::init(InitFlags::IN_NONBLOCK)?;
    watch.add_watch("watched", AddWatchFlags::IN_CREATE)?;
    watch.add_watch("file", AddWatchFlags::IN_MODIFY)?;
    freeze()?;
    // What a restore itself does to them may be seen.
    while !matches!(watch.read_events(), Err(Errno::EAGAIN)) {}
    fs::write("watched/new", "")?;
    fs::write("file", "changed")?;
    let events = watch.read_events()?;
    let created = events
        .iter()
        .any(|event| event.name.as_deref() == Some("new".as_ref()));
    let modified = events
        .iter()
        .any(|event| event.mask.contains(AddWatchFlags::IN_MODIFY));
    ensure!(created && modified, "{events:?}");
    ensure!(watch.as_fd().try_clone_to_owned().is_ok());
    Ok(())
}

/// Monotonic time goes on: neither back nor far ahead.
fn clock() -> Result<()> {
    let begun = std::time::Instant::now();
    let mut text = String::new();
    fs::File::open("/proc/uptime")?.read_to_string(&mut text)?;
    freeze()?;
    let passed = begun.elapsed();
    ensure!(passed < Duration::from_secs(300), "{passed:?} passed");
    ensure!(passed > Duration::from_millis(20), "{passed:?} passed");
    Ok(())
}

//! Watching and ending processes that need not be our children, by pidfd: a process ID that is used again is never taken
//! for the old one.

use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use tokio::io::unix::AsyncFd;

pub struct Process {
    pid: Pid,
    exit: AsyncFd<OwnedFd>,
}

impl Process {
    /// Fails when no process has this ID. Needs a tokio runtime.
    #[allow(unsafe_code)]
    pub fn open(pid: i32) -> io::Result<Self> {
        let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::other("0 is no process ID"))?;
        let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        // SAFETY: an `OwnedFd` is an open descriptor that stays the same and open until it is dropped, and it is dropped
        // with the `AsyncFd` that owns it, never before.
        let exit = unsafe { AsyncFd::register(pidfd) }.map_err(io::Error::from)?;
        Ok(Process { pid, exit })
    }

    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Returns when the process has ended.
    pub async fn ended(&self) {
        // A pidfd becomes readable when its process ends; an error here would mean the runtime is gone.
        let _ = self.exit.readable().await;
    }

    /// Asks the process to end (SIGTERM).
    pub fn terminate(&self) -> io::Result<()> {
        Ok(kill_process(self.pid, Signal::TERM)?)
    }

    /// Ends the process (SIGKILL).
    pub fn kill(&self) -> io::Result<()> {
        Ok(kill_process(self.pid, Signal::KILL)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_a_process_is_seen() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().expect("sleep runs");
        let process = Process::open(child.id() as i32).expect("watched");
        assert_eq!(process.pid(), child.id() as i32);
        process.terminate().expect("signalled");
        process.ended().await;
        child.wait().expect("reaped");
        assert!(Process::open(process.pid()).is_err());
    }
}

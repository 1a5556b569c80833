//! The kernel log as a stream of records (`/dev/kmsg`, Documentation/ABI/testing/dev-kmsg).

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;

use tokio::io::unix::AsyncFd;

/// The kernel's largest record (CONSOLE_EXT_LOG_MAX); a smaller buffer gets EINVAL.
const RECORD: usize = 8192;

/// The log, from the first record of this boot that is still kept.
#[derive(Debug)]
pub struct KernelLog {
    log: AsyncFd<File>,
    buffer: Vec<u8>,
}

impl KernelLog {
    /// Opens the log; needs CAP_SYSLOG and a tokio runtime.
    ///
    /// # Errors
    /// Those of open(2) and epoll_ctl(2).
    pub fn open() -> io::Result<Self> {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg")?;
        // SAFETY: a `File` keeps its one descriptor until it is dropped, and nothing else closes it.
        let log = unsafe { AsyncFd::register(file) }?;
        Ok(Self { log, buffer: vec![0; RECORD] })
    }

    /// Waits for the next record. Dropping the future loses none.
    ///
    /// # Errors
    /// Those of read(2).
    pub async fn next(&mut self) -> io::Result<String> {
        loop {
            let mut ready = self.log.readable().await?;
            // Each read(2) gives one record.
            match ready.try_io(|log| log.get_ref().read(&mut self.buffer)) {
                Ok(Ok(count)) => {
                    let record = self.buffer.get(..count).unwrap_or_default();
                    return Ok(String::from_utf8_lossy(record).into_owned());
                }
                // Records were overwritten before they were read; the next read returns the oldest one left.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EPIPE) => {}
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }
}

//! The thread that answers the kernel's requests of one connection, and what wakes it.

use std::collections::HashSet;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::Supply;
use super::names::{Found, ObjectNames, is_directory};
use super::signals::fate_of;
use super::waiting::{Answer, Waiting};
use super::wire::{self, Call, Request};
use crate::image::verity::VerityDigest;

/// How often the store is looked at for objects that are waited for. Other processes bring some, and say nothing.
const LOOK: Duration = Duration::from_secs(1);

/// A connection to the kernel that no filesystem uses yet.
#[derive(Debug)]
pub struct Connection {
    device: OwnedFd,
    bell: Bell,
}

/// Tells a server what it cannot see. Cheap to clone; all clones ring the same one.
#[derive(Clone)]
pub struct Bell(Arc<Shared>);

struct Shared {
    event: OwnedFd,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What is waited for: of all that comes to a store, nothing else is told.
    wanted: HashSet<VerityDigest>,
    /// Of these, what has come.
    arrived: Vec<VerityDigest>,
    failure: Option<Errno>,
    ended: bool,
}

impl Connection {
    /// Opens the device.
    ///
    /// # Errors
    /// `ENOENT` and `ENODEV`: the kernel has no FUSE, or its module is not loaded. Those of open(2).
    pub fn open() -> Result<Self, Errno> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let device = rustix::fs::open("/dev/fuse", flags, Mode::empty())?;
        let event = rustix::event::eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Self { device, bell: Bell(Arc::new(Shared { event, state: Mutex::default() })) })
    }

    /// What rings for the server of this connection.
    pub fn bell(&self) -> Bell {
        self.bell.clone()
    }

    /// Starts to answer, once a filesystem uses the connection: lookups of `objects` alone, which `supply` brings.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn serve(self, objects: ObjectNames, supply: Arc<dyn Supply>) -> Result<Server, Errno> {
        let (bell, device) = (self.bell.clone(), self.device);
        let work = Work { device, bell: self.bell, objects, supply, waiting: Waiting::default() };
        let thread = std::thread::Builder::new().name("lazy".into()).spawn(move || work.run());
        let thread = thread.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))?;
        Ok(Server { bell, thread: Some(thread) })
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

impl fmt::Debug for Bell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bell")
    }
}

impl Bell {
    /// An object has come to the store. Cheap where nobody waits for it.
    pub fn arrived(&self, object: &VerityDigest) {
        let mut state = self.0.state();
        if state.wanted.remove(object) {
            state.arrived.push(*object);
            drop(state);
            self.0.ring();
        }
    }

    /// Objects do not come at present: whoever waits now gets `errno`, and who asks later waits for them again.
    pub fn fail(&self, errno: Errno) {
        self.0.state().failure = Some(errno);
        self.0.ring();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) {
        // Full is rung already.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }
}

/// A connection that is answered. Dropped, it ends: what is missing then gives ENOTCONN, and whoever waits ECONNABORTED.
#[derive(Debug)]
pub struct Server {
    bell: Bell,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// What rings for it.
    pub fn bell(&self) -> Bell {
        self.bell.clone()
    }

    /// Whether nothing is answered any more, because no mount of the filesystem is left.
    pub fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.bell.0.state().ended = true;
        self.bell.0.ring();
        // The device closes with the thread, which waits for nothing but the two descriptors.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the thread has.
struct Work {
    device: OwnedFd,
    bell: Bell,
    objects: ObjectNames,
    supply: Arc<dyn Supply>,
    waiting: Waiting,
}

/// Whether there is more to do.
enum Next {
    GoOn,
    End,
}

impl Work {
    fn run(mut self) {
        let mut buffer = vec![0; wire::REQUEST_MAX];
        let mut looked = Instant::now();
        loop {
            self.wait();
            if let Next::End = self.take_requests(&mut buffer) {
                return;
            }
            if let Next::End = self.take_news() {
                return;
            }
            let now = Instant::now();
            let due = self.waiting.due(now, fate_of);
            self.answer_all(due);
            if now.duration_since(looked) >= LOOK {
                looked = now;
                self.look();
            }
        }
    }

    /// Until there is a request or news, or something may be due.
    fn wait(&self) {
        let rest = self.waiting.rest(Instant::now()).map(|rest| rest.min(LOOK));
        let timeout = rest.and_then(|rest| Timespec::try_from(rest).ok());
        let mut ready =
            [PollFd::new(&self.device, PollFlags::IN), PollFd::new(&self.bell.0.event, PollFlags::IN)];
        // Interrupted, or out of memory for a moment: all is looked at anew.
        let _ = rustix::event::poll(&mut ready, timeout.as_ref());
    }

    /// All requests that have come.
    fn take_requests(&mut self, buffer: &mut [u8]) -> Next {
        loop {
            let length = match rustix::io::read(&self.device, &mut *buffer) {
                Ok(length) => length,
                Err(Errno::AGAIN) => return Next::GoOn,
                // ENOENT: its reader has gone before it was read.
                Err(Errno::INTR | Errno::NOENT) => continue,
                // ENODEV: no mount is left, or the connection was aborted from outside.
                Err(errno) => {
                    tracing::debug!(%errno, "no more lookups of a lazy mount");
                    return Next::End;
                }
            };
            let Some(request) = buffer.get(..length).and_then(wire::parse) else {
                tracing::warn!(length, "a request of the kernel cannot be read; the lazy mount ends");
                return Next::End;
            };
            let reply = match request.call {
                Call::Destroy => return Next::End,
                Call::Forget => None,
                Call::Interrupt(unique) => {
                    self.waiting.interrupt(unique, Instant::now());
                    None
                }
                Call::Lookup(name) => self.looked_up(&request, name),
                _ => Some(answer(&request)),
            };
            if let Some(reply) = reply {
                self.write(&reply);
            }
        }
    }

    /// The answer to a lookup, if it has one at once.
    fn looked_up(&mut self, request: &Request<'_>, name: &[u8]) -> Option<Vec<u8>> {
        let object = match self.objects.find(request.node, name) {
            Found::Directory(node) => return Some(wire::entry(request.unique, node)),
            Found::Nothing => return Some(wire::failure(request.unique, Errno::NOENT)),
            Found::Object(object) => object,
        };
        // Said before it is looked for: what comes in between is told.
        self.bell.0.state().wanted.insert(object);
        if self.supply.is_here(&object) {
            self.bell.0.state().wanted.remove(&object);
            return Some(wire::failure(request.unique, Errno::STALE));
        }
        let is_first = !self.waiting.waits_for(&object);
        self.waiting.begin(request.unique, object, request.pid, Instant::now());
        if is_first {
            self.supply.want(&object);
        }
        None
    }

    /// What the bell was rung for.
    fn take_news(&mut self) -> Next {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.bell.0.event, &mut count);
        let (arrived, failure) = {
            let mut state = self.bell.0.state();
            if state.ended {
                return Next::End;
            }
            (std::mem::take(&mut state.arrived), state.failure.take())
        };
        for object in arrived {
            let answers = self.waiting.arrived(&object);
            self.answer_all(answers);
        }
        if let Some(errno) = failure {
            // What has come before the failure has come.
            self.look();
            let answers = self.waiting.fail(errno);
            self.answer_all(answers);
        }
        Next::GoOn
    }

    /// Looks for what is waited for.
    fn look(&mut self) {
        for object in self.waiting.objects() {
            if self.supply.is_here(&object) {
                self.bell.0.state().wanted.remove(&object);
                let answers = self.waiting.arrived(&object);
                self.answer_all(answers);
            }
        }
    }

    fn answer_all(&self, answers: Vec<Answer>) {
        for (unique, errno) in answers {
            self.write(&wire::failure(unique, errno));
        }
    }

    fn write(&self, reply: &[u8]) {
        // ENOENT: whoever waited has gone.
        match rustix::io::write(&self.device, reply) {
            Ok(_) | Err(Errno::NOENT) => {}
            Err(errno) => tracing::debug!(%errno, "the kernel does not take an answer of a lazy mount"),
        }
    }
}

/// The answer to what needs no looking.
fn answer(request: &Request<'_>) -> Vec<u8> {
    let Request { unique, node, call, .. } = *request;
    match call {
        Call::Init { major: 7, is_parallel: true } => wire::init(unique),
        // Without parallel lookups every missing file would wait for every other.
        Call::Init { .. } => wire::failure(unique, Errno::PROTO),
        Call::Attributes if is_directory(node) => wire::attributes(unique, node),
        Call::Attributes => wire::failure(unique, Errno::NOENT),
        Call::Statistics => wire::statistics(unique),
        // Nothing was ever given that could be opened or read.
        Call::Content => wire::failure(unique, Errno::IO),
        _ => wire::failure(unique, Errno::NOSYS),
    }
}

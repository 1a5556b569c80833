//! The FUSE protocol, as far as a filesystem of directories without files needs it (Linux, include/uapi/linux/fuse.h,
//! version 7.31 and later). All numbers have the machine's byte order, since both ends are on one machine.

use rustix::io::Errno;

/// The version spoken. Structures have grown since; the kernel takes what an older one has.
const MAJOR: u32 = 7;
const MINOR: u32 = 31;
/// Lookups in one directory do not wait for each other.
const PARALLEL_DIROPS: u32 = 1 << 18;
/// The least that the kernel takes. Nothing is ever written.
const MAX_WRITE: u32 = 4096;
/// Bytes of `struct fuse_in_header`.
const HEADER: usize = 40;
/// Bytes of the longest request that comes: a header and a name, or a batch of nodes to forget.
pub(super) const REQUEST_MAX: usize = 1 << 16;
/// For ever, in seconds: what a lookup has found never changes.
const FOR_EVER: u64 = u64::MAX >> 1;

/// A request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request<'a> {
    /// By what the answer says which request it is of.
    pub(super) unique: u64,
    /// What it is about.
    pub(super) node: u64,
    /// The thread that waits for it; 0 if it is in no pid namespace that this process sees.
    pub(super) pid: u32,
    pub(super) call: Call<'a>,
}

/// What is requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call<'a> {
    /// The first one. Whether lookups can be parallel.
    Init {
        major: u32,
        is_parallel: bool,
    },
    /// A name in the directory `node`.
    Lookup(&'a [u8]),
    Attributes,
    Statistics,
    /// A signal has come for the thread that waits for another request.
    Interrupt(u64),
    /// No answer is expected.
    Forget,
    /// The filesystem is gone.
    Destroy,
    /// Content is asked for, which is not here.
    Content,
    Unknown,
}

/// Reads a request; `None` if it is not a whole one, which the kernel never sends.
pub(super) fn parse(bytes: &[u8]) -> Option<Request<'_>> {
    let body = bytes.get(HEADER..)?;
    if u32_at(bytes, 0)? as usize != bytes.len() {
        return None;
    }
    let call = match u32_at(bytes, 4)? {
        1 => Call::Lookup(body.split(|byte| *byte == 0).next()?),
        // FORGET and BATCH_FORGET.
        2 | 42 => Call::Forget,
        3 => Call::Attributes,
        // OPEN, READ, OPENDIR and READDIR. Without an answer of their own the kernel would take them for not needed.
        14 | 15 | 27 | 28 => Call::Content,
        17 => Call::Statistics,
        26 => Call::Init { major: u32_at(body, 0)?, is_parallel: u32_at(body, 12)? & PARALLEL_DIROPS != 0 },
        36 => Call::Interrupt(u64_at(body, 0)?),
        38 => Call::Destroy,
        _ => Call::Unknown,
    };
    Some(Request { unique: u64_at(bytes, 8)?, node: u64_at(bytes, 16)?, pid: u32_at(bytes, 32)?, call })
}

/// The answer to a call that fails.
pub(super) fn failure(unique: u64, errno: Errno) -> Vec<u8> {
    answer(unique, -errno.raw_os_error(), &[])
}

/// The answer to [`Call::Init`] (`struct fuse_init_out`).
pub(super) fn init(unique: u64) -> Vec<u8> {
    let mut body = Vec::with_capacity(64);
    // No read-ahead: nothing is read.
    for word in [MAJOR, MINOR, 0, PARALLEL_DIROPS] {
        body.extend(word.to_ne_bytes());
    }
    // Background requests, of which there are none: the kernel's own limits.
    body.extend([0; 4]);
    body.extend(MAX_WRITE.to_ne_bytes());
    // Times are whole seconds, and 0.
    body.extend(1_000_000_000_u32.to_ne_bytes());
    body.resize(64, 0);
    answer(unique, 0, &body)
}

/// The answer to [`Call::Lookup`] of a directory (`struct fuse_entry_out`).
pub(super) fn entry(unique: u64, node: u64) -> Vec<u8> {
    let mut body = Vec::with_capacity(128);
    // Node, generation, and how long the name and the attributes hold.
    for word in [node, 0, FOR_EVER, FOR_EVER, 0] {
        body.extend(word.to_ne_bytes());
    }
    attributes_of(node, &mut body);
    answer(unique, 0, &body)
}

/// The answer to [`Call::Attributes`] of a directory (`struct fuse_attr_out`).
pub(super) fn attributes(unique: u64, node: u64) -> Vec<u8> {
    let mut body = Vec::with_capacity(104);
    for word in [FOR_EVER, 0] {
        body.extend(word.to_ne_bytes());
    }
    attributes_of(node, &mut body);
    answer(unique, 0, &body)
}

/// The answer to [`Call::Statistics`] (`struct fuse_kstatfs`): names of 255 bytes in an empty filesystem.
pub(super) fn statistics(unique: u64) -> Vec<u8> {
    let mut body = vec![0; 40];
    for word in [4096_u32, 255, 4096] {
        body.extend(word.to_ne_bytes());
    }
    body.resize(80, 0);
    answer(unique, 0, &body)
}

/// `struct fuse_attr` of a directory that only its owner, root, may search.
fn attributes_of(node: u64, body: &mut Vec<u8>) {
    // Inode, size, blocks; three times.
    for word in [node, 0, 0, 0, 0, 0] {
        body.extend(word.to_ne_bytes());
    }
    // Nanoseconds of the times, mode, links, owner, group, device, block size, flags.
    for word in [0_u32, 0, 0, libc::S_IFDIR | 0o500, 2, 0, 0, 0, 4096, 0] {
        body.extend(word.to_ne_bytes());
    }
}

/// `struct fuse_out_header` and what follows it.
fn answer(unique: u64, error: i32, body: &[u8]) -> Vec<u8> {
    let length = 16 + body.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend((length as u32).to_ne_bytes());
    bytes.extend(error.to_ne_bytes());
    bytes.extend(unique.to_ne_bytes());
    bytes.extend(body);
    bytes
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request as the kernel writes it.
    fn request(opcode: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(((HEADER + body.len()) as u32).to_ne_bytes());
        bytes.extend(opcode.to_ne_bytes());
        bytes.extend(7_u64.to_ne_bytes());
        bytes.extend(1_u64.to_ne_bytes());
        // User, group, thread, extensions.
        for word in [1000_u32, 1000, 4242, 0] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(body);
        bytes
    }

    #[test]
    fn a_lookup_has_its_name_and_who_waits() {
        let bytes = request(1, b"ab\0");
        let found = parse(&bytes).unwrap();
        assert_eq!(found, Request { unique: 7, node: 1, pid: 4242, call: Call::Lookup(b"ab") });
        let mut extended = b"ab\0".to_vec();
        extended.extend([1; 16]);
        assert_eq!(parse(&request(1, &extended)).unwrap().call, Call::Lookup(b"ab"));
    }

    #[test]
    fn calls_are_told_apart() {
        let init = [7_u32, 41, 0, PARALLEL_DIROPS | 1].map(u32::to_ne_bytes).concat();
        let table: [(u32, &[u8], Call<'_>); 7] = [
            (26, &init, Call::Init { major: 7, is_parallel: true }),
            (36, &9_u64.to_ne_bytes(), Call::Interrupt(9)),
            (42, &[0; 32], Call::Forget),
            (38, &[], Call::Destroy),
            (14, &[0; 8], Call::Content),
            (22, &[0; 8], Call::Unknown),
            (17, &[], Call::Statistics),
        ];
        for (opcode, body, call) in table {
            assert_eq!(parse(&request(opcode, body)).map(|found| found.call), Some(call), "{opcode}");
        }
    }

    #[test]
    fn what_is_cut_is_no_request() {
        let whole = request(36, &9_u64.to_ne_bytes());
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), None, "{length}");
        }
        // A length that is right, of a call that needs more.
        assert_eq!(parse(&request(36, &[0; 4])), None);
        assert_eq!(parse(&request(26, &[0; 12])), None);
    }

    #[test]
    fn answers_have_the_sizes_of_the_protocol() {
        let table = [
            (failure(7, Errno::STALE), 16, -libc::ESTALE),
            (init(7), 16 + 64, 0),
            (entry(7, 2), 16 + 128, 0),
            (attributes(7, 1), 16 + 104, 0),
            (statistics(7), 16 + 80, 0),
        ];
        for (bytes, length, error) in table {
            assert_eq!(bytes.len(), length);
            assert_eq!(u32_at(&bytes, 0), Some(length as u32));
            assert_eq!(u32_at(&bytes, 4), Some(error as u32));
            assert_eq!(u64_at(&bytes, 8), Some(7));
        }
    }
}

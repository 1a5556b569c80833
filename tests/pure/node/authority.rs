//! Clients whose `:authority` is no authority, byte for byte as they send it.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use crate::support::csi::Node;

const SETTINGS: u8 = 4;
const HEADERS: u8 = 1;
const DATA: u8 = 0;
const RST_STREAM: u8 = 3;

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
}

/// A header as C core writes it: name and value as literals, for the table of both sides.
fn literal(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![0x40], text(name), text(value)].concat()
}

/// Two calls of grpcio 1.85.3 on one connection. The second refers to the headers of the first by their place in the
/// table, where the authority must be as long as the client thinks.
fn calls() -> Vec<u8> {
    let first = [
        literal(":path", "/csi.v1.Identity/Probe"),
        literal(":authority", "tmp%2Fcsi%2Fcsi.sock"),
        // `:method: POST`, `:scheme: http`
        vec![0x83, 0x86],
        literal("content-type", "application/grpc"),
        literal("te", "trailers"),
    ];
    // The table's newest entry is 62.
    let second = [0xc1, 0xc0, 0x83, 0x86, 0xbf, 0xbe];
    let empty = [0; 5];
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(SETTINGS, 0, 0, &[]),
        frame(HEADERS, 4, 1, &first.concat()),
        frame(DATA, 1, 1, &empty),
        frame(HEADERS, 4, 3, &second),
        frame(DATA, 1, 3, &empty),
    ]
    .concat()
}

/// The kinds of frames that answer on these streams, up to the end of both.
fn answers(socket: PathBuf) -> Vec<(u8, u8)> {
    let mut connection = UnixStream::connect(socket).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    connection.write_all(&calls()).unwrap();
    let (mut answers, mut ended) = (Vec::new(), 0);
    while ended < 2 {
        let mut head = [0; 9];
        connection.read_exact(&mut head).unwrap();
        let [a, b, c, kind, flags, _, _, _, stream] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        connection.read_exact(&mut payload).unwrap();
        if stream > 0 && kind != 8 {
            answers.push((stream, kind));
            ended += u8::from(kind == RST_STREAM || flags & 1 != 0);
        }
    }
    answers
}

#[tokio::test]
async fn a_percent_encoded_path_is_served() {
    let node = Node::new();
    let _plugin = node.start().await;
    let socket = node.socket();
    let answers = tokio::task::spawn_blocking(|| answers(socket)).await.unwrap();
    for stream in [1, 3] {
        let kinds: Vec<_> = answers.iter().filter(|(on, _)| *on == stream).map(|(_, kind)| *kind).collect();
        assert_eq!(kinds, [HEADERS, DATA, HEADERS], "stream {stream}");
    }
}

use proptest::prelude::*;

use super::*;

/// A frame of any type.
fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
}

/// `:method: POST`, `:scheme: http`, `:authority: /csi/csi.sock`, `te: trailers`.
fn block(authority: &[u8]) -> Vec<u8> {
    [&b"\x83\x86\x41"[..], authority, b"\x40\x02te\x08trailers"].concat()
}

const PATH: &[u8] = b"\x0d/csi/csi.sock";
const WORD: &[u8] = b"\x0dxxxxxxxxxxxxx";

/// A connection's bytes as a client sends them, and as they must arrive.
fn conversation() -> (Vec<u8>, Vec<u8>) {
    let with = |authority: &[u8]| {
        let prioritised = [&[0, 0, 0, 0, 9][..], &block(authority)].concat();
        let padded = [&[2][..], &block(authority), &[0, 0]].concat();
        [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            frame(4, 0, &[]),
            frame(HEADERS, 4, &block(authority)),
            frame(0, 1, &block(PATH)),
            frame(HEADERS, 4 | PRIORITY, &prioritised),
            frame(HEADERS, 4 | PADDED, &padded),
        ]
        .concat()
    };
    (with(PATH), with(WORD))
}

proptest! {
    #[test]
    fn only_header_blocks_change_however_the_bytes_arrive(cuts in prop::collection::vec(1_usize..40, 1..20)) {
        let (sent, expected) = conversation();
        let (mut filter, mut arrived, mut at) = (FrameFilter::default(), Vec::new(), 0);
        for cut in cuts.iter().cycle() {
            let end = (at + cut).min(sent.len());
            filter.push(&sent[at..end], &mut arrived);
            at = end;
            if at == sent.len() {
                break;
            }
        }
        prop_assert_eq!(arrived, expected);
    }

    #[test]
    fn nothing_is_lost_of_what_is_not_understood(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut filter = FrameFilter { held: Vec::new(), passing: 0 };
        let mut arrived = Vec::new();
        let sent = frame(HEADERS, 0xff, &bytes);
        filter.push(&sent, &mut arrived);
        filter.finish(&mut arrived);
        prop_assert_eq!(arrived, rewritten(&sent).unwrap_or(sent));
    }
}

#[test]
fn a_frame_becomes_longer_when_its_huffman_code_is_written_out() {
    // www.example.com, RFC 7541 C.4.1
    let huffman = hex::decode("8cf1e3c2e5f23a6ba0ab90f4ff").unwrap();
    let expected = frame(HEADERS, 4, &block(&hpack::plain_string(15)));
    assert_eq!(rewritten(&frame(HEADERS, 4, &block(&huffman))), Some(expected));
}

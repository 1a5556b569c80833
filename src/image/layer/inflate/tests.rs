//! Against zlib-rs: the same bytes come out, and the same input is refused.

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::write::DeflateEncoder;
use proptest::prelude::*;

use super::{BadStream, Inflater, Paused};

/// What a decoder makes of `stream`, fed in pieces of these sizes in turn; `None` if it wants more.
fn inflate(stream: &[u8], pieces: &[usize]) -> Result<Option<(Vec<u8>, usize)>, BadStream> {
    let mut inflater = Inflater::new();
    let (mut out, mut at) = (Vec::new(), 0);
    let mut pieces = pieces.iter().cycle();
    loop {
        let piece = stream.len().min(at + pieces.next().unwrap());
        loop {
            let (used, paused) = inflater.decode(&stream[at..piece])?;
            at += used;
            let half = inflater.output().len().div_ceil(2);
            out.extend_from_slice(&inflater.output()[..half]);
            inflater.take(half);
            match paused {
                Paused::Ended => {
                    out.extend_from_slice(inflater.output());
                    while inflater.left_over().is_some() {
                        at -= 1;
                    }
                    return Ok(Some((out, at)));
                }
                Paused::NeedsInput if at == stream.len() => {
                    return Ok(None);
                }
                Paused::NeedsInput => break,
                Paused::Full => {}
            }
        }
    }
}

fn deflate(content: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(level));
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// Bytes of `kinds` different values in runs and repetitions.
fn content(seed: u64, size: usize, kinds: u64, repeat: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut bytes = Vec::with_capacity(size);
    while bytes.len() < size {
        if random() % 3 == 0 && !bytes.is_empty() {
            let (back, length) = (1 + random() as usize % bytes.len(), 1 + random() as usize % repeat);
            let from = bytes.len() - back;
            (0..length).for_each(|nth| bytes.push(bytes[from + nth]));
        } else {
            bytes.push((random() % kinds) as u8);
        }
    }
    bytes.truncate(size);
    bytes
}

#[test]
fn every_kind_of_block_is_read() {
    let text = content(7, 900_000, 256, 300);
    // 0 stores; small content gets a fixed block.
    for level in 0..=9 {
        for content in [&text[..], &text[..100], b"", b"a", &[0; 500_000]] {
            let mut stream = deflate(content, level);
            let length = stream.len();
            stream.extend_from_slice(b"what follows");
            for pieces in [&[usize::MAX >> 1][..], &[1], &[7, 4096, 31]] {
                let (found, used) = inflate(&stream, pieces).unwrap().unwrap();
                assert!(found == content, "level {level}, {} bytes, pieces {pieces:?}", content.len());
                assert_eq!(used, length);
            }
        }
    }
}

#[test]
fn matches_of_every_distance_and_length_are_copied() {
    for distance in (1..=40).chain([257, 32_767, 32_768]) {
        for length in (3..=40).chain([257, 258]) {
            let mut bytes = content(distance as u64, distance, 251, 1);
            (0..length * 3).for_each(|nth| bytes.push(bytes[nth]));
            bytes.extend_from_slice(&content(3, 300, 256, 1));
            let stream = deflate(&bytes, 9);
            assert!(inflate(&stream, &[1 << 20]).unwrap().unwrap().0 == bytes, "{distance} {length}");
        }
    }
}

#[test]
fn what_is_no_stream_is_refused() {
    // In the order of zlib's own messages (inflate.c): block type, stored lengths, too many symbols, code lengths.
    for (stream, why) in [
        (&b"\x07"[..], "unknown type"),
        (b"\x01\x01\x00\x00\x00", "stored block"),
        (b"\xfd\xff\xff", "too many symbols"),
        (b"\x05\xe0\xff\xff\xff\xff\xff\xff\xff\xff", "code"),
        // A fixed block whose first symbol is a match.
        (b"\x03\x02\x00\x00", "back beyond"),
        // The two length symbols without a meaning.
        (b"\x1b\x03\x00\x00", "no code"),
    ] {
        match inflate(stream, &[1]) {
            Err(error) => assert!(error.to_string().contains(why), "{stream:x?}: {error}"),
            other => panic!("{stream:x?}: {other:?}"),
        }
    }
}

/// zlib-rs's answer: the content and the bytes it used, or that it is refused or incomplete.
fn oracle(stream: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut decoder = flate2::bufread::DeflateDecoder::new(stream);
    let mut out = Vec::new();
    decoder.read_to_end(&mut out).ok()?;
    Some((out, decoder.total_in() as usize))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_content_comes_out(
        seed: u64, size in 0usize..400_000, kinds in 1u64..257, repeat in 1usize..400, level in 0u32..10,
        pieces in proptest::collection::vec(1usize..70_000, 1..5),
    ) {
        let bytes = content(seed, size, kinds, repeat);
        let stream = deflate(&bytes, level);
        let (found, used) = inflate(&stream, &pieces).unwrap().unwrap();
        prop_assert!(found == bytes);
        prop_assert_eq!(used, stream.len());
    }

    #[test]
    fn damage_is_judged_as_by_zlib(
        seed: u64, size in 1usize..20_000, kinds in 1u64..257, level in 0u32..10,
        damage in proptest::collection::vec((any::<prop::sample::Index>(), 0u32..8), 1..4),
        pieces in proptest::collection::vec(1usize..5000, 1..4),
    ) {
        let mut stream = deflate(&content(seed, size, kinds, 300), level);
        for (place, bit) in damage {
            // Most of it near the start, where the codes are.
            let place = place.index(stream.len().min(if bit < 4 { 100 } else { usize::MAX }));
            stream[place] ^= 1 << bit;
        }
        prop_assert_eq!(inflate(&stream, &pieces).ok().flatten(), oracle(&stream));
    }

    #[test]
    fn noise_is_judged_as_by_zlib(stream in proptest::collection::vec(any::<u8>(), 1..300), piece in 1usize..300) {
        prop_assert_eq!(inflate(&stream, &[piece]).ok().flatten(), oracle(&stream));
    }
}

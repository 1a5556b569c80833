//! Where the bytes of an image go: in order, and in pieces of some size.

/// Bytes that are gathered before they are handed on.
const PIECE: usize = 64 << 10;

/// A sink for an image.
pub(super) struct Out<F> {
    piece: Vec<u8>,
    /// Bytes so far.
    position: u64,
    take: F,
}

impl<E, F: FnMut(&[u8]) -> Result<(), E>> Out<F> {
    pub(super) fn new(take: F) -> Self {
        Self { piece: Vec::with_capacity(PIECE), position: 0, take }
    }

    /// Appends bytes.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<(), E> {
        if self.piece.len() + bytes.len() > PIECE {
            self.hand_on()?;
        }
        self.piece.extend_from_slice(bytes);
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Appends zeros up to a position less than a few blocks ahead.
    pub(super) fn pad_to(&mut self, position: u64) -> Result<(), E> {
        static ZEROS: [u8; 4096] = [0; 4096];
        while self.position < position {
            let now = (position - self.position).min(ZEROS.len() as u64);
            self.put(&ZEROS[..now as usize])?;
        }
        Ok(())
    }

    /// Appends zeros up to a multiple of `unit`.
    pub(super) fn align(&mut self, unit: u64) -> Result<(), E> {
        self.pad_to(self.position.next_multiple_of(unit))
    }

    /// Hands on what is left.
    pub(super) fn end(mut self) -> Result<(), E> {
        self.hand_on()
    }

    fn hand_on(&mut self) -> Result<(), E> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let handed = (self.take)(&self.piece);
        self.piece.clear();
        handed
    }
}

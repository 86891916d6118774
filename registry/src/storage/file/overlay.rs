//! A file that is only read: what is written stays in memory. So a store can be looked at with everything that opening it
//! does, repairs included, before anything is changed.

use std::collections::BTreeMap;
use std::io;

use parking_lot::Mutex;
use redb::StorageBackend;

/// What is kept of what was written, in pieces of this many bytes. A repair writes a part of the file at most.
const PIECE: usize = 4_096;

/// The file as it would be.
#[derive(Debug)]
pub(super) struct Overlay {
    file: Box<dyn StorageBackend>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    len: u64,
    /// Everything of the file below it can still be read from there.
    file_len: u64,
    pieces: BTreeMap<u64, Box<[u8; PIECE]>>,
}

impl Overlay {
    pub(super) fn over(file: Box<dyn StorageBackend>) -> io::Result<Self> {
        let len = file.len()?;
        Ok(Self { file, inner: Mutex::new(Inner { len, file_len: len, pieces: BTreeMap::new() }) })
    }

    /// A piece of the file as it is on the disk, with zeroes past its end.
    fn piece(&self, at: u64, file_len: u64) -> io::Result<Box<[u8; PIECE]>> {
        let mut piece = Box::new([0; PIECE]);
        let begin = at * PIECE as u64;
        let there = usize::try_from(file_len.saturating_sub(begin)).unwrap_or(PIECE).min(PIECE);
        if there > 0 {
            self.file.read(begin, &mut piece[..there])?;
        }
        Ok(piece)
    }
}

/// The pieces that a range touches, and which part of each.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let begin = (at % PIECE as u64) as usize;
        let part = begin..(begin + len - done).min(PIECE);
        let first = done;
        done += part.len();
        Some((at / PIECE as u64, part, first))
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.inner.lock().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let inner = self.inner.lock();
        if offset + out.len() as u64 > inner.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (at, part, first) in pieces(offset, out.len()) {
            let out = &mut out[first..first + part.len()];
            match inner.pieces.get(&at) {
                Some(piece) => out.copy_from_slice(&piece[part]),
                None => out.copy_from_slice(&self.piece(at, inner.file_len)?[part]),
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut inner = self.inner.lock();
        if len < inner.len {
            // What grows back is zero.
            let cut = len / PIECE as u64;
            if len < inner.file_len && !inner.pieces.contains_key(&cut) && !len.is_multiple_of(PIECE as u64) {
                let piece = self.piece(cut, inner.file_len)?;
                inner.pieces.insert(cut, piece);
            }
            let _gone = inner.pieces.split_off(&(cut + 1));
            let kept = (len % PIECE as u64) as usize;
            if let Some(piece) = inner.pieces.get_mut(&cut) {
                piece[kept..].fill(0);
            }
            inner.file_len = inner.file_len.min(len);
        }
        inner.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.len = inner.len.max(offset + data.len() as u64);
        for (at, part, first) in pieces(offset, data.len()) {
            if !inner.pieces.contains_key(&at) {
                let piece = if part.len() == PIECE { Box::new([0; PIECE]) } else { self.piece(at, inner.file_len)? };
                inner.pieces.insert(at, piece);
            }
            if let Some(piece) = inner.pieces.get_mut(&at) {
                let bytes = &data[first..first + part.len()];
                piece[part].copy_from_slice(bytes);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;

    use super::*;

    #[test]
    fn it_reads_what_was_written_and_the_file_below_stays_as_it_was() {
        let below = InMemoryBackend::new();
        below.set_len(10_000).unwrap();
        below.write(0, &[1; 10_000]).unwrap();
        let overlay = Overlay::over(Box::new(below)).unwrap();
        overlay.write(4_000, &[2; 5_000]).unwrap();
        let mut all = vec![0; 10_000];
        overlay.read(0, &mut all).unwrap();
        assert!(all[..4_000].iter().all(|byte| *byte == 1) && all[9_000..].iter().all(|byte| *byte == 1));
        assert!(all[4_000..9_000].iter().all(|byte| *byte == 2));

        overlay.set_len(4_500).unwrap();
        overlay.set_len(20_000).unwrap();
        let mut all = vec![9; 20_000];
        overlay.read(0, &mut all).unwrap();
        assert!(all[4_000..4_500].iter().all(|byte| *byte == 2), "what was left stays");
        assert!(all[4_500..].iter().all(|byte| *byte == 0), "what was cut off is gone");
        assert!(overlay.read(19_999, &mut [0; 2]).is_err());

        let mut all = vec![0; 10_000];
        overlay.file.read(0, &mut all).unwrap();
        assert!(all.iter().all(|byte| *byte == 1));
    }
}

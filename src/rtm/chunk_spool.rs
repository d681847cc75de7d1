//! The sent chunks of a file, until the platform has put them together.
//!
//! The platform tells only at the end which chunks it lost, and the caller cannot send them again. So each chunk is kept in
//! a file without a name, in the folder for temporary files. The system removes it with its descriptor, also if the process
//! dies. It is encrypted with a key that is in memory only (ADR 36).

use std::io::{self, SeekFrom};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

/// Bytes that are encrypted and written at once.
const PIECE: usize = 64 << 10;
/// Length of the tag behind each encrypted piece.
const TAG: usize = 16;

/// The sent chunks of one file. All chunks but the last have the same length.
pub(super) struct ChunkSpool {
    file: tokio::fs::File,
    key: LessSafeKey,
    /// The length of each chunk.
    lengths: Vec<usize>,
}

impl ChunkSpool {
    /// Creates an empty spool.
    ///
    /// # Errors
    /// There is no folder for temporary files, or it is not writable.
    pub(super) fn create() -> io::Result<Self> {
        // This opens a file and touches no data, so it does not block for long.
        let mut file = tokio::fs::File::from_std(tempfile::tempfile()?);
        file.set_max_buf_size(PIECE + TAG);
        Self::new(file)
    }

    fn new(file: tokio::fs::File) -> io::Result<Self> {
        let mut key = [0; 32];
        aws_lc_rs::rand::fill(&mut key).map_err(io::Error::other)?;
        let key = UnboundKey::new(&AES_256_GCM, &key).map_err(io::Error::other)?;
        Ok(Self { file, key: LessSafeKey::new(key), lengths: Vec::new() })
    }

    /// Keeps the next chunk.
    ///
    /// # Errors
    /// The file cannot be written. The spool then has no use any more.
    pub(super) async fn keep(&mut self, chunk: &[u8]) -> io::Result<()> {
        let number = self.lengths.len();
        for (index, piece) in chunk.chunks(PIECE).enumerate() {
            let mut sealed = Vec::with_capacity(piece.len() + TAG);
            sealed.extend_from_slice(piece);
            let sealing = self.key.seal_in_place_append_tag(nonce(number, index), Aad::empty(), &mut sealed);
            sealing.map_err(io::Error::other)?;
            self.file.write_all(&sealed).await?;
        }
        self.lengths.push(chunk.len());
        // Without it an error of the last write would be lost.
        self.file.flush().await
    }

    /// Returns a chunk, or `None` for a number that no chunk has.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) async fn chunk(&mut self, number: usize) -> io::Result<Option<Bytes>> {
        let Some(&length) = self.lengths.get(number) else { return Ok(None) };
        let before: usize = self.lengths.iter().take(number).map(|length| sealed_length(*length)).sum();
        self.file.seek(SeekFrom::Start(before as u64)).await?;
        let mut chunk = BytesMut::with_capacity(length);
        for index in 0..length.div_ceil(PIECE) {
            let mut sealed = vec![0; PIECE.min(length - index * PIECE) + TAG];
            self.file.read_exact(&mut sealed).await?;
            let opened = self.key.open_in_place(nonce(number, index), Aad::empty(), &mut sealed);
            chunk.extend_from_slice(opened.map_err(io::Error::other)?);
        }
        Ok(Some(chunk.freeze()))
    }
}

/// Returns the length of an encrypted chunk.
const fn sealed_length(length: usize) -> usize {
    length + length.div_ceil(PIECE) * TAG
}

/// Returns the nonce of a piece. Each piece is encrypted once.
fn nonce(chunk: usize, piece: usize) -> Nonce {
    let bits = (chunk as u128) << 32 | piece as u128;
    let [bytes @ .., _, _, _, _] = bits.to_le_bytes();
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::block_on;

    fn data(length: usize, seed: u8) -> Vec<u8> {
        (0..length).map(|at| at.to_le_bytes()[0].wrapping_mul(7).wrapping_add(seed)).collect()
    }

    #[test]
    fn chunks_come_back_in_any_order() {
        block_on(async {
            let chunks = [data(1 << 20, 1), data(1 << 20, 2), data(100_001, 3)];
            let mut spool = ChunkSpool::create().unwrap();
            for chunk in &chunks {
                spool.keep(chunk).await.unwrap();
            }
            for number in [2, 0, 1, 1] {
                assert!(spool.chunk(number).await.unwrap().unwrap() == chunks[number], "{number}");
            }
            assert!(spool.chunk(3).await.unwrap().is_none());
        })
        .unwrap();
    }

    #[test]
    fn file_does_not_show_its_content() {
        block_on(async {
            let mut spool = ChunkSpool::create().unwrap();
            spool.keep(&[b'x'; 1000]).await.unwrap();
            spool.file.seek(SeekFrom::Start(0)).await.unwrap();
            let mut written = Vec::new();
            spool.file.read_to_end(&mut written).await.unwrap();
            assert_eq!(written.len(), sealed_length(1000));
            assert!(!written.windows(4).any(|four| four == b"xxxx"));
        })
        .unwrap();
    }

    #[test]
    fn full_device_is_an_error() {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        block_on(async {
            let mut spool = ChunkSpool::new(tokio::fs::File::from_std(full)).unwrap();
            assert!(spool.keep(b"a").await.is_err());
        })
        .unwrap();
    }
}

//! SHA-256, by aws-lc-rs, which TLS uses already.

use aws_lc_rs::digest::{Context, SHA256, digest};

/// An incremental SHA-256 digest.
#[derive(Clone)]
pub struct Sha256(Context);

impl Default for Sha256 {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl Sha256 {
    /// Appends bytes.
    pub fn update(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.update(bytes.as_ref());
    }

    /// Returns the digest of all that was appended.
    pub fn finish(self) -> [u8; 32] {
        array(self.0.finish().as_ref())
    }

    /// Returns the digest of these bytes.
    pub fn digest(bytes: impl AsRef<[u8]>) -> [u8; 32] {
        array(digest(&SHA256, bytes.as_ref()).as_ref())
    }
}

fn array(digest: &[u8]) -> [u8; 32] {
    let mut array = [0; 32];
    // SHA-256 has 32 bytes, so the lengths agree.
    array.copy_from_slice(digest);
    array
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-2, appendix B.1.
    #[test]
    fn digest_of_pieces_equals_that_of_the_whole() {
        let mut pieces = Sha256::default();
        pieces.update("a");
        let mut others = pieces.clone();
        pieces.update([b'b', b'c']);
        others.update("c");
        assert_eq!(pieces.finish(), Sha256::digest("abc"));
        assert_eq!(others.finish(), Sha256::digest("ac"));
    }

    #[test]
    fn digest_is_that_of_the_standard() {
        // The example of FIPS 180-4.
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        for (byte, digits) in Sha256::digest("abc").iter().zip(hex.as_bytes().chunks(2)) {
            assert_eq!(format!("{byte:02x}").as_bytes(), digits);
        }
    }
}

//! What is saved of a user endpoint, made smaller: rendered configurations are long and much alike, and a Secret holds
//! 1 MiB.

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

/// No saved value unpacks to more; a damaged one could otherwise fill the memory.
const UNPACKED_MAX: u64 = 64 * 1024 * 1024;

/// The first two bytes of what is packed.
const MAGIC: [u8; 2] = [0x1f, 0x8b];

pub(super) fn pack(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    match encoder.write_all(content).and_then(|()| encoder.finish()) {
        Ok(packed) => packed,
        // Writing to memory does not fail; and what is not packed is read as it is.
        Err(_) => content.to_vec(),
    }
}

/// Unpacks; what was never packed comes back as it is. `None` if it is damaged.
pub(super) fn unpack(content: &[u8]) -> Option<Vec<u8>> {
    if !content.starts_with(&MAGIC) {
        return Some(content.to_vec());
    }
    let mut unpacked = Vec::new();
    GzDecoder::new(content)
        .take(UNPACKED_MAX + 1)
        .read_to_end(&mut unpacked)
        .ok()?;
    (unpacked.len() as u64 <= UNPACKED_MAX).then_some(unpacked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_back_and_what_is_damaged_does_not() {
        let text = "engine: {type: GlobusComputeEngine}\n".repeat(500);
        let packed = pack(text.as_bytes());
        assert!(packed.len() < text.len() / 20, "{}", packed.len());
        assert_eq!(unpack(&packed).as_deref(), Some(text.as_bytes()));
        assert_eq!(unpack(b"plain").as_deref(), Some(&b"plain"[..]));
        assert_eq!(unpack(&packed[..packed.len() - 9]), None);
    }
}

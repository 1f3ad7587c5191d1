//! Encrypted attributes: AES-256-GCM under a key derived from the database's passphrase.
//!
//! The stored text is base64 of salt (16 bytes), initialisation vector (12), ciphertext and tag (16).

use aes_gcm::{
    Aes256Gcm, Nonce,
    aead::{Aead, KeyInit},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use pbkdf2::pbkdf2_hmac_array;
use s3rep_core::Secret;
use sha2::Sha256;

use super::Entropy;

const SALT: usize = 16;
const IV: usize = 12;
const TAG: usize = 16;
const ROUNDS: u32 = 100_000;

/// What a stored secret is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// The text that was encrypted.
    Plain(String),
    /// Not a ciphertext at all: a text that was stored as it is.
    Bare,
    /// A ciphertext that this passphrase does not open, or that was damaged.
    Locked,
}

fn cipher(passphrase: &Secret, salt: &[u8]) -> Aes256Gcm {
    let key = pbkdf2_hmac_array::<Sha256, 32>(passphrase.expose().as_bytes(), salt, ROUNDS);
    Aes256Gcm::new(&key.into())
}

/// Opens a stored secret. Takes some milliseconds: every value has its own salt.
pub(super) fn open(stored: &str, passphrase: &Secret) -> Opened {
    let Ok(bytes) = STANDARD.decode(stored) else { return Opened::Bare };
    let Some((salt, rest)) = bytes.split_at_checked(SALT) else { return Opened::Bare };
    let Some((iv, ciphertext)) = rest.split_at_checked(IV).filter(|(_, text)| text.len() >= TAG) else {
        return Opened::Bare;
    };
    let Ok(iv) = <[u8; IV]>::try_from(iv) else { return Opened::Bare };
    match cipher(passphrase, salt).decrypt(&Nonce::from(iv), ciphertext) {
        Ok(plain) => Opened::Plain(String::from_utf8_lossy(&plain).into_owned()),
        Err(_) => Opened::Locked,
    }
}

/// Encrypts a text under a fresh salt.
pub(super) fn seal(plain: &str, passphrase: &Secret, entropy: &mut dyn Entropy) -> Option<String> {
    let (mut salt, mut iv) = ([0; SALT], [0; IV]);
    entropy.fill(&mut salt);
    entropy.fill(&mut iv);
    let ciphertext = cipher(passphrase, &salt).encrypt(&Nonce::from(iv), plain.as_bytes()).ok()?;
    Some(STANDARD.encode([&salt[..], &iv, &ciphertext].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sevens;

    impl Entropy for Sevens {
        fn fill(&mut self, bytes: &mut [u8]) {
            bytes.fill(7);
        }
    }

    #[test]
    fn what_was_sealed_opens_with_its_passphrase_only() {
        let passphrase = Secret::from("correct horse ñ");
        let stored = seal("ünï 😀", &passphrase, &mut Sevens).unwrap();
        assert_eq!(open(&stored, &passphrase), Opened::Plain("ünï 😀".into()));
        assert_eq!(open(&stored, &Secret::from("other")), Opened::Locked);
        assert_eq!(open("plain text", &passphrase), Opened::Bare);
        assert_eq!(open("aGVsbG8=", &passphrase), Opened::Bare);
    }
}

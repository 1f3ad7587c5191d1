//! Passwords: bcrypt or argon2id hashes in a compact text.

use argon2::{Algorithm, Argon2, Params, Version};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};

use super::{
    Entropy,
    number::{padded62, parse_unsigned62},
};

const COST: u32 = 12;
/// log2 of the memory in KiB, passes, lanes.
const ARGON: (u32, u32, u32) = (16, 3, 4);
/// bcrypt reads no further than this.
const BCRYPT_BYTES: usize = 72;

/// How passwords of an attribute are hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithms {
    Bcrypt,
    Argon2id,
}

impl Algorithms {
    /// By a definition such as `password:argon2id|min:8`.
    pub(super) fn of(definition: &str) -> Self {
        if definition.contains("argon2") { Self::Argon2id } else { Self::Bcrypt }
    }
}

/// Whether a text is a hash already, and is stored as it is.
pub(super) fn is_hash(text: &str) -> bool {
    let compact_bcrypt = || {
        let (cost, rest) = text.strip_prefix('$').and_then(|text| text.split_once('$'))?;
        Some((1..=2).contains(&cost.len()) && rest.len() == 53)
    };
    (text.starts_with("$2") && text.len() == 60)
        || text.starts_with("$argon2")
        || (text.starts_with('$') && text.contains('|'))
        || compact_bcrypt().unwrap_or(false)
}

/// Hashes a password and returns the compact text.
pub(super) fn hash(
    plain: &str,
    algorithm: Algorithms,
    entropy: &mut dyn Entropy,
) -> Result<String, &'static str> {
    let mut salt = [0_u8; 16];
    entropy.fill(&mut salt);
    match algorithm {
        Algorithms::Bcrypt if plain.len() > BCRYPT_BYTES || plain.contains('\0') => Err(
            "is longer than the 72 bytes that bcrypt reads, or contains a NUL: declare it password:argon2id",
        ),
        Algorithms::Bcrypt => {
            let parts = bcrypt::hash_with_salt(plain, COST, salt).map_err(|_| "cannot be hashed")?;
            Ok(compact(&parts.format_for_version(bcrypt::Version::TwoB)))
        }
        Algorithms::Argon2id => {
            let (memory, passes, lanes) = ARGON;
            let mut hash = [0_u8; 32];
            Params::new(1 << memory, passes, lanes, Some(hash.len()))
                .and_then(|params| {
                    Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into(
                        plain.as_bytes(),
                        &salt,
                        &mut hash,
                    )
                })
                .map_err(|_| "cannot be hashed")?;
            Ok(compact(&format!(
                "$argon2id$v=19$m={},t={passes},p={lanes}${}${}",
                1 << memory,
                STANDARD_NO_PAD.encode(salt),
                STANDARD_NO_PAD.encode(hash),
            )))
        }
    }
}

/// The compact text of a hash in its usual form; any other text stays as it is.
pub fn compact(hash: &str) -> String {
    compact_bcrypt(hash).or_else(|| compact_argon(hash)).unwrap_or_else(|| hash.to_owned())
}

fn compact_bcrypt(hash: &str) -> Option<String> {
    let (_, rest) = hash.strip_prefix("$2")?.split_at_checked(1)?;
    let (cost, rest) = rest.strip_prefix('$')?.split_once('$')?;
    Some(format!("${}${rest}", padded62(cost.parse().ok()?, 1)))
}

fn compact_argon(hash: &str) -> Option<String> {
    let mut parts = hash.strip_prefix("$argon2id$")?.split('$');
    let version: u64 = parts.next()?.strip_prefix("v=")?.parse().ok()?;
    let (mut memory, mut passes, mut lanes) = (None, None, None);
    for option in parts.next()?.split(',') {
        let (name, value) = option.split_once('=')?;
        let value: u64 = value.parse().ok()?;
        match name {
            "m" if value.is_power_of_two() => memory = Some(u64::from(value.trailing_zeros())),
            "t" => passes = Some(value),
            "p" => lanes = Some(value),
            _ => return None,
        }
    }
    let (salt, hash) = (parts.next()?, parts.next()?);
    let digits = [version, memory?, passes?, lanes?].map(|n| padded62(n, 1));
    Some(format!("${}${salt}${hash}", digits.join("|")))
}

/// The usual form of a compact text; any other text stays as it is.
pub fn expand(text: &str) -> String {
    let expanded = || {
        let (head, rest) = text.strip_prefix('$')?.split_once('$')?;
        if head.starts_with('2') && head.len() == 2 {
            return None;
        }
        let numbers = head.split('|').map(parse_unsigned62).collect::<Option<Vec<_>>>()?;
        match numbers.as_slice() {
            [cost] if rest.len() == 53 => Some(format!("$2b${cost:02}${rest}")),
            [version, memory, passes, lanes] if *memory < 32 => {
                Some(format!("$argon2id$v={version}$m={},t={passes},p={lanes}${rest}", 1_u64 << memory))
            }
            _ => None,
        }
    };
    expanded().unwrap_or_else(|| text.to_owned())
}

/// Whether the password is the one that the stored text was made of.
pub fn verify(plain: &str, stored: &str) -> bool {
    let hash = expand(stored);
    if hash.starts_with("$2") {
        return bcrypt::verify(plain, &hash).unwrap_or(false);
    }
    let Some(("", options)) = hash.split_once("$argon2id$v=19$") else { return false };
    let parts: Vec<&str> = options.split('$').collect();
    let [costs, salt, expected] = parts.as_slice() else { return false };
    let costs: Vec<u32> = costs.split(',').filter_map(|cost| cost.split_once('=')?.1.parse().ok()).collect();
    let (Ok(salt), Ok(expected)) = (STANDARD_NO_PAD.decode(salt), STANDARD_NO_PAD.decode(expected)) else {
        return false;
    };
    // a stored text may ask for any amount of memory: no more than 1 GiB is given
    let &[memory, passes, lanes] = costs.as_slice() else { return false };
    if memory > 1 << 20 || passes > 100 || expected.len() > 128 {
        return false;
    }
    let mut actual = vec![0_u8; expected.len()];
    let hashed = Params::new(memory, passes, lanes, Some(actual.len())).and_then(|params| {
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params).hash_password_into(
            plain.as_bytes(),
            &salt,
            &mut actual,
        )
    });
    hashed.is_ok() && actual.iter().zip(&expected).fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counter(u8);

    impl Entropy for Counter {
        fn fill(&mut self, bytes: &mut [u8]) {
            for byte in bytes {
                self.0 = self.0.wrapping_add(1);
                *byte = self.0;
            }
        }
    }

    #[test]
    fn hashes_verify() {
        for algorithm in [Algorithms::Bcrypt, Algorithms::Argon2id] {
            let stored = hash("S3cure!pass", algorithm, &mut Counter(0)).unwrap();
            assert!(is_hash(&stored), "{stored}");
            assert!(verify("S3cure!pass", &stored));
            assert!(!verify("other", &stored));
        }
    }

    #[test]
    fn plain_texts_are_no_hashes() {
        for text in ["secret", "$money$", "", "$", "$2b$short"] {
            assert!(!is_hash(text), "{text}");
        }
        assert!(hash(&"x".repeat(73), Algorithms::Bcrypt, &mut Counter(0)).is_err());
    }
}
